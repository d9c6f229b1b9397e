"""A RayCluster that somebody else has made, taken in and left again."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rayml.cluster.answers import Conflict
from rayml.cluster.book import BOOK, MORE
from rayml.cluster.manifest import code_maps, rights
from rayml.cluster.objects import change_cluster, create_objects, wait_until
from rayml.cluster.readiness import head_of
from rayml.cluster.reasons import DOUBTED
from rayml.cluster.settings import MANAGED, Settings, check_resizable
from rayml.cluster.shape import shape_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rayml.cluster.address import ClusterName
    from rayml.cluster.bundle import Bundle
    from rayml.cluster.choices import Choices
    from rayml.cluster.client import KubeClient

    Item = dict[str, Any]
    Tell = Callable[[str], None]


def adopt(
    name: ClusterName,
    client: KubeClient,
    choices: Choices,
    bundle: Bundle | None,
    tell: Tell,
) -> None:
    """Take in a RayCluster: it gets annotations and a label, its head's account gets a role.

    Raises:
        SpecError: It cannot be resized for jobs; says which setting stands in the way.
    """
    cluster = client.ray_cluster(name)
    check_resizable(cluster)
    account = _account_of(cluster, client.pods(name))
    create_objects(client, name, [*rights(name, account), *code_maps(name, bundle)], tell)
    tell(f"every pod of service account {account!r} may now resize {name}")
    code = bundle.code if bundle else None
    version = metadata.version("rayml")

    def change(seen: Item) -> Item:
        before = Settings.read(seen)
        chosen = choices.settings(before)
        after = replace(chosen, managed="adopted", code=code, version=version)
        written = {**dict.fromkeys(before.annotations()), **after.annotations()}
        return {"metadata": {"annotations": written, "labels": after.labels()}}

    change_cluster(client, name, change)
    tell(f"adopted {name}")
    if choices.grace_s is not None and cluster["spec"].get("enableInTreeAutoscaling"):
        tell("note: --grace-s does nothing here: Ray's own autoscaler lets idle workers go")


def leave(name: ClusterName, client: KubeClient, tell: Tell) -> None:
    """Take everything of ours out of a RayCluster that goes on.

    Raises:
        ClusterError: Its workers of ours did not go in time.
    """
    groups = {group["groupName"] for _, group in _our_groups(client.ray_cluster(name))}
    if groups:
        _end_workers(name, client, groups, tell)

    def change(seen: Item) -> Item:
        written = dict.fromkeys([*Settings.read(seen).annotations(), BOOK, MORE, DOUBTED])
        return {"metadata": {"annotations": written, "labels": {MANAGED: None}}}

    change_cluster(client, name, change)
    tell(f"left {name}")


def _end_workers(name: ClusterName, client: KubeClient, groups: set[str], tell: Tell) -> None:
    """Empty our groups, and take them out of the list once their pods are gone.

    KubeRay forgets the pods of a group that is taken out before.
    """

    def ours() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for pod in client.pods(name):
            found.setdefault(_group_of(pod), []).append(pod["metadata"]["name"])
        return {group: pods for group, pods in found.items() if group in groups}

    tell(f"ending the workers of {', '.join(sorted(groups))}")
    workers = ours()
    _patch_groups(name, client, lambda cluster: _emptying(cluster, workers))
    way_out = "look at their pods' finalizers and at KubeRay's operator"
    wait_until(lambda: not ours(), f"the workers of {name}", way_out)
    _patch_groups(name, client, _removing)


def _account_of(cluster: Item, pods: list[Item]) -> str:
    """Return the service account that a head runs as, as far as the RayCluster says."""
    if (head := head_of(pods)) is not None:
        return str(head["spec"].get("serviceAccountName") or "default")
    spec = cluster["spec"]
    usual = cluster["metadata"]["name"] if spec.get("enableInTreeAutoscaling") else "default"
    return str(spec["headGroupSpec"]["template"]["spec"].get("serviceAccountName") or usual)


def _our_groups(cluster: Mapping[str, Any]) -> list[tuple[int, Item]]:
    groups = cluster["spec"].get("workerGroupSpecs") or []
    return [(at, group) for at, group in enumerate(groups) if shape_key(group["groupName"])]


def _patch_groups(
    name: ClusterName, client: KubeClient, make: Callable[[Item], list[Item]]
) -> None:
    """Change groups of ours by the JSON patch that the cluster's present state gives."""

    def attempt() -> bool:
        cluster = client.ray_cluster(name)
        version = cluster["metadata"]["resourceVersion"]
        guard = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
        ops = make(cluster)
        try:
            client.patch_ray_cluster(name, [guard, *ops])
        except Conflict:  # the reservations, or the operator, were faster
            return False
        return True

    wait_until(attempt, f"the worker groups of {name}", "others change it all the time; try again")


def _emptying(cluster: Item, workers: Mapping[str, list[str]]) -> list[Item]:
    """Return what ends all workers of ours: by name, which works with Ray's autoscaler as well."""
    ops = []
    for at, group in _our_groups(cluster):
        named = {"workersToDelete": workers.get(group["groupName"], [])}
        fields = {"replicas": 0, "minReplicas": 0, "scaleStrategy": named}
        for field, value in fields.items():
            path = f"/spec/workerGroupSpecs/{at}/{field}"
            ops.append({"op": "add", "path": path, "value": value})
    return ops


def _removing(cluster: Item) -> list[Item]:
    """Return what takes our groups out of the list, from its end.

    Ray's autoscaler changes groups by their place in the list: while it is on, only those go that
    have none of somebody else's behind them.
    """
    last = len(cluster["spec"].get("workerGroupSpecs") or []) - 1
    ops = []
    for at, _ in reversed(_our_groups(cluster)):
        if cluster["spec"].get("enableInTreeAutoscaling") and at != last:
            break
        last = at - 1
        ops.append({"op": "remove", "path": f"/spec/workerGroupSpecs/{at}"})
    return ops


def _group_of(pod: Item) -> str:
    return str((pod["metadata"].get("labels") or {}).get("ray.io/group", ""))
