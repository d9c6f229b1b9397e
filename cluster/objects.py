"""The objects of a cluster of ours, made, changed and deleted on a kube-apiserver."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from rayml.cluster.answers import Conflict, RightMissing
from rayml.cluster.manifest import CODE, KINDS, OWNER
from rayml.errors import ClusterError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rayml.cluster.address import ClusterName
    from rayml.cluster.client import KubeClient

    Item = dict[str, Any]
    Tell = Callable[[str], None]

_TRIES: Final = 10
_GONE_S: Final = 120.0
_POLL_S: Final = 0.3
_OWN_PARTS: Final = ("RoleBinding", "Role", "ServiceAccount")


def create_objects(
    client: KubeClient, name: ClusterName, items: Iterable[Item], tell: Tell
) -> None:
    """Make objects, in this order; those that are there and ours become as these.

    Raises:
        SpecError: One is there and not ours, or the server's schema refuses it.
        NotFound: The namespace is not there.
    """
    for item in items:
        kind, title = item["kind"], item["metadata"]["name"]
        try:
            client.create(KINDS[kind], item, name.namespace)
        except Conflict:
            _take_over(client, name, item)
        else:
            tell(f"made {kind} {title}")


def _take_over(client: KubeClient, name: ClusterName, item: Item) -> None:
    kind, title = item["kind"], item["metadata"]["name"]
    if kind == "ConfigMap":  # its name says what is in it, and it cannot be changed
        return
    there = client.get(KINDS[kind], title, name.namespace)
    if (there["metadata"].get("labels") or {}).get(OWNER) != name.name:
        raise SpecError(
            f"{kind} {title!r} in namespace {name.namespace!r} is somebody else's; rename it or "
            "delete it"
        )
    changes: Item = {part: item[part] for part in ("rules", "subjects") if part in item}
    if not holds(there, changes):
        client.patch(KINDS[kind], title, changes, name.namespace)


def change_cluster(client: KubeClient, name: ClusterName, change: Callable[[Item], Item]) -> None:
    """Change a RayCluster by the merge patch that its present state gives, if that is news.

    Raises:
        NotFound: It is gone.
        SpecError: The server's schema refuses it.
        ClusterError: Others changed it all the time.
    """
    for _ in range(_TRIES):
        seen = client.ray_cluster(name)
        wanted = change(seen)
        if holds(seen, wanted):
            return
        guard = {"resourceVersion": seen["metadata"]["resourceVersion"]}
        try:
            client.patch_ray_cluster(name, wanted | {"metadata": wanted["metadata"] | guard})
        except Conflict:  # the reservations, or the operator, were faster
            time.sleep(_POLL_S)
        else:
            return
    raise ClusterError(f"{name} changed {_TRIES} times while it was being changed; try again")


def holds(seen: object, wanted: object) -> bool:
    """Tell whether a merge patch would change nothing.

    >>> holds({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": None}})
    True
    >>> holds({"a": [1]}, {"a": [1, 2]})
    False
    """
    if not isinstance(wanted, dict):
        return seen == wanted
    found = seen if isinstance(seen, dict) else {}
    return all(holds(found.get(key), value) for key, value in wanted.items())


def delete_parts(client: KubeClient, name: ClusterName, tell: Tell) -> int:
    """Delete what `up` made around a RayCluster; return how much that was."""
    count = 0
    for kind in _OWN_PARTS:
        labels = f"{OWNER}={name.name}"
        for item in client.list(KINDS[kind], name.namespace, labels=labels):
            title, uid = item["metadata"]["name"], item["metadata"]["uid"]
            if client.delete(KINDS[kind], title, name.namespace, uid=uid):
                tell(f"deleted {kind} {title}")
                count += 1
    return count


def sweep_code(client: KubeClient, name: ClusterName) -> None:
    """Delete rayml's code from a namespace where no RayCluster and no pod mounts it.

    Who may not do that leaves it for somebody who may.
    """
    with suppress(RightMissing):
        maps = client.list("configmaps", name.namespace, labels=CODE)
        users = client.list("rayclusters", name.namespace) + client.list("pods", name.namespace)
        text = str(users)
        for item in maps:
            # RayClusters that could mount it have the digest in an annotation.
            if item["metadata"]["labels"][CODE] not in text:
                client.delete("configmaps", item["metadata"]["name"], name.namespace)


def wait_until(
    is_over: Callable[[], bool], what: str, way_out: str, wait_s: float = _GONE_S
) -> None:
    """Return once something is over.

    Raises:
        ClusterError: It was not in time.
    """
    deadline = time.monotonic() + wait_s
    while not is_over():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not go within {wait_s:g} s; {way_out}")
        time.sleep(_POLL_S)
