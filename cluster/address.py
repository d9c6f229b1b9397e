"""What a cluster is called: `kuberay://namespace/name`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rayml.errors import SpecError

SCHEME = "kuberay://"
# KubeRay makes names of pods and services of it, which Kubernetes ends at 63 characters.
MAX_NAME = 53
_MAX_NAMESPACE = 63
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class ClusterName:
    """A RayCluster's place in Kubernetes.

    Raises:
        SpecError: A part of it is not a name that Kubernetes and KubeRay take.
    """

    namespace: str
    name: str

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace) or len(self.namespace) > _MAX_NAMESPACE:
            raise SpecError(
                f"{self.namespace!r} is not the name of a namespace; write at most "
                f"{_MAX_NAMESPACE} lower-case letters, digits and dashes"
            )
        if len(self.name) > MAX_NAME:
            raise SpecError(
                f"the RayCluster's name {self.name!r} has {len(self.name)} characters and KubeRay "
                f"takes {MAX_NAME}; choose a shorter one"
            )
        if not _NAME.fullmatch(self.name):
            raise SpecError(
                f"{self.name!r} is not the name of a RayCluster; write lower-case letters, digits "
                "and dashes, a letter first"
            )

    @classmethod
    def parse(cls, address: str) -> ClusterName:
        """Return the name that an address holds.

        >>> ClusterName.parse("kuberay://team/shared")
        ClusterName(namespace='team', name='shared')

        Raises:
            SpecError: It is not `kuberay://namespace/name`.
        """
        parts = address.removeprefix(SCHEME).split("/")
        if not address.startswith(SCHEME) or len(parts) != 2 or not all(parts):
            raise SpecError(
                f"cluster={address!r} does not name a RayCluster; write {SCHEME}namespace/name"
            )
        return cls(*parts)

    def __str__(self) -> str:
        return f"{SCHEME}{self.namespace}/{self.name}"

    @property
    def head_service(self) -> str:
        """The name of the service in front of the head, unless the RayCluster names another."""
        return f"{self.name}-head-svc"
