"""Runs every benchmark and writes results.md: `python benchmarks/run_all.py`.

Exits with 1 if a limit is missed. If a benchmark itself fails, results.md stays as it was.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from timing import FLOORS

FOLDER = Path(__file__).parent
SCRIPTS = ("import_time", "warm_submit", "cold_run", "log_metric", "artifacts")
RESULTS = FOLDER / "results.md"
HEAD = """\
# Figures

Written by `make bench`, which runs `python benchmarks/run_all.py`; do not edit. rayml and its
baseline take turns within one run; each number is the median of n. What is compared is rayml /
baseline (the median of the turns' ratios), or their difference, or where a limit has a ≥,
baseline / rayml; without a baseline, or with a limit in its own unit, it is rayml's number itself.

"""
COLUMNS = ("question", "baseline", "rayml", "compared", "limit", "met?", "n")


def run(script: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{script}.py")],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def table(script: str, answer: dict[str, Any]) -> str:
    """Return a script's figures in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(row, answer["figures"])]
    head = f"## {answer['question']}\n\n`benchmarks/{script}.py`\n\n"
    details = ", ".join(f"{name} = {shown(value)}" for name, value in answer["details"].items())
    tail = f"\nAlso seen: {details}.\n" if details else ""
    return head + "".join(f"| {' | '.join(line)} |\n" for line in lines) + tail


def row(figure: dict[str, Any]) -> list[str]:
    unit, how = figure["unit"], figure["compare"]
    limit, measured = figure["limit"], figure[how]
    sign = "≥ " if how in FLOORS else ""
    return [
        figure["question"],
        "–" if figure["baseline"] is None else amount(figure["baseline"], unit),
        amount(figure["rayml"], unit),
        compared(measured, how, unit),
        "–" if limit is None else sign + compared(limit, how, unit),
        "–" if limit is None else ("yes" if figure["ok"] else "**no**"),
        str(figure["n"]),
    ]


def compared(measured: float, how: str, unit: str) -> str:
    if how in ("ratio", "speed", "gain"):
        return f"{measured:.3f} ×"
    return ("+" if how == "difference" and measured >= 0 else "") + amount(measured, unit)


def amount(value: float, unit: str) -> str:
    """Return a number for people.

    >>> amount(0.0213, "s"), amount(2, "s"), amount(145.32, "MB")
    ('21.3 ms', '2 s', '145 MB')
    """
    if unit == "s" and 0 < abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} {unit}" if abs(value) < 1000 else f"{value:,.0f} {unit}"


def shown(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {shown(inner)}" for name, inner in value.items()) + ")"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def conditions() -> str:
    """Return when and on what kind of machine, without its name or paths."""
    processors = Path("/proc/cpuinfo").read_text()
    model = processors.partition("model name")[2].partition("\n")[0].strip(" \t:")
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("rayml", "ray", "pyarrow"))
    return (
        f"- {datetime.now(UTC):%Y-%m-%d}, load before the start {os.getloadavg()[0]:.1f}\n"
        f"- {os.cpu_count()} cores ({model or platform.machine()}), {memory:.0f} GiB of memory, "
        f"{platform.system()} {platform.release()}\n"
        f"- Python {platform.python_version()}, {packages}\n"
    )


def main() -> int:
    parts, answers = [HEAD, conditions()], []
    for script in SCRIPTS:
        print(f"{script} …", file=sys.stderr)
        answers.append(run(script))
        parts.append("\n" + table(script, answers[-1]))
        print(parts[-1])
    RESULTS.write_text("".join(parts), "utf-8")
    return 0 if all(answer["ok"] for answer in answers) else 1


if __name__ == "__main__":
    sys.exit(main())
