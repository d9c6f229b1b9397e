"""A way from this process to the Jobs API of a Ray cluster on Kubernetes.

From outside, the kube-apiserver passes requests on to the head. It wants kubeconfig's credentials,
Ray wants its token, and programs such as `ray job submit` know neither: the door, a forwarder on
this machine's loopback, adds both. Who uses it must show a random word, which only this process
has. Inside Kubernetes there is no door: the head is asked directly.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import urllib3

from rayml.cluster.address import ClusterName
from rayml.cluster.answers import RightMissing
from rayml.cluster.client import KubeClient
from rayml.cluster.forwarder import KEY_HEADER, Forwarder
from rayml.cluster.kubeconfig import IN_POD
from rayml.errors import ClusterUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD_PORT: Final = 8265
_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=30.0)
_doors: dict[tuple[int, str, ClusterName], Door] = {}
_lock: Final = threading.Lock()


@dataclass(frozen=True)
class Door:
    """Where a cluster's Jobs API is reached from this process.

    Attributes:
        address: Its URL, for any HTTP client and for Ray's `JobSubmissionClient`.
        headers: What each request, and each WebSocket, has to carry.
    """

    address: str
    headers: dict[str, str] = field(repr=False)

    def call(self, method: str, path: str, data: bytes = b"") -> bytes:
        """Return what the head's dashboard answers.

        Raises:
            ClusterUnreachable: Nothing, or no.
        """
        try:
            answer = urllib3.request(
                method, self.address + path,
                body=data, headers=self.headers, timeout=_TIMEOUT, retries=False,
            )  # fmt: skip
        except urllib3.exceptions.HTTPError as exc:
            raise ClusterUnreachable(
                f"the head at {self.address} does not answer: {exc}; see rayml cluster status"
            ) from exc
        if answer.status != 200:
            text = answer.data.decode(errors="replace").strip().partition("\n")[0]
            raise ClusterUnreachable(f"{text or f'the head answered {answer.status}'}")
        return answer.data


@dataclass(frozen=True)
class ClusterInfo:
    """What Ray's own clients take for an address: the fields are Ray's."""

    address: str
    cookies: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    headers: Mapping[str, Any] | None = None


def open_door(name: ClusterName, client: KubeClient) -> Door:
    """Return the way to a cluster's Jobs API; the same one as before if there is one.

    It is closed when the process ends.

    Raises:
        NotFound: The RayCluster, or its namespace, is not there.
        RightMissing: We may not read the Secret that holds Ray's token.
        ClusterUnreachable: The kube-apiserver does not answer.
    """
    key = (os.getpid(), client.credentials.identity, name)
    with _lock:
        if key not in _doors:
            _doors[key] = _make_door(name, client)
        return _doors[key]


def get_job_submission_client_cluster_info(
    address: str,
    *,
    cookies: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    headers: dict[str, Any] | None = None,
    **_: object,
) -> ClusterInfo:
    """Let Ray's own clients reach a cluster as `rayml://namespace/name`; Ray calls it.

    Args:
        address: What follows `rayml://`.
        cookies: Passed on.
        metadata: Of jobs, passed on.
        headers: Sent as well.

    Raises:
        SpecError: The address has another form.
        RaymlError: As `open_door`.
    """
    door = open_door(ClusterName.parse(f"kuberay://{address}"), KubeClient.connect())
    return ClusterInfo(door.address, cookies, metadata, {**(headers or {}), **door.headers})


def _make_door(name: ClusterName, client: KubeClient) -> Door:
    if client.context == IN_POD:  # with a kubeconfig it may be another Kubernetes
        token = _own_token(name) or client.ray_token(name)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Door(f"http://{name.head_service}.{name.namespace}:{_HEAD_PORT}", headers)
    token = _read_token(name, client)
    word = secrets.token_urlsafe(24)
    forwarder = Forwarder(client, name, word, token)
    forwarder.start()
    atexit.register(forwarder.close)
    return Door(forwarder.address, {KEY_HEADER: word})


def _own_token(name: ClusterName) -> str | None:
    """Return the token that the operator gives to pods of this very cluster."""
    own = (os.environ.get("RAY_CLUSTER_NAMESPACE"), os.environ.get("RAY_CLUSTER_NAME"))
    return os.environ.get("RAY_AUTH_TOKEN") if own == (name.namespace, name.name) else None


def _read_token(name: ClusterName, client: KubeClient) -> str | None:
    """Return Ray's token; who may not read it can set it, as Ray's own tools take it."""
    try:
        return client.ray_token(name)
    except RightMissing:
        if "RAY_AUTH_TOKEN" not in os.environ:
            raise
        return os.environ["RAY_AUTH_TOKEN"]
