"""The table: what is wrong with it, which rows are kept for what, and its columns as numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

import rayml

from ._leaks import warn_of_leaks
from ._train import Rows

_FEW = 20  # different whole numbers that are taken for classes
_LEAST = 20  # rows
_MOST_CATEGORIES = 255
_NO_TIME = float(np.iinfo(np.int64).min)  # what a missing time is as a number
_PERIODS = {
    "day": (pd.Timedelta("1D"), 8),
    "week": (pd.Timedelta("7D"), 7),
    "year": (pd.Timedelta("365.2425D"), 12),
}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]|$)")


@dataclass
class Table:
    """A table that can be trained on.

    Attributes:
        target: The column that is to be told.
        classes: The classes in their order; None of a number.
        numbers: Columns of numbers.
        dates: Columns of times.
        texts: Columns of categories.
        warnings: What to know of it.
        encoder: What makes numbers of a row's columns, once it is fitted.
        offset: What is taken off a number that is to be told.
        scale: What it is then divided by.
    """

    target: str
    classes: list[Any] | None
    numbers: list[str]
    dates: list[str]
    texts: list[str]
    warnings: list[str] = field(default_factory=list)
    encoder: ColumnTransformer | None = None
    offset: float = 0.0
    scale: float = 1.0

    @property
    def columns(self) -> list[str]:
        """The columns that are learned from."""
        return [*self.numbers, *self.dates, *self.texts]

    @property
    def outputs(self) -> int:
        """How many numbers the network tells of a row."""
        return 1 if self.classes is None or len(self.classes) == 2 else len(self.classes)

    def fit(self, train: pd.DataFrame, *, is_dense: bool) -> None:
        """Learn from training rows how columns become numbers, in an array or a sparse matrix."""
        self.encoder = ColumnTransformer(
            [
                ("numbers", _scaled(), self.numbers),
                *((f"date {name}", _dated(train[name]), [name]) for name in self.dates),
                ("categories", _categories(), self.texts),
            ],
            sparse_threshold=0 if is_dense else 1,
            verbose_feature_names_out=False,
        ).fit(train[self.columns])
        if self.classes is None:
            told = train[self.target].astype(float)
            self.offset, self.scale = float(told.mean()), float(told.std()) or 1.0

    @property
    def width(self) -> int:
        """How many numbers come before the categories."""
        encoder: Any = self.encoder
        every: int = max(place.stop for place in encoder.output_indices_.values())
        return every - sum(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """How many columns each category becomes."""
        if not self.texts:
            return []
        encoder: Any = self.encoder
        names = encoder.named_transformers_["categories"]
        infrequent = getattr(names, "infrequent_categories_", [None] * len(self.texts))
        return [
            len(kept) - (len(rare) - 1 if rare is not None else 0)
            for kept, rare in zip(names.categories_, infrequent, strict=True)
        ]

    def encoded(self, frame: pd.DataFrame) -> Any:  # noqa: ANN401
        """Return the columns as numbers, a category as a column of its own for each value."""
        encoder: Any = self.encoder
        return encoder.transform(frame[self.columns])

    def places(self, frame: pd.DataFrame) -> torch.Tensor:
        """Return the columns as numbers, a category as the place of its value."""
        found, start = self.encoded(frame), self.width
        if not self.texts:
            return torch.tensor(np.asarray(found), dtype=torch.float32)
        found = found.tocsc()
        parts = [found[:, :start].toarray()]
        for size in self.sizes:
            block = found[:, start : start + size].tocsr()
            places = np.full(len(frame), size)
            places[np.diff(block.indptr) > 0] = block.indices
            parts.append(places[:, None])
            start += size
        return torch.tensor(np.concatenate(parts, axis=1), dtype=torch.float32)

    def dense(self, frame: pd.DataFrame) -> torch.Tensor:
        """Return what `encoded` does, as a tensor."""
        found = self.encoded(frame)
        values = found.toarray() if hasattr(found, "toarray") else found
        return torch.tensor(np.asarray(values), dtype=torch.float32)

    def named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return what `encoded` does, as a table."""
        encoder: Any = self.encoder
        return pd.DataFrame(self.dense(frame).numpy(), columns=encoder.get_feature_names_out())

    def targets(self, frame: pd.DataFrame) -> torch.Tensor:
        """Return what is to be told: places of classes, or scaled numbers, as losses take them."""
        if self.classes is None:
            told = (frame[self.target].to_numpy(dtype=float) - self.offset) / self.scale
            return torch.tensor(told, dtype=torch.float32)[:, None]
        places = pd.Index(self.classes).get_indexer(frame[self.target])
        if len(self.classes) == 2:
            return torch.tensor(places, dtype=torch.float32)[:, None]
        return torch.tensor(places)


@dataclass(frozen=True)
class Data:
    """A table, and its rows by what they are for.

    Attributes:
        table: What its columns are, learned from the rows to train on.
        train: Rows to train on.
        valid: Rows that tell when to stop.
        test: Rows that the model is judged on.
        is_own: Whether a network of the user's own is trained, which has no embeddings.
    """

    table: Table
    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    is_own: bool

    def warnings(self, seed: int) -> list[str]:
        """Return what is to be known of the table, leaks of its target included."""
        table = self.table
        leaks = warn_of_leaks(
            self.train[table.columns],
            self.train[table.target],
            seed,
            is_number=table.classes is None,
        )
        return [*table.warnings, *leaks]

    def rows(self) -> tuple[Rows, Rows]:
        """Return what is trained on, and what tells when to stop."""
        encode = self.table.dense if self.is_own else self.table.places
        train, valid = (
            Rows(encode(part), self.table.targets(part)) for part in (self.train, self.valid)
        )
        return train, valid


def prepare(
    frame: pd.DataFrame,
    target: str,
    task: str,
    test: pd.DataFrame | None,
    test_size: float,
    valid_size: float,
    seed: int,
    *,
    is_own: bool,
) -> Data:
    """Return the table's rows and columns in the form in which they are trained on.

    Raises:
        SpecError: There is nothing to learn from them.
    """
    for name, size in (("test_size", test_size), ("valid_size", valid_size)):
        if not 0 < size < 1:
            raise rayml.SpecError(f"{name} is {size}; give a share of the rows between 0 and 1")
    table = look_at(frame, target, task)
    rows = frame[frame[target].notna()]
    if test is None:
        rows, test = split(rows, table, test_size, seed)
    else:
        test = _told(table, test)
    train, valid = split(rows, table, valid_size, seed)
    table.fit(train, is_dense=is_own)
    return Data(table, train, valid, test, is_own)


def _told(table: Table, test: pd.DataFrame) -> pd.DataFrame:
    """Return the test rows that can be judged."""
    if missing := [name for name in (*table.columns, table.target) if name not in test.columns]:
        lacks = ", ".join(map(repr, missing))
        raise rayml.SpecError(f"the test table lacks {lacks}, which the table has; add them")
    known = test[table.target].notna()
    if table.classes is not None:
        known &= test[table.target].isin(table.classes)
    if not known.any():
        raise rayml.SpecError(
            f"the test table has no row with a {table.target!r} that the table has too; give some"
        )
    return test[known]


def look_at(frame: pd.DataFrame, target: str, task: str) -> Table:
    """Return what the table's columns are.

    Raises:
        SpecError: There is nothing to learn from it; the message says why.
    """
    _check_names(frame, target)
    known = frame[frame[target].notna()]
    if len(known) < _LEAST:
        raise rayml.SpecError(
            f"the table has {len(known)} rows with a {target!r}, too few to train a network; give "
            f"at least {_LEAST}"
        )
    if len(known[target].unique()) == 1:
        raise rayml.SpecError(f"target {target!r} is the same in all rows; choose another column")
    table = Table(target, _classes(known[target], task), [], [], [])
    if table.classes is not None and known[target].is_unique:
        raise rayml.SpecError(
            f"target {target!r} has another class in each row, of which nothing is learnt; choose "
            "another column"
        )
    if len(known) < len(frame):
        table.warnings.append(f"{len(frame) - len(known):,} rows have no {target!r}: left out")
    for name in frame.columns:
        if name != target:
            _sort_in(table, str(name), known[name])
    if not table.columns:
        raise rayml.SpecError("no column is left to learn from: all are empty or constant")
    return table


def _check_names(frame: pd.DataFrame, target: str) -> None:
    if target not in frame.columns:
        near = get_close_matches(target, map(str, frame.columns), n=1)
        way_out = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(str, frame))}"
        raise rayml.SpecError(f"the table has no column {target!r}; {way_out}")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise rayml.SpecError(f"the table has two columns {twice!r}; rename one")


def _classes(told: pd.Series[Any], task: str) -> list[Any] | None:
    is_number = types.is_numeric_dtype(told) and not types.is_bool_dtype(told)
    if task == "auto":
        is_few = types.is_integer_dtype(told) and told.nunique() <= _FEW
        task = "regression" if is_number and not is_few else "classification"
    if task == "regression":
        if not is_number:
            raise rayml.SpecError(
                f"target {told.name!r} is {told.dtype}, no number; say task='classification'"
            )
        if not np.isfinite(told.astype(float)).all():
            raise rayml.SpecError(f"target {told.name!r} has infinite values; leave them out")
        return None
    if task != "classification":
        raise rayml.SpecError(f"task is {task!r}; say 'auto', 'classification' or 'regression'")
    try:
        return sorted(told.unique().tolist())
    except TypeError as exc:
        raise rayml.SpecError(
            f"target {told.name!r} mixes types; convert it, for example with .astype(str)"
        ) from exc


def _sort_in(table: Table, name: str, column: pd.Series[Any]) -> None:
    """Note what a column is, or why it is left out."""
    try:
        different = column.nunique(dropna=False)
    except TypeError as exc:
        raise rayml.SpecError(
            f"column {name!r} holds {type(column.dropna().iloc[0]).__name__}s; make numbers or "
            "text of them, or drop it"
        ) from exc
    if column.isna().all() or different == 1:
        why = "empty" if column.isna().all() else "constant"
        table.warnings.append(f"column {name!r} is {why}: left out")
    elif types.is_datetime64_any_dtype(column):
        table.dates.append(name)
    elif types.is_numeric_dtype(column) or types.is_bool_dtype(column):
        if np.isinf(column.astype(float)).any():
            raise rayml.SpecError(f"column {name!r} has infinite values; make them missing")
        table.numbers.append(name)
    elif column.dtype == object and len(kinds := set(map(type, column.dropna()))) > 1:
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise rayml.SpecError(f"column {name!r} mixes {names}; convert it to one of them")
    else:
        table.texts.append(name)
        _warn_of_text(table, name, column.dropna())


def _warn_of_text(table: Table, name: str, column: pd.Series[Any]) -> None:
    if all(_DATE.match(str(value)) for value in column.head(100)):
        table.warnings.append(f"column {name!r} looks like dates, and is text: convert it first")
    elif (count := column.nunique()) > _MOST_CATEGORIES:
        table.warnings.append(
            f"column {name!r} has {count:,} categories: the {_MOST_CATEGORIES - 1} most frequent "
            "are told apart, others count as one"
        )


def split(
    frame: pd.DataFrame, table: Table, size: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows to learn from, and others; a class of one row is learned from alone."""
    if table.classes is None:
        return _parts(train_test_split(frame, test_size=size, random_state=seed))
    counts = frame[table.target].map(frame[table.target].value_counts())
    rare, rest = frame[counts < 2], frame[counts >= 2]
    try:
        found = train_test_split(
            rest, test_size=size, random_state=seed, stratify=rest[table.target]
        )
    except ValueError:  # fewer rows than classes on one side
        found = train_test_split(rest, test_size=size, random_state=seed)
    train, other = _parts(found)
    return pd.concat([train, rare]), other


def _parts(found: list[Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    return found[0], found[1]


def _scaled() -> Pipeline:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler())


def _dated(column: pd.Series[Any]) -> Pipeline:
    """Return a time's trend, and curves over day, week and year where it goes round them.

    A scaler that scales nothing is what turns times into numbers, by steps of scikit-learn alone.
    """
    name_of_unit: Any = column.dt.unit
    unit = pd.Timedelta(1, name_of_unit)
    span = column.max() - column.min()
    parts: list[tuple[str, Any]] = [("trend", StandardScaler())]
    for name, (period, bends) in _PERIODS.items():
        if span >= period and (column.dropna() - column.min()).mod(period).any():
            knots = np.linspace(0, period / unit, bends + 1)[:, None]
            parts.append((name, SplineTransformer(knots=knots, extrapolation="periodic")))
    numbers = StandardScaler(with_mean=False, with_std=False)
    fill = SimpleImputer(missing_values=_NO_TIME, strategy="median")
    return make_pipeline(numbers, fill, FeatureUnion(parts))


def _categories() -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MOST_CATEGORIES)
