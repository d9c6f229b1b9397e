"""Does a cold `rayml run` of a no-op script take at most 1.3 × a bare script with one Ray task?

Each is a whole process, from its start to its exit, with its own Ray and a store of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import count
from pathlib import Path

from timing import compare, report, scratch, seconds, take_turns

QUESTION = "What does a cold `rayml run` cost, beside a bare Ray script?"
# A Ray that happens to run on this machine would make both warm.
BARE = """
import ray

@ray.remote
def noop():
    pass

ray.init(address="local"{options})
ray.get(noop.remote())
"""


def run(words: list[str], folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, check=False, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} exited with {done.returncode}:\n{done.stderr}")


def main() -> None:
    stores = count()
    rayml = str(Path(sys.executable).with_name("rayml"))
    with scratch() as folder:
        (folder / "noop.py").write_text("")
        (folder / "bare.py").write_text(BARE.format(options=""))
        (folder / "light.py").write_text(BARE.format(options=", include_dashboard=False"))

        def start(script: str) -> float:
            return seconds(lambda: run([sys.executable, script], folder))

        def start_ours() -> float:
            words = [rayml, "run", "noop.py", "--cluster", "local", "--store"]
            return seconds(lambda: run([*words, f"store-{next(stores)}"], folder))

        bare, light, ours = take_turns(
            lambda: start("bare.py"), lambda: start("light.py"), start_ours, n=7, rest_s=1
        )
    report(
        QUESTION,
        [
            compare("`rayml run noop.py` / `ray.init()` and one task", bare, ours, limit=1.3),
            compare("the same, Ray without its dashboard", light, ours, limit=None),
        ],
    )


if __name__ == "__main__":
    main()
