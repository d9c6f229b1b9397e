"""The live view of a run on a terminal: its log scrolls by above a few lines that stay."""

from __future__ import annotations

import math
import signal
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from rayml.cli.output import duration_text, number_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from rayml.cli.watch import Answer
    from rayml.tracker.runs import RunRecord
    from rayml.tracker.series import Series

_SHOWN_METRICS = 5
_BARS = "▁▂▃▄▅▆▇█"
_SPARK_POINTS = 20
_REFRESHES_PER_S = 8
_STYLES = {"running": "bold green", "retrying": "bold yellow"}
_ANSWERS: dict[str, Answer] = {"d": "detach", "c": "cancel", "": "wait"}


class LiveView:
    """Shows a run on a terminal that a person looks at.

    What stays at the bottom: the state and what is waited for, the time, the attempt, the step,
    the last metrics with their course. When it is closed, only the log is left.
    """

    def __init__(self, *, can_ask: bool) -> None:
        self._can_ask = can_ask
        self._console = Console(markup=False, highlight=False, emoji=False)
        self._spinner = Spinner("dots", style="cyan")
        self._began = time.time()
        self._head = Text("starting", style="bold")
        self._metrics: list[Text] = []
        self._rest = ""
        self._live = self._start()

    def _start(self) -> Live:
        live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
        )
        live.start()
        return live

    def _render(self) -> RenderableType:
        """Return the lines that stay. Called by another thread than the one that looks."""
        self._spinner.text = Text.assemble(
            self._head, f"  {duration_text(max(0.0, time.time() - self._began))}"
        )
        lines: list[RenderableType] = [self._spinner, *self._metrics]
        if partial := self._rest.rpartition("\r")[2].rstrip():
            lines.insert(0, _line(partial))
        return Group(*lines)

    def note(self, text: str) -> None:
        """Print one of rayml's own lines above."""
        self._console.print(f"rayml: {text}", style="cyan", soft_wrap=True)

    def printed(self, text: str) -> None:
        """Print a line that Ray or rayml's own child has printed above."""
        self._console.print(_line(text.rstrip("\n")), style="dim", soft_wrap=True)

    def look(self, record: RunRecord, log: str) -> None:
        """Show the run as it is now, and what it has printed since the last look."""
        *lines, self._rest = (self._rest + log).split("\n")
        for line in lines:
            # Of a progress bar that has written over itself, what it has come to.
            self._console.print(_line(line.rstrip("\r").rpartition("\r")[2]), soft_wrap=True)
        self._began = record.started_at or record.spec.submitted_at
        self._head = _head(record)
        self._metrics = list(_metric_lines(record))

    def ask(self) -> Answer:
        """Ask what Ctrl-C means; a second one means to cancel, and Enter that it was a slip."""
        if not self._can_ask:
            return "cancel"
        self._live.stop()
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return self._answer()
        except KeyboardInterrupt:
            self._console.print()
            return "cancel"
        finally:
            signal.signal(signal.SIGINT, handler)
            self._live = self._start()

    def _answer(self) -> Answer:
        while True:
            try:
                word = self._console.input("detach or cancel? [d/c] ", markup=False)
            except EOFError:
                return "wait"
            if (answer := _ANSWERS.get(word.strip().lower()[:1])) is not None:
                return answer
            self._console.print("d: it goes on without this terminal; c: it ends; Enter: wait")

    def close(self) -> None:
        """Take the lines at the bottom away, and print the line in which the run has left off."""
        rest, self._rest = self._rest, ""
        if rest:
            self._console.print(_line(rest.rpartition("\r")[2]), soft_wrap=True)
        self._live.stop()


def _line(text: str) -> Text:
    """Return a line of output with its own colours."""
    return Text.from_ansi(text) if "\x1b" in text else Text(text)


def _head(record: RunRecord) -> Text:
    head = Text.assemble((record.state, _STYLES.get(record.state, "bold cyan")))
    if record.reason:
        head.append(f": {record.reason}", style="yellow")
    head.append(f"  {record.spec.name}", style="bold").append(f"  {record.spec.run}")
    if record.attempt > 1:
        head.append(f"  attempt {record.attempt}")
    newest = [_newest(record, name).summary for name in record.own_metrics]
    if steps := [summary.last_step for summary in newest if summary]:
        head.append(f"  step {max(steps)}")
    return head


def _newest(record: RunRecord, name: str) -> Series:
    sources = record.series[name]
    return sources[max(sources)]


def _metric_lines(record: RunRecord) -> Iterator[Text]:
    names = record.own_metrics
    shown = names[-_SHOWN_METRICS:]
    width = max(map(len, shown), default=0)
    for name in shown:
        values = [value for _, _, value in record.course(name)] or _last(record, name)
        line = (f"  {name:<{width}}  ", (f"{number_text(values[-1]):<12}", "bold"))
        yield Text.assemble(*line, (sparkline(values), "cyan"))
    if len(names) > len(shown):
        yield Text(f"  and {len(names) - len(shown)} more", style="dim")


def _last(record: RunRecord, name: str) -> list[float]:
    summary = _newest(record, name).summary
    return [summary.last if summary else math.nan]


def sparkline(values: Sequence[float]) -> str:
    """Return the course of a metric as a line of at most some twenty bars.

    >>> sparkline([0, 1, 2, 3, 2, 1]), sparkline([1.0, float("nan"), 2.0]), sparkline([5])
    ('▁▃▆█▆▃', '▁ █', '')
    """
    every = max(1, -(-len(values) // _SPARK_POINTS))
    taken = values[::every]
    finite = [value for value in taken if abs(value) < float("inf")]
    if len(finite) < 2:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(
        _BARS[round((value - low) / span * 7)] if abs(value) < float("inf") else " "
        for value in taken
    )
