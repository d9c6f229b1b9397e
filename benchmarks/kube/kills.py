"""Is a reservation left when the client, the driver or the head of a job is killed?

Ten rounds each. A job of one worker is submitted, and at some moment of its life the process gets
SIGKILL: the client that waits for it, its driver on the head, or the first process of the head's
container. When the run has ended, the cluster must show no reservation and no worker. Kubernetes
waits longer and longer before it starts a container again, so the head's rounds use new clusters.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from kube.places import job_cluster, reservations  # noqa: E402
from timing import alone, report, scratch  # noqa: E402

import rayml  # noqa: E402
from rayml.cluster.door import open_door  # noqa: E402
from rayml.cluster.versions import is_answering  # noqa: E402
from rayml.errors import ClusterUnreachable  # noqa: E402
from tests.kube.clusters import wait_for, wait_for_state  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.clusters import JobCluster

QUESTION = "Is a reservation left when client, driver or head of a job is killed?"
ROUNDS = 10
HEADS_A_CLUSTER = 2
PATIENCE_S = 600.0
CLIENT = """
import sys, rayml
run = rayml.submit(
    "job.py:train", cluster=sys.argv[1], store=sys.argv[2],
    resources=rayml.Resources(cpus=1, memory="512Mi"), retry=rayml.Retry(attempts=3, backoff_s=1),
)
print(run.id, flush=True)
run.wait()
"""
JOB = "import time\ndef train():\n    time.sleep(4)\n"
numbers = random.Random(0)


def kill_client(_: JobCluster, __: rayml.Run, client: subprocess.Popen[str]) -> None:
    client.send_signal(signal.SIGKILL)


def kill_driver(cluster: JobCluster, run: rayml.Run, _: subprocess.Popen[str]) -> None:
    words = ["pkill", "-9", "-f", f"rayml.driver {run.id}"]
    code, output = cluster.plane.exec(cluster.name.namespace, cluster.head(), words)
    if code != 0:
        raise RuntimeError(f"no driver of {run.id} was there to be killed: {output}")


def kill_head(cluster: JobCluster, _: rayml.Run, __: subprocess.Popen[str]) -> None:
    cluster.plane.signal(cluster.name.namespace, cluster.head(), signal.SIGKILL)


VICTIMS = {"client": kill_client, "driver": kill_driver, "head": kill_head}


def answers(cluster: JobCluster) -> bool:
    """Tell whether the head that was killed last is back."""
    try:
        return is_answering(open_door(cluster.name, cluster.client))
    except ClusterUnreachable:
        return False


def play(
    cluster: JobCluster,
    folder: Path,
    kill: Callable[[JobCluster, rayml.Run, subprocess.Popen[str]], None],
) -> int:
    """Return how many reservations and workers are left."""
    wait_for(lambda: answers(cluster), "an answer of the head", 120)
    words = [sys.executable, "-c", CLIENT, str(cluster.name), cluster.store]
    said = folder / "said"
    with (
        said.open("w") as errors,
        subprocess.Popen(
            words, cwd=folder / "job", stdout=subprocess.PIPE, stderr=errors, text=True
        ) as client,
    ):
        assert client.stdout is not None
        name = client.stdout.readline().strip()
        assert name, said.read_text()
        run = rayml.get_run(name, store=cluster.store)
        time.sleep(numbers.uniform(0, 12))
        kill(cluster, run, client)
        wait_for_state(run, "succeeded", "failed", patience_s=PATIENCE_S)
        client.kill()
    try:
        wait_for(lambda: not (reservations(cluster) or cluster.pods()), "the end of all", 120)
    except TimeoutError:
        return len(reservations(cluster)) + len(cluster.pods())
    return 0


def play_all(name: str, rounds: int, folder: Path, states: list[str]) -> int:
    """Play rounds on a cluster of their own; return how much is left in all."""
    with job_cluster(
        folder / f"s3-{len(states)}", {"node-1": 4.0, "node-2": 4.0}, grace_s=0
    ) as cluster:
        left = sum(play(cluster, folder, VICTIMS[name]) for _ in range(rounds))
        states += [run.state for run in rayml.runs(store=cluster.store)]
    return left


def main() -> None:
    states: list[str] = []
    left = {}
    with scratch() as folder:
        (folder / "job").mkdir()
        (folder / "job" / "job.py").write_text(JOB)
        for name in VICTIMS:
            size = HEADS_A_CLUSTER if name == "head" else ROUNDS
            left[name] = sum(play_all(name, size, folder, states) for _ in range(ROUNDS // size))
    report(
        QUESTION,
        [
            alone(f"left after the {name}'s kill, of {ROUNDS}", [number], limit=0, unit="")
            for name, number in left.items()
        ],
        succeeded=states.count("succeeded"),
        failed=states.count("failed"),
    )


if __name__ == "__main__":
    main()
