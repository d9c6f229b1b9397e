"""Tables and the plots that show them; without matplotlib there are the tables alone."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from rayml.autologging.calls import warn
from rayml.autologging.ending import Task, at_end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rayml.run_context import Context

# What computes a table, or None, and what draws one on axes, if it can be drawn.
Draw: TypeAlias = "Callable[[Any, Any], None]"
Chart: TypeAlias = "tuple[Callable[[], Any], Draw | None]"
_TABLES = 100  # of a run, of those that its code computes
_IMPORTANCES = 1000  # of features
_DRAWN_IMPORTANCES = 30

_newest: WeakKeyDictionary[Context, dict[str, Any]] = WeakKeyDictionary()


def log_charts_at_end(context: Context, group: str, charts: Mapping[str, Chart]) -> None:
    """Log tables by their names, and their plots, when the run ends."""
    for name, (compute, draw) in charts.items():
        table = _Table(context, group, name)
        at_end(context, Task(f"the table {group}/{name}", partial(table.log, compute)))
        if draw is not None:
            plot = partial(table.plot, draw)
            at_end(context, Task(f"the plot {group}/{name}", plot, is_plot=True))


def log_newest_at_end(
    context: Context,
    group: str,
    name: str,
    table: Any,  # noqa: ANN401
    draw: Draw | None,
) -> None:
    """Log a table and its plot when the run ends, of those of the same name the last."""
    known = _newest.setdefault(context, {})
    key = f"{group}/{name}"
    if key not in known:
        if len(known) >= _TABLES:
            warn(f"keeps {_TABLES} tables of metrics, and not {key}", context)
            return
        log_charts_at_end(context, group, {name: (lambda: known[key], draw)})
    known[key] = table


def importance_table(
    names: Sequence[str], sizes: Sequence[float], columns: Mapping[str, Sequence[float]]
) -> dict[str, list[Any]]:
    """Return the features of the largest sizes, the largest first, with their other columns."""
    import numpy as np  # noqa: PLC0415 - whatever has importances has it

    order = np.argsort(-np.asarray(sizes), kind="stable")[:_IMPORTANCES]
    kept = {"feature": names, **columns}
    return {name: [values[place] for place in order] for name, values in kept.items()}


def draw_importances(axes: Any, table: dict[str, Any]) -> None:  # noqa: ANN401
    """Draw the first features of a table as bars."""
    names, values = table["feature"][:_DRAWN_IMPORTANCES], table["importance"]
    axes.barh(range(len(names)), values[: len(names)][::-1])
    axes.set_yticks(range(len(names)), names[::-1])
    axes.set(xlabel="importance")


class _Table:
    """A table, and its plot if there is one."""

    def __init__(self, context: Context, group: str, name: str) -> None:
        self._context = context
        self._group = group
        self._name = name
        self._table: dict[str, Any] | None = None

    def log(self, compute: Callable[[], Any]) -> None:
        """Log the table."""
        if (table := compute()) is not None:
            self._context.log_table(f"{self._group}/{self._name}", table)
            self._table = table

    def plot(self, draw: Draw) -> None:
        """Draw what was logged."""
        if self._table is None or find_spec("matplotlib") is None:
            return
        # Not pyplot, which has state that belongs to the user.
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra

        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.set_title(f"{self._group}: {self._name.replace('_', ' ')}")
        draw(axes, self._table)
        self._context.log_plot(f"{self._group}/plots/{self._name}", figure)
