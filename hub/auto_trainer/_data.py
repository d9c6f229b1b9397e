"""The rows of one call: what to learn from, what to test on, and what was found in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import rayml

from ._leaks import find_leaks
from ._table import Columns, check_columns, find_columns, plain
from ._target import Target, keep_back, read_target
from ._trials import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ._metrics import Metric


@dataclass
class Data:
    """Rows to learn from and rows to test on, without the target.

    Attributes:
        target: What is predicted.
        columns: What the others are.
        train: The rows to learn from.
        truth: Of these, numbers or the places of classes.
        test: The rows to test on.
        test_truth: Of these.
        warnings: A sentence for each thing found.
    """

    target: Target
    columns: Columns
    train: pd.DataFrame
    truth: np.ndarray
    test: pd.DataFrame
    test_truth: np.ndarray
    warnings: list[str]

    def problem(self, metric: Metric, seed: int) -> Problem:
        """Return what the search is to learn."""
        return Problem(self.columns, metric, len(self.target.classes), seed)

    def note_leaks(self, problem: Problem) -> None:
        """Warn of columns that are the target in disguise."""
        for name, share in find_leaks(problem, self.train, self.truth).items():
            self.warnings.append(
                f"column {name!r} alone tells {share:.1%} of target {self.target.name!r}: if it "
                f"is only known once the target is, leave it out by drop=[{name!r}]"
            )

    def keep_rows(self, most: int, seed: int) -> None:
        """Leave out rows at random where there are more than the memory takes."""
        if len(self.train) <= most:
            return
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.train), most, replace=False))
        if self.target.task != "regression":  # of each class at least its first row
            chosen = np.union1d(chosen, np.unique(self.truth, return_index=True)[1])
        self.warnings.append(
            f"{len(chosen):,} of {len(self.train):,} rows were learned from: more do not fit into "
            "the memory budget"
        )
        self.train = self.train.iloc[chosen].reset_index(drop=True)
        self.truth = self.truth[chosen]


def read_data(
    table: pd.DataFrame,
    test: pd.DataFrame | None,
    target: str,
    *,
    task: str,
    drop: Sequence[str],
    test_size: float,
    seed: int,
) -> Data:
    """Return the rows of a call, checked and split.

    Raises:
        SpecError: A column is not there, or there is nothing to learn.
    """
    check_columns(table, [target, *drop], "table")
    if target in drop:
        raise rayml.SpecError(f"drop names the target {target!r}; take it out of the list")
    notes: list[str] = []
    raw = _with_target(table, target, drop, "table", notes)
    found = read_target(raw[target], task)
    notes += found.warnings
    rows, truth = raw.drop(columns=target), found.encode(raw[target])
    if test is None:
        train, kept = keep_back(
            truth, is_number=found.task == "regression", test_size=test_size, seed=seed
        )
        raw_train, raw_test = rows.iloc[train], rows.iloc[kept]
        truth, test_truth = truth[train], truth[kept]
    else:
        check_columns(test, [*map(str, rows.columns), target], "test")
        given = _with_target(test, target, drop, "test", notes)
        raw_train, raw_test = rows, given[list(rows.columns)]
        test_truth = found.encode(given[target])
    clean = plain(raw_train)
    columns = find_columns(clean, raw_train)
    notes += columns.warnings
    return Data(
        found,
        columns,
        clean[columns.used],
        truth,
        plain(raw_test)[columns.used],
        test_truth,
        notes,
    )


def _with_target(
    table: pd.DataFrame, target: str, drop: Sequence[str], what: str, notes: list[str]
) -> pd.DataFrame:
    """Return the rows whose target is known, without what is dropped."""
    named = table.set_axis([str(name) for name in table.columns], axis=1)
    named = named.drop(columns=[name for name in drop if name in named])
    known = named[named[target].notna()]
    if len(known) == 0:
        missing = "has no rows" if len(named) == 0 else f"has no value of target {target!r}"
        raise rayml.SpecError(f"the {what} {missing}; give rows to learn from")
    if len(known) < len(named):
        notes.append(
            f"{len(named) - len(known)} rows of the {what} have no target {target!r}: left out"
        )
    return known
