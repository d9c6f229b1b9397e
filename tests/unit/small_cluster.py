"""A cluster that is stepped by hand: API server, KubeRay, scheduler, kubelets and Ray in one.

It follows what KubeRay 1.7 does, the unpleasant parts included: it deletes the first pods of its
list when there are too many, forgets the pods of a group that was taken out of the list, and does
not act on a spec that it refuses.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rayml.cluster.demand import Demand
from rayml.cluster.observation import Observation
from rayml.cluster.patch import patch_ops
from rayml.cluster.plan import Plan, plan
from rayml.cluster.settings import Settings
from rayml.cluster.shape import Base, Shape, shape_of
from rayml.config import Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BASE = Base(image="rayproject/ray:2.60.0", ray_version="2.60.0")


def make_shape(cpus: float = 1, **resources: Any) -> Shape:
    return shape_of(Resources(cpus=cpus, **resources), None, BASE)


def make_demand(run: str, workers: int = 1, shape: Shape | None = None, **more: Any) -> Demand:
    return Demand(run=run, workers=workers, shape=shape or make_shape(), **more)


@dataclass(frozen=True)
class Node:
    """A Ray node as the planner is told of it."""

    id: str
    address: str
    is_busy: bool


@dataclass
class Pod:
    """A pod, how far it has come, and which run uses it."""

    name: str
    group: str
    cpus: float
    created_at: float
    ip: str
    age: int = 0
    node: str | None = None
    is_terminating: bool = False
    is_drained: bool = False
    run: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.node is not None and self.age >= 2 and not self.is_terminating

    def manifest(self) -> dict[str, Any]:
        """Return the pod as the API shows it."""
        metadata: dict[str, Any] = {
            "name": self.name,
            "labels": {"ray.io/group": self.group},
            "creationTimestamp": f"2026-11-25T00:00:{self.created_at % 60:02.0f}Z",
        }
        if self.is_terminating:
            metadata["deletionTimestamp"] = "2026-11-25T00:01:00Z"
        spec = {"containers": [{"name": "ray-worker"}], "restartPolicy": "Never"}
        status: dict[str, Any] = {"phase": "Pending", "podIP": self.ip}
        if self.node is None:
            message = "0/1 nodes are available: 1 Insufficient cpu."
            unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            status["conditions"] = [unscheduled | {"message": message}] if self.age else []
        else:
            spec["nodeName"] = self.node
        if self.node and self.age >= 1:
            status["containerStatuses"] = [{"name": "ray-worker", "state": {"running": {}}}]
            ready = "True" if self.is_ready else "False"
            status["conditions"] = [{"type": "Ready", "status": ready}]
        return {"metadata": metadata, "spec": spec, "status": status}


@dataclass
class Job:
    """A job that runs for some steps once it has its workers."""

    demand: Demand
    length: int
    state: str = "waiting"
    left: int = 0


@dataclass
class SmallCluster:
    """The cluster, its jobs, and the planner that sizes it."""

    nodes: dict[str, float]
    settings: Settings = field(default_factory=Settings)
    is_autoscaling: bool = False
    now: float = 1000.0
    jobs: dict[str, Job] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    generation: int = 1
    observed: int = 1
    seen: Observation | None = None
    planned: Plan = field(default_factory=Plan)
    deleted_busy: list[str] = field(default_factory=list)
    numbers: Any = field(default_factory=itertools.count)

    # --- what the planner sees and does ---

    def manifest(self) -> dict[str, Any]:
        """Return the RayCluster as the API shows it."""
        return {
            "metadata": {
                "name": "c",
                "namespace": "ns",
                "resourceVersion": str(self.version),
                "generation": self.generation,
            },
            "spec": self.spec | {"enableInTreeAutoscaling": self.is_autoscaling},
            "status": {"observedGeneration": self.observed},
        }

    def observe(self) -> Observation:
        """Look at everything, as the reservations actor does."""
        ray = [Node(p.name, p.ip, p.run is not None) for p in self.pods.values() if p.is_ready]
        read = Observation.read(
            self.manifest(), [pod.manifest() for pod in self.pods.values()], nodes_of_ray=ray
        )
        held = {name for names in self.held().values() for name in names}
        self.seen = read.after(self.seen, held, self.now)
        return self.seen

    def held(self) -> dict[str, frozenset[str]]:
        """Return the workers of the runs that were told to start."""
        return {
            run: frozenset(pod.name for pod in self.pods.values() if pod.run == run)
            for run, job in self.jobs.items()
            if job.state in {"granted", "running"}
        }

    def demands(self) -> list[Demand]:
        return [job.demand for job in self.jobs.values() if job.state != "done"]

    def step_planner(self) -> Plan:
        """Observe, plan, patch, and tell runs to start."""
        observation, demands = self.observe(), self.demands()
        self.planned = plan(demands, observation, self.settings, self.held(), self.now)
        shapes = {demand.shape.key: demand.shape for demand in demands}
        self.drain(self.planned.victims)
        self.apply(patch_ops(self.planned, observation, shapes))
        for run in self.planned.ready:
            self.grant(run)
        for run in self.planned.postponed:
            job = self.jobs[run]
            job.demand = Demand(**{**vars(job.demand), "since": self.now})
        return self.planned

    def grant(self, run: str) -> None:
        """Tell a run that its workers are there."""
        if self.jobs[run].state == "waiting":
            self.jobs[run].state = "granted"

    def drain(self, workers: Iterable[str]) -> None:
        """Let Ray give workers no more work."""
        for name in workers:
            if name in self.pods:
                self.pods[name].is_drained = True

    def apply(self, ops: Iterable[dict[str, Any]]) -> None:
        """Apply a JSON patch, whole or not at all."""
        ops = list(ops)
        if not ops:
            return
        changed = copy.deepcopy(self.manifest())
        for op in ops:
            apply_op(changed, op)
        self.spec = changed["spec"]
        self.version += 1
        self.generation += 1

    # --- what the others do ---

    def step_operator(self) -> None:
        """Create and delete pods as KubeRay does."""
        for entry in self.spec.get("workerGroupSpecs", []):
            self._reconcile(entry)
        self.observed = self.generation
        self.version += 1

    def _reconcile(self, entry: dict[str, Any]) -> None:
        group = entry["groupName"]
        listed = [pod for pod in self.pods.values() if pod.group == group]
        named = (entry.get("scaleStrategy") or {}).get("workersToDelete", [])
        for pod in listed:
            if pod.name in named:
                self.delete(pod)
        counted = [pod for pod in listed if pod.name not in named]
        wanted = min(max(entry["replicas"], entry["minReplicas"]), entry["maxReplicas"])
        for pod in counted[: max(0, len(counted) - wanted)]:
            if not self.is_autoscaling:
                self.delete(pod)
        requests = entry["template"]["spec"]["containers"][0]["resources"]["requests"]
        for _ in range(wanted - len(counted)):
            number = next(self.numbers)
            name = f"c-{group}-worker-{number:05d}"
            cpus = float(requests["cpu"])
            self.pods[name] = Pod(
                name, group, cpus, self.now, f"10.0.{number // 250}.{number % 250}"
            )

    def delete(self, pod: Pod) -> None:
        if pod.run is not None and not pod.is_terminating:
            self.deleted_busy.append(pod.name)
        pod.is_terminating = True

    def step_autoscaler(self) -> None:
        """Remove an idle worker that no group needs, as Ray's autoscaler does."""
        for entry in self.spec.get("workerGroupSpecs", []):
            pods = [pod for pod in self.pods.values() if pod.group == entry["groupName"]]
            idle = [pod for pod in pods if pod.is_ready and pod.run is None]
            if idle and len(pods) > entry["minReplicas"]:
                entry["scaleStrategy"] = {"workersToDelete": [idle[0].name]}
                entry["replicas"] = len(pods) - 1

    def step_nodes(self) -> None:
        """Schedule pods, let them start, and let deleted ones go."""
        for pod in [pod for pod in self.pods.values() if pod.is_terminating]:
            del self.pods[pod.name]
        for pod in self.pods.values():
            pod.age += 1
            if pod.node is None:
                pod.node = next((n for n in self.nodes if self.free(n) >= pod.cpus), None)
                pod.age = 0 if pod.node else 1

    def free(self, node: str) -> float:
        return self.nodes[node] - sum(p.cpus for p in self.pods.values() if p.node == node)

    def step_jobs(self) -> None:
        """Let runs take workers, go on, end, and start anew when they have lost one."""
        for run, job in self.jobs.items():
            mine = [pod for pod in self.pods.values() if pod.run == run]
            if job.state == "running":
                self._go_on(job, mine)
            elif job.state == "granted":
                self._take(job, run)

    def _go_on(self, job: Job, mine: list[Pod]) -> None:
        alive = [pod for pod in mine if not pod.is_terminating]
        job.left -= 1
        if len(alive) < job.demand.workers or job.left <= 0:
            job.state = "done" if len(alive) == job.demand.workers else "waiting"
            for pod in mine:
                pod.run = None

    def _take(self, job: Job, run: str) -> None:
        group = job.demand.shape.group
        free = [p for p in self.pods.values() if p.group == group and p.is_ready and not p.run]
        free = [pod for pod in free if not pod.is_drained]
        if len(free) < job.demand.workers:  # one has died since: the attempt fails and waits again
            job.state = "waiting"
            return
        # Ray does not know which ones the planner thought of.
        for pod in free[-job.demand.workers :]:
            pod.run = run
        job.state, job.left = "running", job.length

    def step(
        self,
        check: Callable[[SmallCluster], None] | None = None,
        is_lazy: Callable[[], bool] = lambda: False,
    ) -> None:
        """Let everybody act once; operator and nodes only if they are not lazy."""
        self.step_planner()
        for act in (self.step_operator, self.step_nodes):
            if not is_lazy():
                act()
            if check is not None:
                check(self)
        self.step_jobs()
        self.now += 1

    def submit(self, run: str, workers: int, shape: Shape, length: int = 3, **more: Any) -> None:
        demand = Demand(run=run, shape=shape, workers=workers, since=self.now, **more)
        self.jobs[run] = Job(demand, length)

    def is_done(self) -> bool:
        return all(job.state == "done" for job in self.jobs.values())


def apply_op(document: dict[str, Any], op: dict[str, Any]) -> None:
    """Apply one operation of a JSON patch to a document, in place."""
    *path, last = op["path"].split("/")[1:]
    target: Any = document
    for part in path:
        target = target[int(part)] if isinstance(target, list) else target[part]
    key: Any = int(last) if isinstance(target, list) and last != "-" else last
    if op["op"] == "test":
        assert target[key] == op["value"], op
    elif op["op"] == "remove":
        del target[key]
    elif isinstance(target, list):
        target.insert(len(target) if key == "-" else key, copy.deepcopy(op["value"]))
    else:
        target[key] = copy.deepcopy(op["value"])
