"""LightGBM and XGBoost for ONNX's converters, where they are installed and loaded."""

from __future__ import annotations

import copy
import sys
from typing import Any

from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)

_CLASSIFIER = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
_LIBRARIES = {"lightgbm": ("LGBM", convert_lightgbm), "xgboost": ("XGB", convert_xgboost)}


def teach() -> None:
    """Let skl2onnx convert their estimators too, alone and inside of pipelines."""
    for name, (prefix, convert) in _LIBRARIES.items():
        if (library := sys.modules.get(name)) is None:  # nothing has loaded a model of it
            continue
        update_registered_converter(
            getattr(library, f"{prefix}Classifier"),
            f"{name}{prefix}Classifier",
            calculate_linear_classifier_output_shapes,
            convert,
            options=_CLASSIFIER,
        )
        update_registered_converter(
            getattr(library, f"{prefix}Regressor"),
            f"{name}{prefix}Regressor",
            calculate_linear_regressor_output_shapes,
            convert,
            options={"split": None},
        )


def without_names(model: Any) -> Any:  # noqa: ANN401
    """Return XGBoost's model without the columns' names: its converter wants f0, f1 and so on."""
    kind = type(model).__name__
    if kind == "Booster" and hasattr(model, "feature_names"):
        model = model.copy()
        model.feature_names = None
    elif kind.startswith("XGB"):
        model = copy.deepcopy(model)
        model.get_booster().feature_names = None
    return model
