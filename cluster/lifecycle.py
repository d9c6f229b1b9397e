"""A cluster's life: `up` makes it or takes it in, `down` ends it."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rayml.cluster.adoption import adopt as take_in
from rayml.cluster.adoption import leave
from rayml.cluster.answers import RightMissing
from rayml.cluster.bundle import machine_of, make_bundle
from rayml.cluster.choices import Choices
from rayml.cluster.door import open_door
from rayml.cluster.liveness import live_runs
from rayml.cluster.manifest import account_name, code_maps, manifest, renewed_head, rights
from rayml.cluster.objects import (
    change_cluster,
    create_objects,
    delete_parts,
    holds,
    sweep_code,
    wait_until,
)
from rayml.cluster.readiness import head_of, wait_until_ready
from rayml.cluster.settings import Settings
from rayml.cluster.versions import check_versions
from rayml.errors import NotFound, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rayml.cluster.address import ClusterName
    from rayml.cluster.bundle import Bundle
    from rayml.cluster.client import KubeClient

    Item = dict[str, Any]
    Tell = Callable[[str], None]

__all__ = ["Choices", "down", "plan_objects", "up"]


def plan_objects(name: ClusterName, choices: Choices, tell: Tell) -> list[Item]:
    """Return all objects that `up` would make for a new cluster; no cluster is asked.

    Raises:
        SpecError: A choice makes no sense.
        ClusterUnreachable: What rayml needs cannot be fetched for that image.
    """
    head = choices.new_head()
    bundle = None if choices.has_rayml else _pack(head.image, choices, tell)
    return manifest(name, head, choices.settings(Settings()), bundle)


def up(
    name: ClusterName,
    client: KubeClient,
    choices: Choices,
    *,
    adopt: bool = False,
    wait_s: float = 300.0,
    tell: Tell,
) -> None:
    """Make a cluster, change it, or take in one that somebody else has made.

    Saying it again changes nothing. A change of image, store or code reaches the head when it
    restarts, which happens at once unless a run is live.

    Args:
        name: The cluster's.
        client: Of its kube-apiserver.
        choices: What it is to be.
        adopt: Take in a RayCluster that is not ours: it gets annotations, a role for its head,
            and worker groups of ours; nothing else of it changes.
        wait_s: For how long to wait until its head takes jobs; 0 does not wait.
        tell: Gets a line for each step.

    Raises:
        SpecError: It is not ours and not to be adopted, KubeRay or the server's schema refuses
            it, or it has another Ray or Python than this process.
        NotFound: Its namespace, or the Secret, is not there.
        ClusterError: It was not ready in time; says why.
    """
    _check_secret(name, client, choices, tell)
    cluster = client.find("rayclusters", name.name, name.namespace)
    managed = None if cluster is None else Settings.read(cluster).managed
    if cluster is None:
        create_objects(client, name, plan_objects(name, choices, tell), tell)
    elif managed == "up":
        _renew(name, client, cluster, choices, tell)
    elif adopt or managed == "adopted":
        image = choices.renewed_head(cluster).image
        bundle = None if choices.has_rayml else _pack(image, choices, tell)
        take_in(name, client, choices, bundle, tell)
    else:
        raise SpecError(
            f"{name} was not made by rayml cluster up; add --adopt to let rayml's jobs use it"
        )
    if wait_s > 0:
        wait_until_ready(name, client, wait_s, tell)
        settings = Settings.read(client.ray_cluster(name))
        found = check_versions(name, settings, open_door(name, client))
        tell(f"{name} takes jobs: {found}")
    sweep_code(client, name)


def down(name: ClusterName, client: KubeClient, *, force: bool = False, tell: Tell) -> None:
    """Take away what `up` has made, and nothing else.

    An adopted cluster stays, without our worker groups and annotations.

    Args:
        name: The cluster's.
        client: Of its kube-apiserver.
        force: Also while runs are live, which end with it.
        tell: Gets a line for each step.

    Raises:
        SpecError: Runs are live, or the cluster is not ours.
        NotFound: There is no such cluster, nor a part of one.
        ClusterError: It did not go in time.
    """
    cluster = client.find("rayclusters", name.name, name.namespace)
    if cluster is not None:
        _end(name, client, cluster, force=force, tell=tell)
    count = delete_parts(client, name, tell)
    if cluster is None and count == 0:
        client.ray_cluster(name)  # says what is missing, and what there is
    sweep_code(client, name)


def _end(name: ClusterName, client: KubeClient, cluster: Item, *, force: bool, tell: Tell) -> None:
    managed = Settings.read(cluster).managed
    if managed is None:
        raise SpecError(f"{name} was not made by rayml cluster up; whoever made it deletes it")
    is_adopted = managed == "adopted"
    if not force and (live := live_runs(name, client, cluster, only_ours=is_adopted)):
        raise SpecError(
            f"{name} runs {', '.join(live)}; wait for them, cancel them, or say --force"
        )
    if is_adopted:
        leave(name, client, tell)
        return
    uid = cluster["metadata"]["uid"]
    client.delete("rayclusters", name.name, name.namespace, uid=uid)
    tell(f"deleting RayCluster {name.name}")
    wait_until(
        lambda: not client.pods(name) and not _is_there(name, client, uid),
        f"{name}",
        "look at its pods' finalizers and at KubeRay's operator",
    )


def _is_there(name: ClusterName, client: KubeClient, uid: str) -> bool:
    found = client.find("rayclusters", name.name, name.namespace)
    return found is not None and found["metadata"]["uid"] == uid


def _pack(image: str, choices: Choices, tell: Tell) -> Bundle:
    machine = machine_of(image, choices.arch)
    tell(f"packing rayml for {machine}")
    return make_bundle(machine)


def _check_secret(name: ClusterName, client: KubeClient, choices: Choices, tell: Tell) -> None:
    secret = choices.store_secret
    if secret is None:
        return
    try:
        found = client.find("secrets", secret, name.namespace)
    except RightMissing as exc:
        tell(f"note: whether Secret {secret!r} is there cannot be seen: {exc}")
        return
    if found is None:
        raise NotFound(
            f"Secret {secret!r} is not there in namespace {name.namespace!r}; make it: kubectl "
            f"-n {name.namespace} create secret generic {secret} --from-literal=NAME=VALUE"
        )


def _renew(
    name: ClusterName, client: KubeClient, cluster: Item, choices: Choices, tell: Tell
) -> None:
    """Change a cluster of ours to what is chosen, and to the code of this process.

    Its head would restart for more than limits: that waits while something is live on it.
    """
    head, before = choices.renewed_head(cluster), Settings.read(cluster)
    has_rayml = before.code is None if choices.has_rayml is None else choices.has_rayml
    bundle = None if has_rayml else _pack(head.image, choices, tell)
    code = bundle.code if bundle else None
    parts = [*rights(name, account_name(name)), *code_maps(name, bundle)]
    create_objects(client, name, parts, tell)

    def change(seen: Item) -> Item:
        before = Settings.read(seen)
        after = replace(choices.settings(before), code=code, version=metadata.version("rayml"))
        group = renewed_head(seen["spec"]["headGroupSpec"], head, after, before)
        spec = {"rayVersion": head.ray_version, "headGroupSpec": group}
        return {"metadata": {"annotations": _written(before, after)}, "spec": spec}

    def change_limits(seen: Item) -> Item:
        before = Settings.read(seen)
        chosen = choices.settings(before)
        after = replace(before, max_workers=chosen.max_workers, grace_s=chosen.grace_s)
        return {"metadata": {"annotations": _written(before, after)}}

    change_cluster(client, name, change_limits)
    if holds(client.ray_cluster(name), change(cluster)) and not _has_old_head(name, client):
        return
    if live := live_runs(name, client, cluster, only_ours=False):
        tell(
            f"the head goes on as it was, because {', '.join(live)} would end with it; say this "
            "again later"
        )
        return
    change_cluster(client, name, change)
    _restart_head(name, client, tell)


def _written(before: Settings, after: Settings) -> dict[str, str | None]:
    """Return settings as a merge patch of annotations: what is not set any more goes."""
    return {**dict.fromkeys(before.annotations()), **after.annotations()}


def _has_old_head(name: ClusterName, client: KubeClient) -> bool:
    cluster = client.ray_cluster(name)
    head = head_of(client.pods(name))
    return head is not None and _is_outdated(head, cluster)


def _restart_head(name: ClusterName, client: KubeClient, tell: Tell) -> None:
    """Let the operator make the head anew if it is not as the RayCluster says it is to be."""
    cluster = client.ray_cluster(name)
    head = head_of(client.pods(name))
    if head is None or not _is_outdated(head, cluster):
        return
    pod, uid = head["metadata"]["name"], head["metadata"]["uid"]
    client.delete("pods", pod, name.namespace, uid=uid)
    tell(f"restarting the head, pod {pod}")
    wait_until(
        lambda: all(one["metadata"]["uid"] != uid for one in client.pods(name)),
        f"the head's pod {pod}",
        "look at its events",
    )


def _is_outdated(head: Mapping[str, Any], cluster: Mapping[str, Any]) -> bool:
    """Tell whether a head's pod lacks something that the RayCluster says about it."""
    wanted = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    has, wants = head["spec"]["containers"][0], wanted["containers"][0]
    parts = [(has.get(part), wants.get(part)) for part in ("image", "env", "envFrom", "resources")]
    parts.append((head["spec"].get("volumes"), wanted.get("volumes")))
    return not all(_covers(there, one) for there, one in parts if one)


def _covers(has: object, wants: object) -> bool:
    """Tell whether all that is wanted is there; servers and operators add to what they are given.

    >>> _covers([{"a": 1, "b": 2}, 3], [{"a": 1}])
    True
    """
    if isinstance(wants, dict):
        there = has if isinstance(has, dict) else {}
        return all(_covers(there.get(key), value) for key, value in wants.items())
    if isinstance(wants, list):
        items = has if isinstance(has, list) else []
        return all(any(_covers(item, value) for item in items) for value in wants)
    return has == wants
