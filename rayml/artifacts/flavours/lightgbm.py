"""LightGBM: boosters in its own text.

Its estimators go through skops, which keeps what that text lacks: the names of the classes and the
settings. The text lies beside it, for whatever else reads LightGBM's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.artifacts.packages import requirements
from rayml.artifacts.record import type_name

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.artifacts.flavours import StoredModel

_FILE = "model.txt"
_BOOSTER = "lightgbm.basic.Booster"
TYPES = frozenset(
    {
        _BOOSTER,
        *(f"lightgbm.sklearn.LGBM{kind}" for kind in ("Classifier", "Model", "Ranker")),
        "lightgbm.sklearn.LGBMRegressor",
    }
)


def fits(model: object) -> bool:
    """Whether it is a booster."""
    return type_name(model) == _BOOSTER


def save(model: Any, folder: Path, _example: object) -> dict[str, object]:  # noqa: ANN401
    """Write one file; of a training that was stopped early, it ends with the best iteration."""
    model.save_model(folder / _FILE)
    return {"requirements": requirements("lightgbm")}


def save_beside(model: Any, folder: Path) -> None:  # noqa: ANN401
    """Write the booster of one of its estimators, if that is fitted."""
    if type_name(model) in TYPES and (booster := getattr(model, "booster_", None)) is not None:
        booster.save_model(folder / _FILE)


def load(stored: StoredModel) -> Any:  # noqa: ANN401
    """Return a booster; what is read is data, never code."""
    import lightgbm  # noqa: PLC0415 - an extra

    return lightgbm.Booster(model_file=stored.folder / _FILE)


def predict(model: Any, data: Any) -> Any:  # noqa: ANN401
    """Return the predictions."""
    return model.predict(data)
