"""`runs()`, `get_run()` and `experiments()`: finding runs, with only the store at hand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rayml.errors import SpecError
from rayml.run import Run
from rayml.run_list import RunList
from rayml.store import open_store
from rayml.tracker.comparison import sort_rows
from rayml.tracker.edits import find_edited, read_edited
from rayml.tracker.query import parse_order, parse_where

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rayml.store import Store
    from rayml.tracker.runs import RunRecord


@dataclass(frozen=True)
class Experiment:
    """What an experiment amounts to; archived and deleted runs are left out.

    Attributes:
        runs: How many it has.
        last: When the newest of them was submitted, in UTC.
    """

    name: str
    runs: int
    last: datetime


def get_run(run_id: str, *, store: str | Path | Store | None = None) -> Run:
    """Return a run by its id, by an unambiguous beginning of it, or the newest by `"latest"`.

    Raises:
        NotFound: The store has no such run, or it was deleted: the message tells how to undo that.
        StoreError: The store cannot be read.
    """
    opened = open_store(store)
    return Run(find_edited(opened, run_id).spec, opened)


def runs(
    experiment: str | None = None,
    where: str | None = None,
    order_by: str | None = None,
    limit: int | None = None,
    *,
    offset: int = 0,
    store: str | Path | Store | None = None,
) -> RunList:
    """Return the runs of a store, the newest first: all of them, unless you ask for less.

    Archived runs are left out unless `where` names `archived` (or `deleted`), and deleted ones
    unless it names `deleted`: `where="archived"` finds the first, `where="deleted"` the others.

    Args:
        experiment: Only those that belong to it.
        where: What they must meet, such as `"metrics.auc.max > 0.9 and params.depth in (4, 8)"`.
            The fields are `params.…`, `labels.…`, `metrics.…` (`.last`, which is meant without
            saying so, `.min` or `.max`), id, name, experiment, state, attempt, submitted_at,
            started_at, ended_at (`> -7d`, `>= 2026-11-30`), duration_s, worker_s (that it held
            workers of a cluster, summed over them), cpu_s and max_memory (seconds of CPU in all,
            and the most bytes that a process had, of attempts that have ended), parent,
            rerun_of, user, notes, archived and deleted. They are compared by `= != < <= > >= in
            like`, `is null`, and combined by `and or not ( )`.
        order_by: Fields by which they are sorted, such as `"metrics.auc desc, submitted_at"`. Runs
            without a value come last, and of equal ones the newest first.
        limit: At most so many.
        offset: After leaving out so many.
        store: Where; the project's own by default.

    Raises:
        SpecError: `where` or `order_by` is not in this language; the message says at which
            character.
        StoreError: The store cannot be read.
    """
    _check_page(limit, offset)
    opened = open_store(store)
    found = select(read_edited(opened).values(), experiment, where, order_by)
    end = None if limit is None else offset + limit
    return RunList(Run(record.spec, opened) for record in found[offset:end])


def select(
    records: Iterable[RunRecord],
    experiment: str | None = None,
    where: str | None = None,
    order_by: str | None = None,
) -> list[RunRecord]:
    """Return the records that `runs` is asked for, in its order.

    Raises:
        SpecError: `where` or `order_by` is not in the language.
    """
    condition = parse_where(where) if where is not None else None
    order = parse_order(order_by) if order_by is not None else []
    named = condition.fields if condition else frozenset()
    found = [
        record
        for record in records
        if (experiment is None or record.spec.experiment == experiment)
        and (record.edits is None or _is_listed(record, named))
    ]
    if condition is not None:
        found = list(filter(condition.test, found))
    found.sort(key=lambda record: record.spec.submitted_at, reverse=True)
    return sort_rows(found, order)


def experiments(*, store: str | Path | Store | None = None) -> list[Experiment]:
    """Return the experiments of a store, the one with the newest run first.

    Raises:
        StoreError: The store cannot be read.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for record in select(read_edited(open_store(store)).values()):
        times[record.spec.experiment].append(record.spec.submitted_at)
    return [
        Experiment(name, len(found), datetime.fromtimestamp(max(found), UTC))
        for name, found in times.items()
    ]


def _is_listed(record: RunRecord, named: frozenset[str]) -> bool:
    if record.attribute("deleted"):
        return "deleted" in named
    return not record.attribute("archived") or not named.isdisjoint(("archived", "deleted"))


def _check_page(limit: int | None, offset: int) -> None:
    for name, value in (("limit", limit), ("offset", offset)):
        if value is not None and (not isinstance(value, int) or value < 0):
            raise SpecError(f"{name}={value!r} is not a number of runs; give 0 or more")
