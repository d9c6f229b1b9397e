"""Does a step of the planner take at most 10 ms with 1,000 waiting jobs and 200 worker groups?

The time holds the plan and the patch that makes it true. Beside it stands the whole of a step but
for the questions to Kubernetes and Ray: with it, reading the objects of 400 pods.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

from timing import alone, report, seconds, take_turns

from rayml.cluster.demand import Demand
from rayml.cluster.observation import Observation
from rayml.cluster.patch import patch_ops
from rayml.cluster.plan import plan
from rayml.cluster.settings import Settings
from rayml.cluster.shape import Base, Shape, shape_of
from rayml.config import Resources

QUESTION = "What does a step of the planner cost, with 1,000 waiting jobs and 200 groups?"
JOBS, GROUPS, WORKERS = 1_000, 200, 400
NOW = 10_000.0


# It stands in nobody's way, and has to be reckoned with for each job.
HARD = dict.fromkeys(("pods", "requests.cpu", "requests.memory", "limits.cpu"), "1P")
QUOTA = {
    "metadata": {"name": "q"},
    "spec": {"hard": HARD},
    "status": {"used": dict.fromkeys(HARD, "400")},
}


@dataclass(frozen=True)
class Node:
    """A Ray node as the planner is told of it."""

    id: str
    address: str
    is_busy: bool


def make_pod(number: int, shape: Shape) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"pod-{number}",
            "labels": {"ray.io/group": shape.group},
            "creationTimestamp": "2026-11-25T01:00:00Z",
        },
        "spec": {**shape.template["spec"], "nodeName": "n"},
        "status": {
            "podIP": f"10.0.{number // 250}.{number % 250}",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "ray-worker", "state": {"running": {}}}],
        },
    }


def main() -> None:
    base = Base(image="rayproject/ray:2.60.0")
    shapes = [shape_of(Resources(cpus=1 + n), None, base) for n in range(GROUPS)]
    cluster = {
        "metadata": {"name": "c", "resourceVersion": "1", "generation": 1},
        "spec": {"workerGroupSpecs": [shape.group_spec(WORKERS // GROUPS) for shape in shapes]},
        "status": {"observedGeneration": 1},
    }
    pods = [make_pod(number, shapes[number % GROUPS]) for number in range(WORKERS)]
    nodes = [
        Node(str(number), pod["status"]["podIP"], is_busy=number % 2 == 0)
        for number, pod in enumerate(pods)
    ]
    held = {f"run-{n}": frozenset({f"pod-{n}"}) for n in range(0, WORKERS, 2)}
    demands = [
        Demand(run=run, shape=shapes[n % GROUPS], workers=1)
        for run, n in zip(held, range(0, WORKERS, 2), strict=True)
    ]
    demands += [
        Demand(run=f"wait-{n}", shape=shapes[n * 7 % GROUPS], workers=1 + n % 4, since=n * 0.1)
        for n in range(JOBS)
    ]
    settings = Settings(max_workers=WORKERS)
    by_key = {shape.key: shape for shape in shapes}
    names = {name for some in held.values() for name in some}

    def observe() -> Observation:
        return Observation.read(cluster, pods, (), (QUOTA,), nodes).after(None, names, NOW)

    def decide(seen: Observation) -> list[dict[str, Any]]:
        return patch_ops(plan(demands, seen, settings, held, NOW), seen, by_key)

    seen = observe()
    for _ in range(5):
        decide(observe())
    gc.collect()
    gc.freeze()
    decisions, steps = take_turns(
        lambda: seconds(lambda: decide(seen)), lambda: seconds(lambda: decide(observe())), n=100
    )
    made = plan(demands, seen, settings, held, NOW)
    report(
        QUESTION,
        [
            alone("plan and patch", decisions, limit=0.010, unit="s"),
            alone("with reading 400 pods", steps, limit=None, unit="s"),
        ],
        starting=len(made.ready),
        waiting=len(made.waiting),
        leaving=len(made.victims),
    )


if __name__ == "__main__":
    main()
