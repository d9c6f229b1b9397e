"""Curves of a training that has a value each step, none of which a step waits for."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rayml.run_context import Context

# So many points of a curve are of one step each, as many more of two, then of four …
_POINTS = 10_000


class Curve:
    """Values by step, which wait until there is time to log them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: list[tuple[int, float, Sequence[Any]]] = []
        self._merged: list[float] = []
        self._last = (0, 0.0)
        self._next_step: int | None = None
        self._steps_each = 1
        self._points = 0

    def add(self, step: int, at: float, values: Sequence[Any]) -> None:
        """Keep what a step has shown: numbers, or tensors of one element; their mean counts."""
        self._waiting.append((step, at, values))

    def log(self, context: Context) -> None:
        """Log what waits, but for what would be a point of fewer steps than others.

        Nothing is logged once the user's code logs a metric of that name.
        """
        waiting, self._waiting = self._waiting, []
        if context.client.next_step(self._name) != self._next_step:
            return
        numbers = _read([value for _, _, values in waiting for value in values])
        for step, at, values in waiting:
            self._merged.append(sum(next(numbers) for _ in values) / len(values))
            self._last = step, at
            if len(self._merged) == self._steps_each:
                self._log_point(context)

    def end(self, context: Context) -> None:
        """Log all that waits."""
        self.log(context)
        if self._merged and context.client.next_step(self._name) == self._next_step:
            self._log_point(context)

    def _log_point(self, context: Context) -> None:
        # By the client, which takes the time of the measurement as well.
        context.client.point(self._name, sum(self._merged) / len(self._merged), *self._last)
        self._next_step = context.client.next_step(self._name)
        self._merged.clear()
        self._points += 1
        if self._points % _POINTS == 0:
            self._steps_each *= 2


def _read(values: list[Any]) -> Iterator[float]:
    """Return the numbers in the same order; each device is waited for once."""
    places: defaultdict[Any, list[int]] = defaultdict(list)
    for place, value in enumerate(values):
        if not isinstance(value, float):
            places[value.device, value.dtype].append(place)
    for chosen in places.values():
        import torch  # noqa: PLC0415 - is imported already

        stacked = torch.stack([values[place] for place in chosen])
        for place, number in zip(chosen, stacked.tolist(), strict=True):
            values[place] = number
    return iter(values)


class OwnNames:
    """The names of metrics that a hook logs: those that there were before are the user's own."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def take(self, context: Context, name: str) -> bool:
        """Tell whether a name is the hook's own, or nobody's yet."""
        if context.client.next_step(name) is None:
            self._names.add(name)
        return name in self._names
