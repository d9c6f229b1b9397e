"""Keras: models as `.keras`, its own archive of configuration and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.artifacts.packages import requirements
from rayml.artifacts.record import is_a
from rayml.artifacts.signature import values_of
from rayml.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.artifacts.flavours import StoredModel

_FILE = "model.keras"


def fits(model: object) -> bool:
    """Whether it is a Keras model."""
    return is_a(model, "keras.Model")


def save(model: Any, folder: Path, _example: object) -> dict[str, object]:  # noqa: ANN401
    """Write one file, and note the backend's version too: Keras alone computes nothing."""
    import keras  # noqa: PLC0415 - an extra, and loaded: there is a model of it

    model.save(folder / _FILE)
    return {"requirements": requirements("keras", keras.backend.backend())}


def load(stored: StoredModel) -> Any:  # noqa: ANN401
    """Return the model; classes of its own have to be imported before."""
    import keras  # noqa: PLC0415 - an extra

    try:
        return keras.saving.load_model(stored.folder / _FILE, safe_mode=not stored.trusted)
    except ValueError as exc:
        if stored.trusted:
            raise
        raise SpecError(
            f"model {stored.record.name!r} is not read by Keras without trust: {exc}; "
            "load(trusted=True) if you trust whoever logged it"
        ) from exc


def predict(model: Any, data: Any) -> Any:  # noqa: ANN401
    """Return the predictions."""
    return model.predict(values_of(data), verbose=0)
