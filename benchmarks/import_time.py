"""Does `import rayml` take at most 0.15 of what `import ray` takes, and load nothing heavy?"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial

from timing import compare, report, seconds, take_turns

QUESTION = "What does `import rayml` cost, beside `import ray`?"
HEAVY = ("ray", "pandas", "numpy", "torch", "kr8s", "obstore")

TIMED = """
import time
started = time.perf_counter()
import {module}
print(time.perf_counter() - started)
"""
LOADED = """
import json, sys
import rayml
print(json.dumps([name for name in {heavy} if name in sys.modules]))
"""


def run(code: str) -> str:
    # Away from the repository: its folders must not stand in for installed packages.
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        cwd=tempfile.gettempdir(),
    )
    return done.stdout


def import_seconds(module: str) -> float:
    return float(run(TIMED.format(module=module)))


def process_seconds(module: str) -> float:
    return seconds(partial(run, f"import {module}"))


def main() -> None:
    ray, ours, ray_process, our_process, empty_process = take_turns(
        partial(import_seconds, "ray"),
        partial(import_seconds, "rayml"),
        partial(process_seconds, "ray"),
        partial(process_seconds, "rayml"),
        partial(process_seconds, "sys"),
        n=15,
        warm_ups=2,
    )
    heavy = json.loads(run(LOADED.format(heavy=HEAVY)))
    loaded = compare(
        "heavy modules that `import rayml` loads", [len(HEAVY)], [len(heavy)], "value",
        limit=0, unit="modules",
    )  # fmt: skip
    report(
        QUESTION,
        [
            compare("`import rayml` / `import ray`", ray, ours, limit=0.15),
            compare("`python -c 'import …'`, whole process", ray_process, our_process, limit=None),
            compare("`python -c 'import rayml'` / empty", empty_process, our_process, limit=None),
            loaded,
        ],
        checked=HEAVY,
        loaded=heavy,
    )


if __name__ == "__main__":
    main()
