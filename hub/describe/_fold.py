"""One computation over all parts of a table: here, or where Dask or Ray has the parts."""

from __future__ import annotations

import sys
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar

from ._read import Source, frame_table, tables_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

_T = TypeVar("_T")
_MERGED = 8  # results at a time, so that only so many are in one worker's memory


def fold(source: Source, work: Callable[[Iterable[pa.Table]], _T]) -> _T:
    """Return the sum of what a function makes of all tables; results have to add up.

    Dask does it if the rows are Dask's, or it has a scheduler here, as in a job with that engine.
    """
    if source.kind == "ray":
        return _by_ray(source, work)
    if source.kind == "dask" or (source.kind == "files" and _has_dask()):
        return _by_dask(source, work)
    return work(tables_of(source)())


def _has_dask() -> bool:
    """Tell whether somebody has chosen where Dask computes; importing it chooses nothing."""
    if "dask" not in sys.modules:
        return False
    from dask.base import get_scheduler  # noqa: PLC0415 - an extra

    return get_scheduler() is not None


def _by_dask(source: Source, work: Callable[[Iterable[pa.Table]], _T]) -> _T:
    import dask  # noqa: PLC0415 - an extra

    once: Any = dask.delayed(_of_part, pure=False)
    merge: Any = dask.delayed(_sum, pure=False)
    results = [once(work, part) for part in source.parts]
    while len(results) > 1:
        starts = range(0, len(results), _MERGED)
        results = [merge(results[start : start + _MERGED]) for start in starts]
    found: _T = results[0].compute()
    return found


def _of_part(work: Callable[[Iterable[pa.Table]], _T], part: Any) -> _T:  # noqa: ANN401
    return work(part() if callable(part) else [frame_table(part)])


def _sum(results: list[_T]) -> _T:
    total: _T = reduce(add, results)
    return total


def _by_ray(source: Source, work: Callable[[Iterable[pa.Table]], _T]) -> _T:
    """Let tasks without a CPU of their own do it: the job that waits may hold all of them."""
    import ray  # noqa: PLC0415 - a table of this process does without it

    task: Any = ray.remote(num_cpus=0)(_of_table)
    width = max(2, int(ray.cluster_resources().get("CPU", 0)))
    calls = (task.remote(work, part) for part in source.parts)
    found: _T = _sum(list(_finished(calls, width)))
    return found


def _of_table(work: Callable[[Iterable[pa.Table]], _T], table: pa.Table) -> _T:
    return work([table])


def _finished(calls: Iterable[Any], width: int) -> Iterator[Any]:
    """Yield what tasks return, with so many under way."""
    import ray  # noqa: PLC0415 - loaded already

    under_way: list[Any] = []
    for call in calls:
        under_way.append(call)
        if len(under_way) >= width:
            done, under_way = ray.wait(under_way)
            yield from ray.get(done)
    yield from ray.get(under_way)
