"""Does sampling what a job takes of its machine cost at most 0.1 % of one core?

A sample is taken of a process, also with 64 threads and 8 children, logged, and made durable by a
tracker in the same process: all the CPU that this takes is counted. In a run there is one in ten
seconds, or fewer if a look at the processes takes long.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TYPE_CHECKING

from timing import alone, report, scratch

import rayml
from rayml.machine import Meter
from rayml.sampling import interval_s, log_sample

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION = "What does it cost to sample what a job takes of its machine?"
N = 100
LIMIT = 0.1  # percent
IDLE = "import threading; [threading.Thread(target=input).start() for _ in range(8)]"


@contextmanager
def job(threads: int, children: int) -> Iterator[None]:
    """Let this process have idle threads, and children that have some too."""
    over = threading.Event()
    for _ in range(threads):
        threading.Thread(target=over.wait).start()
    with ExitStack() as stack:
        stack.callback(over.set)
        for _ in range(children):
            command = [sys.executable, "-c", IDLE]
            child = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
            stack.callback(child.kill)
        time.sleep(2)  # until they are there
        yield


def sample(context: rayml.Context, meter: Meter) -> list[tuple[float, float]]:
    """Return the seconds of CPU of each look, and of all that follows from it as well."""
    taken = []
    for step in range(N):
        thread, process = time.thread_time(), time.process_time()
        log_sample(context.client, meter, step)
        looked = time.thread_time() - thread
        context.flush()
        taken.append((looked, time.process_time() - process))
        time.sleep(0.05)
    return taken


def percents(taken: list[tuple[float, float]]) -> list[float]:
    """Return what samples cost in percent of one core, at the intervals that they lead to."""
    return [100 * all_s / interval_s(0, look_s) for look_s, all_s in taken]


def main() -> None:
    with scratch() as store, rayml.start_run(store=store) as context:
        alone_in_it = sample(context, Meter(os.getpid()))
        with job(threads=64, children=8):
            among_many = sample(context, Meter(os.getpid()))
    report(
        QUESTION,
        [
            alone("one process, % of a core", percents(alone_in_it), limit=LIMIT, unit="%"),
            alone(
                "64 threads and 8 children, % of a core",
                percents(among_many),
                limit=LIMIT,
                unit="%",
            ),
        ],
        look_ms=[1000 * median(look for look, _ in taken) for taken in (alone_in_it, among_many)],
    )


if __name__ == "__main__":
    main()
