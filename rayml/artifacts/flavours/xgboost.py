"""XGBoost: boosters and estimators in its own binary JSON (UBJ), which its later versions read.

An estimator's file lacks its settings, of which `missing` changes predictions; the record has
them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rayml.artifacts.packages import requirements
from rayml.artifacts.record import is_a, type_name

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.artifacts.flavours import StoredModel

_FILE = "model.ubj"
_BOOSTER = "xgboost.core.Booster"
_ESTIMATORS = frozenset(
    f"xgboost.sklearn.XGB{name}"
    for name in ("Classifier", "Model", "RFClassifier", "RFRegressor", "Ranker", "Regressor")
)
TYPES = _ESTIMATORS | {_BOOSTER}


def fits(model: object) -> bool:
    """Whether it is XGBoost's own: a subclass is more than its file would say."""
    return type_name(model) in TYPES


def save(model: Any, folder: Path, _example: object) -> dict[str, object]:  # noqa: ANN401
    """Write one file."""
    model.save_model(folder / _FILE)
    if type_name(model) == _BOOSTER:
        return {"requirements": requirements("xgboost")}
    return {"settings": _settings(model), "requirements": requirements("sklearn", "xgboost")}


def load(stored: StoredModel) -> Any:  # noqa: ANN401
    """Return a booster or an estimator; what is read is data, never code."""
    import xgboost  # noqa: PLC0415 - an extra

    kind = stored.record.meta["class"]
    if kind in _ESTIMATORS:
        settings = json.loads(str(stored.record.meta["settings"]))
        model = getattr(xgboost.sklearn, str(kind).rpartition(".")[2])(**settings)
    else:
        model = xgboost.Booster()
    model.load_model(stored.folder / _FILE)
    return model


def predict(model: Any, data: Any) -> Any:  # noqa: ANN401
    """Return the predictions; a booster takes categories from a DataFrame as it was trained on."""
    import xgboost  # noqa: PLC0415 - an extra

    if not isinstance(model, xgboost.Booster):
        return model.predict(data)
    return model.predict(xgboost.DMatrix(data, enable_categorical=True))


def _settings(model: Any) -> str:  # noqa: ANN401
    """Return the plain ones as text: strict JSON, which a record is, has no NaN."""
    given = model.get_params().items()
    plain = {k: v.item() if is_a(v, "numpy.generic") else v for k, v in given}
    return json.dumps({k: v for k, v in plain.items() if isinstance(v, bool | int | float | str)})
