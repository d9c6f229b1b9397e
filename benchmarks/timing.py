"""What the benchmarks share: taking turns, and figures that say whether their limit is met.

rayml and its baseline take turns within one run, so that whatever else the machine does falls on
both. Seconds of one run say little on another machine; their ratio does.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
FLOORS = ("speed", "gain", "rate")
_SCRATCH = Path(__file__).parent / ".bench"
# Where rayml is installed, its bytecode is kept: new processes do not compile it each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured answer.

    Attributes:
        question: What was asked, in a few words.
        baseline: The median of what rayml is compared with; None if there is nothing.
        rayml: The median of rayml's.
        ratio: The median of rayml / baseline, turn by turn: neighbours share what else goes on.
        unit: Of the first two.
        compare: What the limit is of: the `ratio`, the `speed` ratio (the other way round), the
            `difference` of the medians, or rayml's own `value`. Of what is better the higher it
            is: the ratio is called `gain`, and the value `rate`.
        limit: The most that is accepted; of a speed, gain or rate the least. None where a figure
            only informs.
        n: How often each was measured.
    """

    question: str
    baseline: float | None
    rayml: float
    ratio: float | None = None
    unit: str
    compare: str
    limit: float | None
    n: int

    @property
    def measured(self) -> float:
        """What the limit is of."""
        if self.baseline is None or self.ratio is None or self.compare in ("value", "rate"):
            return self.rayml
        if self.compare == "difference":
            return self.rayml - self.baseline
        return 1 / self.ratio if self.compare == "speed" else self.ratio

    @property
    def ok(self) -> bool:
        """The limit is met, or there is none."""
        if self.limit is None:
            return True
        is_floor = self.compare in FLOORS
        return self.measured >= self.limit if is_floor else self.measured <= self.limit


def compare(
    question: str,
    baseline: Sequence[float],
    rayml: Sequence[float],
    how: str = "ratio",
    *,
    limit: float | None,
    unit: str = "s",
) -> Figure:
    """Return the figure of two equally long series; see `Figure.compare` for `how`."""
    return Figure(
        question=question,
        baseline=median(baseline),
        rayml=median(rayml),
        ratio=median(ours / theirs for theirs, ours in zip(baseline, rayml, strict=True)),
        unit=unit,
        compare=how,
        limit=limit,
        n=len(rayml),
    )


def alone(
    question: str, rayml: Sequence[float], how: str = "value", *, limit: float | None, unit: str
) -> Figure:
    """Return the figure of one series, which is compared with nothing but its limit."""
    return Figure(
        question=question,
        baseline=None,
        rayml=median(rayml),
        unit=unit,
        compare=how,
        limit=limit,
        n=len(rayml),
    )


def take_turns(
    *measures: Callable[[], T], n: int, warm_ups: int = 1, rest_s: float = 0
) -> list[list[T]]:
    """Call one measure after the other, `n` times over, every second time in the other order.

    Each one's results are returned in the order in which it gave them. The order changes because a
    machine that gets slower, or faster, would favour whoever comes first.

    Args:
        measures: Each returns what it measured, usually seconds.
        n: Rounds that count.
        warm_ups: Rounds before them that do not.
        rest_s: Seconds between calls, for what a call leaves behind to go away.
    """
    results: list[list[T]] = [[] for _ in measures]
    turns = list(zip(measures, results, strict=True))
    for _ in range(warm_ups + n):
        for measure, series in turns:
            series.append(measure())
            time.sleep(rest_s)
        turns.reverse()
    return [series[warm_ups:] for series in results]


def seconds(action: Callable[[], object]) -> float:
    """Return how long a call took."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of all do not exceed.

    >>> percentile([4, 1, 3, 2], 50)
    2
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder on the disk that holds this repository; it is removed afterwards.

    `/tmp` may be in memory, where fsync costs nothing.
    """
    _SCRATCH.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=_SCRATCH))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def report(question: str, figures: Sequence[Figure], **details: object) -> None:
    """Print the answer as one line of JSON; `details` are what explains it."""
    rows = [
        {
            "question": figure.question,
            "baseline": figure.baseline,
            "rayml": figure.rayml,
            "unit": figure.unit,
            figure.compare: figure.measured,
            "compare": figure.compare,
            "limit": figure.limit,
            "ok": figure.ok,
            "n": figure.n,
        }
        for figure in figures
    ]
    ok = all(figure.ok for figure in figures)
    print(json.dumps({"question": question, "ok": ok, "figures": rows, "details": details}))
