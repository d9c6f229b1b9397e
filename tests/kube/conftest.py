"""Fixtures for tests on Kubernetes: a control plane of our own, or any cluster that is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tests.kube.access import Api, ApiError
from tests.kube.building import NotBuildable
from tests.kube.images import ray_image as stock_ray
from tests.kube.plane import Plane
from tests.kube.pods import IMAGE, Pods
from tests.kube.sandbox import SandboxError
from tests.s3 import s3_server

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

KUBECONFIG = "RAYML_TEST_KUBECONFIG"
GONE_S = 30.0


@dataclass(frozen=True)
class Cluster:
    """A cluster that is not ours: there is no more to it than its kubeconfig."""

    kubeconfig: Path
    api: Api


_PLANE = pytest.StashKey[Plane]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the control plane's parts printed last beside the test that failed."""
    report = yield
    plane = item.config.stash.get(_PLANE, None)
    if plane and report.failed:
        for name in ("operator", "kube-controller-manager", "kubelet"):
            report.sections.append((f"end of {name}'s log", plane.component_log(name)[-3000:]))
    return report


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Plane | Cluster]:
    """A Kubernetes cluster with KubeRay: the one that is named, else our own plane."""
    named = os.environ.get(KUBECONFIG)
    if named:
        api = Api(Path(named))
        yield Cluster(Path(named), api)
        api.close()
        return
    if lack := _lack():
        _skip(lack)
    try:
        plane = Plane()
        plane.__enter__()
    except (NotBuildable, SandboxError) as exc:
        _skip(str(exc))
    pytestconfig.stash[_PLANE] = plane
    try:
        _furnish(plane)
        yield plane
    finally:
        del pytestconfig.stash[_PLANE]
        plane.__exit__(None, None, None)


@pytest.fixture(scope="session")
def plane(cluster: Plane | Cluster) -> Plane:
    """Our own plane, with two nodes of 8 CPUs and 16 GiB and the stock Ray image."""
    if not isinstance(cluster, Plane):
        pytest.skip(f"{KUBECONFIG} names a cluster whose nodes and components are not ours")
    return cluster


@pytest.fixture
def namespace(cluster: Plane | Cluster) -> Iterator[str]:
    """A namespace of the test's own, whose pods are gone when the test is over."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    path = f"/api/v1/namespaces/{name}"
    cluster.api.wait(f"{path}/serviceaccounts/default", bool)
    yield name
    # The clusters first: their operator would make the pods anew.
    with suppress(ApiError):
        cluster.api.delete(f"/apis/ray.io/v1/namespaces/{name}/rayclusters")
    cluster.api.delete(path)
    _remove_pods(cluster.api, path)


@pytest.fixture
def pods(plane: Plane, namespace: str) -> Pods:
    """Small pods in the test's namespace, with the programs of this environment."""
    plane.add_image(IMAGE, Path(sys.executable).parent)
    return Pods(plane, namespace)


@pytest.fixture(scope="session")
def ray_image(cluster: Plane | Cluster) -> str:
    """The name of the stock Ray image, of the version of Ray that is installed here."""
    name, path = stock_ray()
    if isinstance(cluster, Plane):
        cluster.add_image(name, path)
    return name


@pytest.fixture(scope="module")
def environment(
    plane: Plane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The variables by which this process reaches Kubernetes, and it and pods the store."""
    with s3_server(tmp_path_factory.mktemp("s3"), plane.host_address) as s3:
        before = dict(os.environ)
        os.environ.update({**s3, "KUBECONFIG": str(plane.kubeconfig)})
        try:
            yield s3
        finally:
            os.environ.clear()
            os.environ.update(before)


def _lack() -> str | None:
    """What this machine lacks for a plane of our own."""
    if os.geteuid() != 0:
        return "a control plane with network namespaces needs root"
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "-nmpf", "true"], check=False).returncode:
        return "this machine lets nobody make network namespaces"
    return None


def _skip(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing may be skipped: {reason}")
    pytest.skip(reason)


def _furnish(plane: Plane) -> None:
    plane.add_node("node-1", cpu=8, memory="16Gi")
    plane.add_node("node-2", cpu=8, memory="16Gi")


def _remove_pods(api: Api, path: str) -> None:
    """Delete a namespace's pods without grace until none is left."""

    def none_left(pods: Any) -> bool:
        if pods is None or not pods["items"]:
            return True
        with suppress(ApiError):
            api.delete(f"{path}/pods", {"gracePeriodSeconds": 0})
        return False

    api.wait(f"{path}/pods", none_left, GONE_S)
