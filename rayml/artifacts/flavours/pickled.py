"""Any object as a pickle, which runs code when it is read."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from rayml.artifacts.packages import requirements
from rayml.artifacts.record import type_name

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.artifacts.flavours import StoredModel

_FILE = "model.pkl"


def fits(_model: object) -> bool:
    """Never: a pickle is asked for by name."""
    return False


def save(model: object, folder: Path, _example: object) -> dict[str, object]:
    """Write one file, with the code of what is defined in a script or a notebook."""
    import cloudpickle  # noqa: PLC0415 - not to load others

    with (folder / _FILE).open("wb") as file:
        cloudpickle.dump(model, file)
    return {"requirements": requirements("cloudpickle", type_name(model).partition(".")[0])}


def load(stored: StoredModel) -> Any:  # noqa: ANN401
    """Return the object, for whoever trusts it."""
    with (stored.folder / _FILE).open("rb") as file:
        return pickle.load(file)  # noqa: S301 - trusted, by an explicit yes


def predict(model: Any, data: Any) -> Any:  # noqa: ANN401
    """Return what the object's own `predict` does."""
    return model.predict(data)
