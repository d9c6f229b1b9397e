"""Runs that are over when they are recorded: parts of a run that its code has not made runs of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from rayml.origin import new_run_id
from rayml.spec import Spec, Target, describe_params
from rayml.tracker.client import Producer
from rayml.tracker.reader import read_runs
from rayml.tracker.records import Ended, Points, Problem, Submitted, plain_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rayml.run_context import Context
    from rayml.tracker.records import Record
    from rayml.tracker.runs import RunRecord

_AT_ONCE = 32  # the tracker makes those durable together that come together
# They count as submitted one so long after the other, the last one before their run: in lists,
# which begin with the newest, they come below it, and the latest run is no part of another.
_APART_S = 1e-5


@dataclass(frozen=True)
class Child:
    """What is known of a part of a run.

    Attributes:
        name: Of the run that it becomes.
        params: By name.
        curves: The values of each metric, by step from 0.
        started_at: Unix seconds.
        seconds: How long it took.
        failure: Why it came to nothing; empty if it did not.
    """

    name: str
    params: Mapping[str, object]
    curves: Mapping[str, Sequence[float]]
    started_at: float
    seconds: float
    failure: str = ""


def record_children(context: Context, children: Sequence[Child]) -> None:
    """Make durable runs of them, each whole or not at all, whose parent is the context's run.

    Raises:
        RaymlError: One of them could not be recorded; others are.
    """
    parent = read_runs(context.store).find(context.run_id)
    first = parent.spec.submitted_at - len(children) * _APART_S
    specs = [
        _spec(parent.spec, first + place * _APART_S, run, child)
        for place, (run, child) in enumerate(zip(_new_ids(len(children)), children, strict=True))
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(partial(_record, context, parent), specs, children))


def _new_ids(count: int) -> list[str]:
    """Return so many ids, no two of them alike, in the order in which they sort."""
    ids: set[str] = set()
    while len(ids) < count:
        ids.add(new_run_id())
    return sorted(ids)


def _record(context: Context, parent: RunRecord, spec: Spec, child: Child) -> None:
    producer = Producer(context.transport, spec.run, 1, context.redactor)
    producer.record(*_records(parent, spec, child))


def _records(parent: RunRecord, spec: Spec, child: Child) -> list[Record]:
    run, begun, ended = spec.run, child.started_at, child.started_at + child.seconds
    records: list[Record] = [Submitted(run=run, time=begun, spec=spec)]
    if parent.started is not None:  # the same process, with the same packages
        start = msgspec.structs.replace(parent.started, run=run, time=begun, attempt=1, rank=0)
        records.append(start)
    problem = Problem(kind="error", message=child.failure) if child.failure else None
    state = "succeeded" if problem is None else "failed"
    end = Ended(run=run, time=ended, attempt=1, state=state, problem=problem)
    return [*records, _points(run, child.curves, ended), end]


def _spec(parent: Spec, submitted_at: float, run: str, child: Child) -> Spec:
    return Spec(
        run=run,
        name=child.name,
        experiment=parent.experiment,
        target=Target(kind="block", text=child.name),
        origin=parent.origin,
        submitted_at=submitted_at,
        store=parent.store,
        cluster=parent.cluster,
        working_dir=parent.working_dir,
        params=describe_params(child.params),
        parent=parent.run,
    )


def _points(run: str, curves: Mapping[str, Sequence[float]], at: float) -> Points:
    series = {
        name: (list(range(len(values))), [at] * len(values), plain_values(list(values)))
        for name, values in curves.items()
    }
    return Points(run=run, time=at, attempt=1, rank=0, series=series)
