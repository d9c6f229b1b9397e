"""Conversion to ONNX by each library's own converter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnxmltools
import pandas as pd
import skl2onnx
from onnxmltools.convert.common import data_types
from skl2onnx.common.data_types import FloatTensorType, StringTensorType

import rayml

from ._boosters import teach, without_names

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM = "program.pt2"
_OPSET, _ML_OPSET = 20, 3  # the newest that all converters know
_BOOSTERS = {"lightgbm.basic.Booster": "lightgbm", "xgboost.core.Booster": "xgboost"}


def convert(
    artifact: rayml.Artifact,
    model: Any,  # noqa: ANN401
    rows: pd.DataFrame,
    opset: int | None,
) -> onnx.ModelProto:
    """Return the model as ONNX.

    Raises:
        SpecError: It has a part that ONNX has no counterpart for; the message names it.
    """
    _check_columns(rows)
    if artifact.format == "torch":
        return _torch(artifact, opset)
    kind = artifact.meta["class"]
    if kind in _BOOSTERS:
        return _booster(_BOOSTERS[kind], model, rows, opset)
    if not hasattr(model, "predict"):
        raise rayml.SpecError(
            f"model {artifact.uri} is a {kind}, which nothing here converts; give one of "
            "scikit-learn, LightGBM, XGBoost or PyTorch"
        )
    return _estimator(model, rows, opset)


def _check_columns(rows: pd.DataFrame) -> None:
    times = [name for name in rows if pd.api.types.is_datetime64_any_dtype(rows[name])]
    if times:
        raise rayml.SpecError(
            f"the model takes times ({', '.join(map(repr, times))}), which ONNX does not know; "
            "turn them into numbers before the model"
        )


def _torch(artifact: rayml.Artifact, opset: int | None) -> onnx.ModelProto:
    import torch  # noqa: PLC0415 - large, and only for its own models

    program = artifact.path() / _PROGRAM
    if not program.is_file():
        raise rayml.SpecError(
            f"model {artifact.uri} has no program: {artifact.meta.get('not_exported')}; log it "
            "with an input_example"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            torch.export.load(program),
            f=path,
            input_names=["input"],
            opset_version=opset,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
        return onnx.load(path)


def _booster(
    library: str,
    model: Any,  # noqa: ANN401
    rows: pd.DataFrame,
    opset: int | None,
) -> onnx.ModelProto:
    _check_numbers(rows)
    types = [("input", data_types.FloatTensorType([None, rows.shape[1]]))]
    wanted = {"target_opset": opset} if opset else {}
    function = getattr(onnxmltools, f"convert_{library}")
    options = {"zipmap": False} if library == "lightgbm" else {}
    made: onnx.ModelProto = function(
        without_names(model), initial_types=types, **options, **wanted
    )
    return made


def _estimator(model: Any, rows: pd.DataFrame, opset: int | None) -> onnx.ModelProto:  # noqa: ANN401
    teach()
    if type(model).__name__.startswith(("LGBM", "XGB")):
        _check_numbers(rows)
    types = input_types(model, rows)
    model = without_names(model)
    last = _last(model)
    options = {id(last): {"zipmap": False}} if hasattr(last, "predict_proba") else None
    try:
        made: onnx.ModelProto = skl2onnx.convert_sklearn(
            model, "model", types, options=options, target_opset=_opsets(opset)
        )
    except Exception as exc:
        raise rayml.SpecError(
            f"{_culprit(model, exc, types)} cannot be converted to ONNX: {_words(exc)}; "
            "use another in its place"
        ) from exc
    return made


def _opsets(opset: int | None) -> dict[str, int]:
    newest = min(_OPSET, onnx.defs.onnx_opset_version())
    return {"": opset or newest, "ai.onnx.ml": _ML_OPSET}


def input_types(model: Any, rows: pd.DataFrame) -> list[tuple[str, Any]]:  # noqa: ANN401
    """Return the inputs: one for each column if the model looks at single ones, else one of all.

    Raises:
        SpecError: It takes text and numbers at once.
    """
    texts = [name for name in rows if is_text(rows[name])]
    if hasattr(_first(model), "transformers_"):
        kinds = {name: StringTensorType if name in texts else FloatTensorType for name in rows}
        return [(str(name), kind([None, 1])) for name, kind in kinds.items()]
    if not texts:
        return [("input", FloatTensorType([None, rows.shape[1]]))]
    if len(texts) == rows.shape[1]:
        return [("input", StringTensorType([None, rows.shape[1]]))]
    raise rayml.SpecError(
        f"{type(_first(model)).__name__} takes text ({', '.join(map(repr, texts))}) and numbers "
        "at once, which ONNX cannot; put a ColumnTransformer before it"
    )


def is_text(column: pd.Series[Any]) -> bool:
    """Whether ONNX takes a column as strings."""
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _check_numbers(rows: pd.DataFrame) -> None:
    if texts := [name for name in rows if is_text(rows[name])]:
        raise rayml.SpecError(
            f"the booster itself takes categories ({', '.join(map(repr, texts))}), which ONNX "
            "cannot; encode them by a step of a pipeline"
        )


def _first(model: Any) -> Any:  # noqa: ANN401
    while hasattr(model, "steps"):
        model = model.steps[0][1]
    return model


def _last(model: Any) -> Any:  # noqa: ANN401
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return model


def _culprit(model: Any, exc: Exception, types: list[tuple[str, Any]]) -> str:  # noqa: ANN401
    """Return the step whose class the error names, or up to which a pipeline is not converted."""
    for name, part in _steps(model, ""):
        if f"{type(part).__name__}'" in str(exc) or f"{type(part).__name__}." in str(exc):
            return _named(name, part)
    for place, (name, part) in enumerate(getattr(model, "steps", [])):
        try:
            skl2onnx.convert_sklearn(model[: place + 1], "part", types)
        except Exception:  # noqa: BLE001 - whatever the converter raises
            return _named(name, part)
    return _named("", model)


def _named(name: str, part: Any) -> str:  # noqa: ANN401
    kind = type(part).__name__
    return f"step {name!r} ({kind})" if name else f"the model ({kind})"


def _steps(model: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield a model's parts with their names, the innermost first."""
    inner = [*getattr(model, "steps", []), *getattr(model, "transformer_list", [])]
    inner += [(key, part) for key, part, _ in getattr(model, "transformers_", [])]
    inner += getattr(model, "estimators", None) or []
    for key, part in [one for one in inner if isinstance(one, tuple)]:
        if not isinstance(part, str):
            yield from _steps(part, f"{name}/{key}".strip("/"))
    yield name, model


def _words(exc: Exception) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0][:300] if lines else type(exc).__name__
