"""Pods of every shape are pods that a real apiserver takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from rayml.cluster.shape import shape_of
from tests.unit.test_shape import BASE, RESOURCES

if TYPE_CHECKING:
    from rayml.config import Resources


@pytest.fixture
def pods_path(cluster: Any, namespace: str) -> str:
    """Where pods are tried, in a namespace with what shapes of the tests name."""
    cluster.api.call(
        "POST",
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        json={"metadata": {"name": "high"}, "value": 1, "preemptionPolicy": "Never"},
    )
    path = f"/api/v1/namespaces/{namespace}"
    cluster.api.create(f"{path}/serviceaccounts", {"metadata": {"name": "trainer"}})
    return f"{path}/pods"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(resources=RESOURCES)
def test_the_pods_of_a_shape_are_taken(cluster: Any, pods_path: str, resources: Resources) -> None:
    template = shape_of(resources, None, BASE).template
    pod = {"metadata": template["metadata"] | {"name": "p"}, "spec": template["spec"]}
    strict = {"dryRun": "All", "fieldValidation": "Strict"}

    answer = cluster.api.call("POST", pods_path, params=strict, json=pod)
    assert answer.status_code == 201, answer.text
