"""How soon does a job begin on a KubeRay cluster, and how soon do its workers go after it?

By hand means: somebody raises a worker group's `replicas` in the RayCluster and calls `ray job
submit` for a script that asks for a placement group of as many workers. The change is one patch
from this process, at once; `ray job submit` and `rayml run` are new processes. Both go to the same
RayCluster, through the same way in (the kube-apiserver's service proxy).
The first line of the job's code tells the time when it was run.

The plane is the tests' own: real etcd, kube-apiserver, scheduler and Ray, with doubles of kubelet
and operator, and no images to pull.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from kube.places import job_cluster, wait_until_empty  # noqa: E402
from timing import alone, compare, percentile, report, scratch, take_turns  # noqa: E402

import rayml  # noqa: E402
from rayml.kuberay import reach  # noqa: E402
from tests.kube.clusters import wait_for, wait_for_state  # noqa: E402

if TYPE_CHECKING:
    from tests.kube.clusters import JobCluster

QUESTION = "How soon does a job begin on a KubeRay cluster, and its workers go after it?"
WORKERS = 2
PAIR = rayml.Resources(cpus=1, memory="512Mi", workers=WORKERS)
BIN = Path(sysconfig.get_path("scripts"))
JOB = """
import time

def train():
    print("began at", time.time(), flush=True)
"""
SCRIPT = f"""
import time

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@ray.remote(num_cpus=1)
def train():
    print("began at", time.time(), flush=True)


ray.init()
group = placement_group([{{"CPU": 1, "by_hand": 1}}] * {WORKERS}, strategy="STRICT_SPREAD")
ray.get(train.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote())
"""


class ByHand:
    """A worker group that somebody else has written, and `ray job submit`."""

    def __init__(self, cluster: JobCluster, folder: Path, image: str) -> None:
        self._cluster = cluster
        self._folder = folder
        url, headers = reach(str(cluster.name))
        self._url = url
        self._env = {**os.environ, "RAY_JOB_HEADERS": json.dumps(headers)}
        size = {"cpu": "1", "memory": "512Mi"}
        container = {
            "name": "ray-worker",
            "image": image,
            "resources": {"requests": size, "limits": size},
        }
        group = {
            "groupName": "by-hand",
            "replicas": 0,
            "minReplicas": 0,
            "maxReplicas": WORKERS,
            "rayStartParams": {"resources": json.dumps(json.dumps({"by_hand": 1}))},
            "template": {"spec": {"containers": [container]}},
        }
        # There is no group in it yet.
        cluster.client.patch_ray_cluster(cluster.name, {"spec": {"workerGroupSpecs": [group]}})

    def resize(self, workers: int) -> None:
        """Change `replicas`; at 0, name the workers that go."""
        client, name = self._cluster.client, self._cluster.name
        groups = client.ray_cluster(name)["spec"]["workerGroupSpecs"]
        place = [group["groupName"] for group in groups].index("by-hand")
        path = f"/spec/workerGroupSpecs/{place}"
        going = [] if workers else [n for n in self._cluster.pods() if "by-hand" in n]
        client.patch_ray_cluster(
            name,
            [
                {"op": "test", "path": f"{path}/groupName", "value": "by-hand"},
                {"op": "add", "path": f"{path}/replicas", "value": workers},
                {
                    "op": "add",
                    "path": f"{path}/scaleStrategy",
                    "value": {"workersToDelete": going},
                },
            ],
        )

    def submit(self) -> float:
        """Return when the script's first line was run, in seconds of Unix time."""
        words = ["job", "submit", "--address", self._url, "--working-dir", str(self._folder)]
        words += ["--", "python", "script.py"]
        return first_line([str(BIN / "ray"), *words], self._folder, self._env)


def first_line(words: list[str], folder: Path, env: dict[str, str]) -> float:
    done = subprocess.run(words, cwd=folder, env=env, check=False, text=True, capture_output=True)
    found = re.search(r"began at ([\d.]+)", done.stdout)
    assert found, (words, done.returncode, done.stdout, done.stderr)
    return float(found[1])


def submit_ours(cluster: JobCluster, folder: Path) -> float:
    """Return when the job's first line was run, in seconds of Unix time."""
    words = ["run", "job.py:train", "--cluster", str(cluster.name), "--store", cluster.store]
    words += ["--workers", str(WORKERS), "--cpus", "1", "--memory", "512Mi"]
    return first_line([str(BIN / "rayml"), *words], folder, dict(os.environ))


def cold_by_hand(by_hand: ByHand, cluster: JobCluster) -> float:
    started = time.time()
    by_hand.resize(WORKERS)
    began = by_hand.submit()
    by_hand.resize(0)
    wait_until_empty(cluster)
    return began - started


def cold_ours(cluster: JobCluster, folder: Path) -> float:
    started = time.time()
    began = submit_ours(cluster, folder)
    wait_until_empty(cluster)
    return began - started


def since_now(action: Any, *args: Any) -> float:
    started = time.time()
    began: float = action(*args)
    return began - started


def nap() -> float:
    """Return the moment of the job's end."""
    time.sleep(3)
    return time.time()


def release(cluster: JobCluster) -> float:
    """Return the seconds from a job's end until its pods are to be deleted, as Kubernetes says."""
    run = cluster.submit(nap, resources=PAIR)
    wait_for_state(run, "running")
    wait_for(lambda: len(cluster.pods()) == WORKERS, "the workers")
    while cluster.pods():
        time.sleep(0.01)
    gone = time.time()
    ended = run.wait(60).result
    wait_until_empty(cluster)
    assert isinstance(ended, float)
    return gone - ended


def main() -> None:
    nodes = {"node-1": 4.0, "node-2": 4.0}
    with scratch() as folder, job_cluster(folder / "s3", nodes, grace_s=0) as cluster:
        (folder / "job").mkdir()
        (folder / "job" / "job.py").write_text(JOB)
        (folder / "job" / "script.py").write_text(SCRIPT)
        head = cluster.client.get("pods", cluster.head(), cluster.name.namespace)
        by_hand = ByHand(cluster, folder / "job", head["spec"]["containers"][0]["image"])
        hand_cold, our_cold = take_turns(
            lambda: cold_by_hand(by_hand, cluster), lambda: cold_ours(cluster, folder / "job"), n=5
        )
        (released,) = take_turns(lambda: release(cluster), n=5)
        cluster.set_grace(900)
        by_hand.resize(WORKERS)
        hand_warm, our_warm = take_turns(
            lambda: since_now(by_hand.submit),
            lambda: since_now(submit_ours, cluster, folder / "job"),
            n=9,
        )
        by_hand.resize(0)
        cluster.set_grace(0)
    report(
        QUESTION,
        [
            compare(
                f"submit → first line, {WORKERS} new workers",
                hand_cold, our_cold, "difference", limit=1,
            ),
            compare(
                f"submit → first line, {WORKERS} warm workers",
                hand_warm, our_warm, "difference", limit=0.5,
            ),
            alone("end of job → its pods are to go, grace 0", released, limit=1, unit="s"),
        ],
        slowest_new={"by_hand": max(hand_cold), "rayml": max(our_cold)},
        slowest_release_s=max(released),
        warm_p90={"by_hand": percentile(hand_warm, 90), "rayml": percentile(our_warm, 90)},
    )  # fmt: skip


if __name__ == "__main__":
    main()
