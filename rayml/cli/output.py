"""Runs as people read them and as programs do: tables, facts, JSON."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from rayml.artifacts import Artifact
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord
    from rayml.tracker.series import Summary

_UNLIMITED_WIDTH = 10_000


def emit_json(value: object, file: TextIO | None = None) -> None:
    """Print one strict JSON document; NaN and infinities are text."""
    text = json.dumps(plain_numbers(value), indent=2, ensure_ascii=False, allow_nan=False)
    print(text, file=file or sys.stdout, flush=True)


def plain_numbers(value: object) -> object:
    """Return a value in which every number is one that JSON has; the others are text.

    >>> plain_numbers({"a": [1.5, float("nan"), float("-inf")]})
    {'a': [1.5, 'nan', '-inf']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(item) for item in value]
    return value


def run_data(record: RunRecord, store: Store) -> dict[str, object]:
    """Return all that is known about a run as JSON can hold it."""
    import msgspec  # noqa: PLC0415 - not for --help

    from rayml.tracker.reader import artifact_of  # noqa: PLC0415

    spec = record.spec
    artifacts = (artifact_of(record, name, store) for name in record.artifacts)
    return {
        "id": spec.run,
        "name": spec.name,
        "experiment": spec.experiment,
        "state": record.state,
        "reason": record.reason,
        "attempt": record.attempt,
        "submitted_at": _iso(spec.submitted_at),
        "started_at": _iso(record.started_at),
        "ended_at": _iso(record.ended_at),
        "duration_s": duration_s(record),
        "worker_s": record.attribute("worker_s"),
        "cpu_s": record.cpu_s,
        "max_memory": record.max_memory,
        "workers": record.held.workers if record.held else [],
        "params": record.params,
        "inputs": msgspec.to_builtins(spec.inputs),
        "labels": record.labels,
        "notes": record.attribute("notes"),
        "archived": record.attribute("archived"),
        "parent": spec.parent,
        "rerun_of": spec.rerun_of,
        "metrics": dict(record.last_values()),
        "system": {
            name: {"last": summary.last, "max": summary.max}
            for name, summary in record.system_values()
        },
        "artifacts": {artifact.name: artifact_data(artifact) for artifact in artifacts},
        "result": _plain_result(record, store),
        "error": msgspec.to_builtins(record.problem) if record.is_terminal else None,
        "target": spec.target.text,
        "args": spec.args,
        "working_dir": spec.working_dir,
        "store": spec.store,
        "cluster": spec.cluster,
        "resources": msgspec.to_builtins(spec.resources),
        "requirements": spec.requirements,
        "packages": record.started.packages if record.started else "",
        "env": spec.env,
        "secrets": spec.secrets,
        "retry": msgspec.to_builtins(spec.retry),
        "timeout_s": spec.timeout_s,
        "start_timeout_s": spec.start_timeout_s,
        "autolog": spec.autolog,
        "origin": msgspec.to_builtins(spec.origin),
    }


def artifact_data(artifact: Artifact) -> dict[str, object]:
    """Return what a listing tells about an artifact."""
    return {
        "name": artifact.name,
        "kind": artifact.kind,
        "format": artifact.format,
        "size": artifact.size,
        "digest": artifact.digest,
        "uri": artifact.uri,
    }


def _plain_result(record: RunRecord, store: Store) -> object:
    """Return what the function returned where that is JSON, else None."""
    if record.result is None or record.result.format != "json":
        return None
    from rayml.result import decode_result  # noqa: PLC0415 - most commands show no result

    return decode_result(record.result, store, trusted=False)


def console() -> Console:
    """Return stdout for tables: as wide as the terminal, or as it takes in a pipe."""
    from rich.console import Console  # noqa: PLC0415 - loads only when something is printed

    width = None if sys.stdout.isatty() else _UNLIMITED_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def table(*headers: str) -> Table:
    """Return an empty table; what is too long for the terminal goes on in the next line."""
    from rich.table import Table  # noqa: PLC0415 - loads only when something is printed

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        made.add_column(header, overflow="fold")
    return made


def print_facts(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns; a value is never cut."""
    shown = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name:<{width}}  {value}")


def run_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Return what a person wants to know first about a run."""
    spec = record.spec
    return [
        ("run", spec.run),
        ("name", spec.name),
        ("experiment", spec.experiment),
        ("state", state_text(record)),
        ("attempts", str(record.attempt) if record.attempt > 1 else ""),
        ("duration", duration_text(duration_s(record))),
        ("used", _used_text(record)),
        ("workers", _workers_text(record)),
        ("labels", pairs_text(_own_labels(record))),
        ("notes", str(record.attribute("notes"))),
        ("archived", "yes" if record.attribute("archived") else ""),
        ("parent", spec.parent or ""),
        ("rerun of", spec.rerun_of or ""),
    ]


def _used_text(record: RunRecord) -> str:
    """Return what the attempts that have ended took of their machines."""
    from rayml.artifacts import human_bytes  # noqa: PLC0415 - not for --help

    if not record.cpu_s:
        return ""
    peak = f", at most {human_bytes(record.max_memory)} of memory in one process"
    return f"{duration_text(record.cpu_s)} of CPU" + peak * bool(record.max_memory)


def _workers_text(record: RunRecord) -> str:
    """Return which workers of a cluster a run holds, and what those that it held have cost."""
    held = ", ".join(record.held.workers) if record.held else ""
    hours = float(str(record.attribute("worker_s"))) / 3600
    return f"{held} " * bool(held) + f"({hours:.3g} worker-hours)" * bool(hours)


def _own_labels(record: RunRecord) -> dict[str, str]:
    """Return a run's labels without those in which parts of rayml keep what they need."""
    return {n: text for n, text in record.labels.items() if not n.startswith("rayml.")}


def frame_rows(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return a DataFrame's rows as JSON can hold them."""
    import pandas as pd  # noqa: PLC0415 - loads only when there is a DataFrame

    missing = (pd.NA, pd.NaT)
    return [
        {
            str(name): None if any(value is one for one in missing) else _plain(value)
            for name, value in row.items()
        }
        for row in frame.astype(object).to_dict("records")
    ]


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):  # what SQL makes of 1.5
        return float(value)
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return value if is_plain else str(value)


def print_frame(frame: pd.DataFrame) -> None:
    """Print a DataFrame: a table on a terminal, CSV in a pipe."""
    rows = [
        ["" if cell is None else str(cell) for cell in row.values()] for row in frame_rows(frame)
    ]
    if sys.stdout.isatty():
        shown = table(*map(str, frame.columns))
        for row in rows:
            shown.add_row(*row)
        console().print(shown)
    else:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([list(map(str, frame.columns)), *rows])


def print_values(record: RunRecord) -> None:
    """Print a run's parameters, each metric's last value and the machine's, where it has any."""
    params = [(name, f"{value}") for name, value in record.params.items()]
    metrics = [(name, number_text(value)) for name, value in record.last_values()]
    system = [(name, _system_text(name, found)) for name, found in record.system_values()]
    for title, rows in (("params", params), ("metrics", metrics), ("system", system)):
        if rows:
            print(title)
            print_facts((f"  {name}", value) for name, value in rows)


def _system_text(name: str, found: Summary) -> str:
    """Return a measure of the machine as it was last, and at its highest."""
    last, high = _measure_text(name, found.last), _measure_text(name, found.max)
    return f"{last}, at most {high}"


def _measure_text(name: str, value: float) -> str:
    from rayml.artifacts import human_bytes  # noqa: PLC0415 - not for --help

    if name in ("host_cpu", "host_memory"):
        return f"{value:.0f} %"
    if name == "memory":
        return human_bytes(int(value))
    return f"{human_bytes(int(value))}/s" if name.startswith("host_") else f"{value:.3g}"


def print_artifacts(artifacts: list[Artifact], indent: str = "  ") -> None:
    """Print what each artifact is and where it lies, one a line, never cut."""
    from rayml.artifacts import human_bytes  # noqa: PLC0415 - not for --help

    cells = [(a.name, a.kind, human_bytes(a.size), a.uri) for a in artifacts]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        *padded, uri = (f"{cell:<{n}}" for cell, n in zip(row, widths, strict=True))
        print(indent + "  ".join([*padded, uri.rstrip()]))


def state_text(record: RunRecord) -> str:
    """Return a run's state, and in words why it is in it."""
    if record.state == "failed" and record.problem is not None:
        return f"failed: {record.problem.message}"
    return f"{record.state}: {record.reason}" if record.reason else record.state


def pairs_text(values: Mapping[str, object]) -> str:
    """Return names with values in one line.

    >>> pairs_text({"depth": 4, "rate": 0.1})
    'depth=4, rate=0.1'
    """
    return ", ".join(f"{name}={value}" for name, value in values.items())


def number_text(value: float) -> str:
    """Return a metric's value as short as it is still told from its neighbours.

    >>> number_text(0.123456789), number_text(3.0), number_text(float("nan"))
    ('0.123457', '3', 'nan')
    """
    return f"{value:.6g}"


def duration_s(record: RunRecord) -> float | None:
    """Return how many seconds a run has been executing; None if it never began."""
    if record.started_at is None:
        return None
    end = record.ended_at if record.ended_at is not None else time.time()
    return max(0.0, end - record.started_at)


def duration_text(seconds: float | None) -> str:
    """Return a duration for people.

    >>> duration_text(3.21), duration_text(75), duration_text(7325), duration_text(None)
    ('3.2 s', '1:15', '2:02:05', '')
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_text(seconds: float | None) -> str:
    """Return a Unix time as the clock on this machine's wall, to the second."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
