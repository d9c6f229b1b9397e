"""What names a cluster, and what does not."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.cluster.address import ClusterName
from rayml.errors import SpecError

NAMESPACES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,51}[a-z0-9])?\Z")


@given(NAMESPACES, NAMES)
def test_an_address_is_read_as_it_is_written(namespace: str, name: str) -> None:
    cluster = ClusterName.parse(f"kuberay://{namespace}/{name}")

    assert (cluster.namespace, cluster.name) == (namespace, name)
    assert ClusterName.parse(str(cluster)) == cluster
    assert len(cluster.head_service) <= 63


@given(st.text(max_size=80))
def test_any_other_text_is_a_spec_error(text: str) -> None:
    with suppress(SpecError):
        assert str(ClusterName.parse(text)) == text


@pytest.mark.parametrize(
    "address",
    [
        "ns/name",
        "kuberay://",
        "kuberay://ns",
        "kuberay://ns/",
        "kuberay:///n",
        "kuberay://a/b/c",
        "ray://h",
    ],
)
def test_an_address_without_namespace_or_name_says_the_form(address: str) -> None:
    with pytest.raises(SpecError, match="write kuberay://namespace/name"):
        ClusterName.parse(address)


def test_a_name_beyond_kuberays_53_characters_says_so() -> None:
    assert ClusterName("ns", "a" * 53).name == "a" * 53
    with pytest.raises(SpecError, match="has 54 characters and KubeRay takes 53"):
        ClusterName("ns", "a" * 54)


@pytest.mark.parametrize("name", ["1up", "Up", "a_b", "a.b", "a-", "-a", "é"])
def test_characters_that_kubernetes_refuses_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match="is not the name of a RayCluster"):
        ClusterName("ns", name)


@pytest.mark.parametrize("namespace", ["A", "a.b", "a-", "", "n" * 64])
def test_a_namespace_that_kubernetes_refuses_is_refused(namespace: str) -> None:
    with pytest.raises(SpecError, match="is not the name of a namespace"):
        ClusterName(namespace, "c")
