"""A job as it goes to another machine, checked before anything is sent; this loads no Ray."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rayml.cluster.address import SCHEME
from rayml.errors import SpecError
from rayml.store import check_store

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.kuberay import KubeCluster
    from rayml.spec import Spec
    from rayml.store import Store


@dataclass(frozen=True)
class Delivery:
    """A job as it goes to a cluster.

    Attributes:
        code_folder: The folder that it needs there, or None.
        cluster: Where it goes, if that is a RayCluster on Kubernetes.
        code: Digest of that folder if the store has it packed already.
    """

    spec: Spec
    payload: bytes
    secrets: dict[str, str]
    store: Store
    code_folder: Path | None
    cluster: KubeCluster | None = None
    code: str | None = None


def checked(job: Delivery, address: str) -> Delivery:
    """Return a job that can run on a cluster; on Kubernetes, its workers are on their way then.

    They are asked for here because they take seconds to start, as does all that follows.

    Raises:
        SpecError: The cluster cannot see the store or an input, or cannot be resized.
        CapacityError: It can never have what the job asks for.
        ClusterUnreachable: It does not answer, or refuses us.
        StoreError: The store does not.
    """
    _check_visible(job, address)
    check_store(job.store)
    if not address.startswith(SCHEME):
        return job
    from rayml.kuberay import KubeCluster  # noqa: PLC0415 - only for Kubernetes

    cluster = KubeCluster(address)
    spec = cluster.check(job.spec)
    cluster.announce(spec)
    return replace(job, spec=spec, cluster=cluster)


def _check_visible(job: Delivery, address: str) -> None:
    if not address.startswith(SCHEME) and _is_here(address):
        return
    if job.store.is_local:
        raise SpecError(
            f"store {job.store.uri} is a folder of this machine and the cluster at {address} "
            "cannot see it; use an s3:// gs:// or az:// store"
        )
    for record in job.spec.inputs.values():
        if record.kind == "path":
            raise SpecError(
                f"input {record.name!r} is the file {record.uri} of this machine and the cluster "
                f"at {address} cannot see it; put it on object storage, or log it as an artifact"
            )


def _is_here(address: str) -> bool:
    from rayml import _ray  # noqa: PLC0415 - it loads Ray

    return _ray.is_this_machine(urlsplit(address).hostname or "")
