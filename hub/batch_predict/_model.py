"""The model: what it takes, whether the table has it, and what it says of some rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import rayml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._rows import Source

_TRIED = 100
_TEXT = ("object", "str", "string")
# Formats, and classes, of which a model has no classes of its own to tell.
_PLAIN_FORMATS = ("keras", "mlflow", "torch", "transformers")
_BOOSTERS = ("lightgbm.basic.Booster", "xgboost.core.Booster")
# Of these the likeliest class is the prediction, so that they need not be asked twice.
_LIKELIEST = frozenset(
    {
        "ExtraTreesClassifier",
        "GradientBoostingClassifier",
        "HistGradientBoostingClassifier",
        "LGBMClassifier",
        "LogisticRegression",
        "MLPClassifier",
        "RandomForestClassifier",
        "XGBClassifier",
    }
)


@dataclass(frozen=True)
class Opened:
    """A model that could be loaded.

    Attributes:
        artifact: The model.
        trusted: Whether its code may run.
        takes: The columns that it takes with their types, empty where only names are known; None
            if it does not say.
        is_frame: Whether it takes a DataFrame; an array otherwise.
        classes: A classifier's classes.
    """

    artifact: rayml.Artifact
    trusted: bool
    takes: dict[str, str] | None
    is_frame: bool
    classes: list[Any] | None

    @property
    def is_estimator(self) -> bool:
        """Whether it has scikit-learn's methods."""
        kind = self.artifact.meta["class"]
        return self.artifact.format not in _PLAIN_FORMATS and kind not in _BOOSTERS


def open_model(context: rayml.Context, given: rayml.Input, trusted: bool) -> Opened:  # noqa: FBT001
    """Load the model once, to know that it can be.

    Raises:
        SpecError: It is no model, or would run code that nobody said to trust.
    """
    artifact = _artifact(context, given)
    if artifact.kind != "model":
        raise rayml.SpecError(f"model is {artifact.uri}, a {artifact.kind} and no model; give one")
    model = artifact.load(trusted)
    inputs = (artifact.meta.get("signature") or {}).get("inputs", [])
    if inputs and not artifact.meta["signature"]["left_out"] and inputs[0]["name"] is not None:
        takes = {entry["name"]: entry["dtype"] for entry in inputs}
    elif (names := getattr(model, "feature_names_in_", None)) is not None:
        takes = dict.fromkeys(map(str, names), "")
    else:
        takes = None
    is_array = takes is None and (bool(inputs) or hasattr(model, "n_features_in_"))
    classes: Any = getattr(model, "classes_", None)
    is_one = isinstance(classes, np.ndarray) and classes.ndim == 1
    return Opened(artifact, trusted, takes, not is_array, classes.tolist() if is_one else None)


def _artifact(context: rayml.Context, given: rayml.Input) -> rayml.Artifact:
    if (found := given.artifact) is not None:
        return found
    if given.uri.startswith("memory://"):
        return context.log_model("model", given.value)
    raise rayml.SpecError(
        f"model is {given.uri!r}, no artifact; give rayml://models/<name>@<alias>, or the URI of "
        "a model that a run has logged"
    )


@dataclass(frozen=True)
class Job:
    """What each worker does with a batch.

    Attributes:
        opened: The model.
        columns: What it takes, in its order.
        keep: The table's columns that the predictions come with.
        batch_size: Rows at once.
        schema: The columns of what comes out.
    """

    opened: Opened
    columns: list[str]
    keep: list[str]
    batch_size: int
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))

    @classmethod
    def plan(
        cls,
        opened: Opened,
        source: Source,
        keep: list[str] | None,
        target: str | None,
        batch_size: int,
    ) -> Job:
        """Check the table's columns, and try its first rows.

        Raises:
            SpecError: The model does not take such rows, or `keep` or `target` are no columns.
        """
        takes, first = opened.takes, source.first(_TRIED)
        _check_columns("the table lacks", takes or {}, first, "that the model takes")
        if takes:
            _check_types(takes, first)
        kept = first.column_names if keep is None else list(keep)
        _check_columns("the table lacks", kept, first, "of keep")
        if target is not None:
            _check_columns("the table lacks", [target], first, "which is the target")
            kept += [target] if target not in kept else []
            if opened.classes is None and _is_text(first.schema.field(target).type):
                raise rayml.SpecError(
                    f"target {target!r} is text, and the model has no classes to compare it with; "
                    "leave the target out"
                )
        names = list(takes) if takes else [c for c in first.column_names if c != target]
        job = cls(opened, names, kept, batch_size)
        said = _try(Predictor(job), first)
        if twice := [name for name in said.column_names if name in kept]:
            raise rayml.SpecError(
                f"the table has a column {twice[0]!r} already; leave it out of keep"
            )
        schema = pa.schema([*first.select(kept).schema, *said.schema])
        return cls(opened, names, kept, batch_size, schema)


class Predictor:
    """A loaded model, and what it says of tables."""

    def __init__(self, job: Job) -> None:
        opened = job.opened
        self._job, self._opened, self._artifact = job, opened, opened.artifact
        self._model: Any = self._artifact.load(opened.trusted) if opened.is_estimator else None

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the rows that are kept, with what the model says of them."""
        said = self.told(rows)
        columns = [*rows.select(self._job.keep).columns, *said.columns]
        return pa.table(columns, schema=self._job.schema)

    def told(self, rows: pa.Table) -> pa.Table:
        """Return the columns that the model adds."""
        data = self._data(rows)
        if self._model is None:
            said = self._artifact.predict(data, trusted=self._opened.trusted)
            return pa.table(dict(_columns("prediction", said)))
        if not hasattr(self._model, "predict_proba") or self._opened.classes is None:
            return pa.table(dict(_columns("prediction", self._model.predict(data))))
        return self._classified(data)

    def _classified(self, data: Any) -> pa.Table:  # noqa: ANN401
        model, classes = self._model, self._opened.classes or []
        chances = np.asarray(model.predict_proba(data))
        if _last(model) in _LIKELIEST:
            said = np.asarray(classes)[chances.argmax(axis=1)]
        else:
            said = np.asarray(model.predict(data))
        columns = {"prediction": said}
        columns |= {f"probability_{name}": chances[:, i] for i, name in enumerate(classes)}
        return pa.table(columns)

    def _data(self, rows: pa.Table) -> Any:  # noqa: ANN401
        """Return what the model takes: the columns in its order, and of its types."""
        frame = rows.select(self._job.columns).to_pandas(ignore_metadata=True)
        for name, dtype in (self._opened.takes or {}).items():
            frame[name] = _as_trained(frame[name], dtype)
        return frame if self._opened.is_frame else frame.to_numpy()


def _try(predictor: Predictor, first: pa.Table) -> pa.Table:
    """Return what the model says of those rows that it can say anything of."""
    try:
        return predictor.told(first)
    except Exception as exc:
        for place in range(first.num_rows):
            try:
                return predictor.told(first.slice(place, 1))
            except Exception:  # noqa: BLE001, S112 - the first error is the one to tell
                continue
        raise rayml.SpecError(
            f"the model fails on all of the first {first.num_rows} rows: {words(exc)}; give it "
            "rows such as it was trained on"
        ) from exc


def words(exc: Exception) -> str:
    """Return what an error says, in one line."""
    lines = str(exc).strip().splitlines()
    return lines[0][:300] if lines else type(exc).__name__


def _as_trained(column: Any, dtype: str) -> Any:  # noqa: ANN401
    """Return a column in the type that it had in training, where its values allow that."""
    if not dtype or str(column.dtype) == dtype:
        return column
    if dtype.startswith(("int", "uint", "bool")) and column.isna().any():
        return column.astype("float64")
    if dtype in _TEXT:
        return column
    return column.astype(dtype)


def _columns(name: str, said: Any) -> Iterable[tuple[str, np.ndarray[Any, Any]]]:  # noqa: ANN401
    """Yield a column for each number that the model says of a row."""
    if isinstance(said, dict):
        for key, part in said.items():
            yield from _columns(f"{name}_{key}", part)
    elif isinstance(said, tuple | list) and said and isinstance(said[0], np.ndarray):
        for place, part in enumerate(said):
            yield from _columns(f"{name}_{place}", part)
    else:
        values = np.asarray(said)
        values = values.reshape(len(values), -1) if values.ndim > 1 else values[:, None]
        for place, part in enumerate(values.T):
            yield (name if values.shape[1] == 1 else f"{name}_{place}"), part


def _last(model: Any) -> str:  # noqa: ANN401
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return type(model).__name__


def _check_columns(what: str, wanted: Iterable[str], table: pa.Table, why: str) -> None:
    missing = [name for name in wanted if name not in table.column_names]
    if not missing:
        return
    near = get_close_matches(missing[0], table.column_names, n=1)
    way_out = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(table.column_names)}"
    raise rayml.SpecError(f"{what} {', '.join(map(repr, missing))} {why}; {way_out}")


def _check_types(takes: dict[str, str], table: pa.Table) -> None:
    wrong = [
        f"{name!r} is {table.schema.field(name).type} and was {dtype}"
        for name, dtype in takes.items()
        if not _fits(dtype, table.schema.field(name).type)
    ]
    if wrong:
        raise rayml.SpecError(
            f"the table has other types than the model was trained on: {'; '.join(wrong)}; "
            "convert them first"
        )


def _fits(dtype: str, kind: pa.DataType) -> bool:
    """Tell whether a column of Arrow's type can be one of pandas' type."""
    types = pa.types
    if types.is_null(kind) or dtype in {"", "category"}:
        return True
    if dtype in _TEXT:
        return _is_text(kind) or (dtype == "object" and not _is_number(kind))
    if dtype.startswith("datetime"):
        return bool(types.is_timestamp(kind) or types.is_date(kind))
    is_number = dtype.startswith(("int", "uint", "float", "bool", "Int", "Float"))
    return _is_number(kind) if is_number else True


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
    )
