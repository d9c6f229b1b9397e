"""Runs benchmarks and writes results.md: `python benchmarks/run_all.py [--full] [script …]`.

Without a script's name, all of them run. Each one's section in results.md is written as soon as it
is done; a script that fails leaves its section as it was. `--full` is passed on: some scripts then
measure sizes as well that take minutes and tens of GB of disk; a section with such figures is not
replaced by one without. Exits with 1 if a limit is missed.
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
from typing import TYPE_CHECKING, Any

import psutil
from timing import FLOORS

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).parent
SCRIPTS = (
    "import_time",
    "warm_submit",
    "sampler",
    "cold_run",
    "log_metric",
    "artifacts",
    "autolog",
    "planner",
    "tracker/acknowledgement",
    "tracker/ingest",
    "tracker/recovery",
    "tracker/short_runs",
    "tracker/queries",
    "tracker/artifacts",
    "kube/starts",
    "kube/burst",
    "kube/kills",
    "engines/ranks",
    "engines/frames",
    "engines/sessions",
    "engines/kills",
    "hub/describe",
    "hub/auto_trainer",
    "hub/trials",
    "hub/batch_predict",
    "hub/serve",
)
FULL = "--full"
RESULTS = FOLDER / "results.md"
HEAD = """\
# Figures

Written by `benchmarks/run_all.py`, which `make bench` runs; do not edit. rayml and its baseline
take turns within one run; each number is the median of n. What is compared is rayml / baseline
(the median of the turns' ratios), or their difference, or where a limit has a ≥, baseline / rayml;
without a baseline, or with a limit in its own unit, it is rayml's number itself.
"""
COLUMNS = ("question", "baseline", "rayml", "compared", "limit", "met?", "n")


def section(script: str, options: Sequence[str]) -> tuple[str, bool]:
    """Run a script; return what results.md says of it, and whether all limits are met."""
    print(f"{script} …", file=sys.stderr)
    command, before = [f"benchmarks/{script}.py", *options], conditions()
    done = subprocess.run(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        cwd=FOLDER.parent,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    head = f"\n## {answer['question']}\n\n`{' '.join(command)}`; {before}\n\n"
    return head + table(answer), answer["ok"]


def table(answer: dict[str, Any]) -> str:
    """Return a script's figures in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(row, answer["figures"])]
    details = ", ".join(f"{name} = {shown(value)}" for name, value in answer["details"].items())
    tail = f"\nAlso seen: {details}.\n" if details else ""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + tail


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
        f"{datetime.now(UTC):%Y-%m-%d}, load before the start {os.getloadavg()[0]:.1f},\n"
        f"{os.cpu_count()} cores ({model or platform.machine()}), {memory:.0f} GiB of memory, "
        f"{platform.system()} {platform.release()},\n"
        f"Python {platform.python_version()}, {packages}"
    )


def read_sections() -> dict[str, str]:
    """Return what results.md says already, by script."""
    parts = RESULTS.read_text("utf-8").split("\n## ")[1:]
    return {
        part.partition("`benchmarks/")[2].partition(".py")[0]: f"\n## {part}" for part in parts
    }


def main() -> int:
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    scripts = [word for word in sys.argv[1:] if word not in options] or SCRIPTS
    sections, is_ok = read_sections(), True
    for script in scripts:
        if FULL in sections.get(script, "") and FULL not in options:
            print(f"{script}: left as it was measured with {FULL}; give {FULL}", file=sys.stderr)
            continue
        sections[script], met = section(script, options)
        is_ok &= met
        print(sections[script])
        RESULTS.write_text(HEAD + "".join(sections[s] for s in SCRIPTS if s in sections), "utf-8")
    return 0 if is_ok else 1


if __name__ == "__main__":
    sys.exit(main())
