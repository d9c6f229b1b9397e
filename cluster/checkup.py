"""Whether all that jobs on a RayCluster need is there, look by look."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from rayml.cluster.address import ClusterName
from rayml.cluster.answers import RightMissing
from rayml.cluster.client import KubeClient
from rayml.cluster.door import open_door
from rayml.cluster.readiness import head_problem
from rayml.cluster.settings import Settings, check_resizable
from rayml.cluster.versions import check_versions
from rayml.errors import ClusterError, NotFound, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a job's submission does, as in a Role: a verb, and on what.
_RIGHTS: Final = (
    ("get", "rayclusters"),
    ("get", "secrets"),
    ("list", "resourcequotas"),
    ("get", "services/proxy"),
    ("create", "services/proxy"),
    ("update", "services/proxy"),
)

Look = Callable[[], str]


def looks(address: str, context: str | None = None) -> Iterator[tuple[str, Look]]:
    """Yield names with what looks at each of them: text if it is well, an error if it is not.

    They build on each other: after one that failed, the others have nothing to say.

    Args:
        address: `kuberay://namespace/name`.
        context: Of the kubeconfig; None takes what kubectl would take.

    Raises:
        RaymlError: The address, or the kubeconfig, is wrong.
    """
    name, client = ClusterName.parse(address), KubeClient.connect(context)
    found: dict[str, Callable[[ClusterName, KubeClient], str]] = {
        "context": _look_context,
        "rights": _look_rights,
        "raycluster": _look_cluster,
        "secret": _look_secret,
        "head": _look_head,
        "versions": _look_versions,
    }
    for check, look in found.items():
        yield check, partial(look, name, client)


def _look_context(_: ClusterName, client: KubeClient) -> str:
    version = client.server_version()
    return f"{client.context} at {client.credentials.server}, Kubernetes {version}"


def _look_rights(name: ClusterName, client: KubeClient) -> str:
    missing = [
        f"{verb} {resource}"
        for verb, resource in _RIGHTS
        if not client.can_i(verb, resource, name.namespace)
    ]
    if missing:
        raise RightMissing(
            f"context {client.context!r} may not {', '.join(missing)} in namespace "
            f"{name.namespace!r}; ask for a Role with these rights"
        )
    return f"all {len(_RIGHTS)} that jobs need in namespace {name.namespace}"


def _look_cluster(name: ClusterName, client: KubeClient) -> str:
    cluster = client.ray_cluster(name)
    check_resizable(cluster)
    managed = Settings.read(cluster).managed
    if managed is None:
        raise SpecError(
            f"{name} is there and not set up for rayml; run rayml cluster up {name} --adopt"
        )
    how = "made" if managed == "up" else "adopted"
    return f"{name} is there, {how} by rayml cluster up, Ray {cluster['spec'].get('rayVersion')}"


def _look_secret(name: ClusterName, client: KubeClient) -> str:
    secret = Settings.read(client.ray_cluster(name)).store_secret
    if secret is None:
        return "none is named for the store"
    if client.find("secrets", secret, name.namespace) is None:
        raise NotFound(
            f"Secret {secret!r} with the store's credentials is not there; make it in namespace "
            f"{name.namespace!r}"
        )
    return f"{secret} is there for the store"


def _look_head(name: ClusterName, client: KubeClient) -> str:
    cluster = client.ray_cluster(name)
    pods, events = client.pods(name), client.events(name.namespace)
    if problem := head_problem(cluster, pods, events):
        raise ClusterError(f"{name} takes no jobs: {problem}; mend that")
    return "its pod is ready"


def _look_versions(name: ClusterName, client: KubeClient) -> str:
    settings = Settings.read(client.ray_cluster(name))
    return f"{check_versions(name, settings, open_door(name, client))} on both sides"
