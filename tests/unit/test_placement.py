"""What of a job's resources a pod takes as it is: checked where it is written."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.config import Resources
from rayml.errors import SpecError

CLAIM = {"persistentVolumeClaim": {"claimName": "c"}}
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = [
    "cpus_limit",
    "memory_limit",
    "node_selector",
    "tolerations",
    "affinity",
    "priority_class",
    "spot",
    "volumes",
    "service_account",
    "labels",
]
FULL: dict[str, Any] = {
    "cpus": 2,
    "memory": "4Gi",
    "cpus_limit": 4,
    "memory_limit": "8Gi",
    "node_selector": {"pool": "big", "x.io/zone": ""},
    "tolerations": [
        {"key": "dedicated", "value": "ml", "effect": "NoSchedule"},
        {"operator": "Exists"},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
            }
        }
    },
    "priority_class": "high.priority",
    "spot": True,
    "volumes": [
        {"name": "data", "mount_path": "/data", "read_only": True, "sub_path": "x", **CLAIM},
        {"name": "scratch", "mount_path": "/scratch", "emptyDir": {}},
    ],
    "service_account": "trainer",
    "labels": {"team": "a", "example.com/cost": "1"},
}


def refusal(**resources: Any) -> str:
    with pytest.raises(SpecError) as caught:
        Resources(**resources)
    return str(caught.value)


def volume(**fields: Any) -> dict[str, Any]:
    return {"name": "data", "mount_path": "/data", **CLAIM, **fields}


def test_all_that_a_pod_takes_is_kept_and_travels() -> None:
    resources = Resources(**FULL)

    assert msgspec.json.decode(msgspec.json.encode(resources), type=Resources) == resources
    assert pickle.loads(pickle.dumps(resources)) == resources
    assert eval(repr(resources)) == resources  # noqa: S307 - our own repr


def test_resources_show_only_what_was_asked_for() -> None:
    assert repr(Resources()) == "Resources()"
    assert repr(Resources(cpus=4, memory="8Gi", spot=False)) == (
        "Resources(cpus=4, memory='8Gi', spot=False)"
    )


def test_what_the_caller_changes_later_changes_nothing() -> None:
    mine = [volume()]
    resources = Resources(volumes=mine)
    mine[0]["mount_path"] = "/elsewhere"

    assert resources.volumes == [volume()]


@given(st.sampled_from(FIELDS), ANYTHING)
def test_any_value_is_taken_or_a_spec_error(field: str, value: Any) -> None:
    try:
        resources = Resources(**{field: value})
    except SpecError:
        return
    assert msgspec.json.decode(msgspec.json.encode(resources), type=Resources) == resources


def test_limits_are_at_least_what_is_asked_for() -> None:
    assert Resources(memory="4Gi").memory_limit_bytes == 4 * 2**30
    assert Resources(memory="4Gi", memory_limit="4Gi").memory_limit_bytes == 4 * 2**30
    assert Resources().memory_limit_bytes is None
    assert "cpus_limit=1 is less than a worker needs, cpus=2" in refusal(cpus=2, cpus_limit=1)
    assert "cpus_limit=0 is less" in refusal(cpus=0, cpus_limit=0)
    assert "memory_limit='1Gi' is less than memory='2Gi'" in refusal(
        memory="2Gi", memory_limit="1Gi"
    )
    assert "memory_limit='much' is not a quantity" in refusal(memory_limit="much")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"node_selector": ["a"]}, "node_selector=['a'] is not a dict of labels"),
        ({"node_selector": {"a b": "c"}}, "node_selector has the key 'a b'"),
        ({"node_selector": {"UP.io/a": "c"}}, "node_selector has the key 'UP.io/a'"),
        ({"node_selector": {"a": 1}}, "node_selector has 1 for 'a'"),
        ({"node_selector": {"a": "x" * 64}}, "which is not a label's value"),
        ({"labels": {"ray.io/cluster": "x"}}, "'ray.io/cluster', and ray.io labels are written"),
        ({"labels": {"rayml.io/run": "x"}}, "labels are written by the cluster"),
        ({"labels": {"app.kubernetes.io/name": "x"}}, "app.kubernetes.io labels are written"),
        ({"priority_class": "High"}, "priority_class='High' is not a name in Kubernetes"),
        ({"service_account": "a_b"}, "service_account='a_b' is not a name"),
        ({"service_account": "a" * 254}, "at most 253"),
        ({"spot": "yes"}, "spot='yes' is not an answer"),
        ({"tolerations": {"key": "a"}}, "is not a list of dicts"),
        ({"tolerations": [{"keys": "a"}]}, "tolerations[0] has the field 'keys'; did you mean"),
        ({"tolerations": [{"key": "a", "operator": "In"}]}, "has the operator 'In'"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "leave one of them"),
        ({"tolerations": [{"value": "b"}]}, "tolerations[0] has no key"),
        (
            {"tolerations": [{"key": "a", "effect": "NoRun"}]},
            "has the effect 'NoRun'; known: 'NoE",
        ),
        ({"tolerations": [{"key": "a", "effect": []}]}, "tolerations[0] has the effect []"),
        ({"tolerations": [{"key": "a", "operator": []}]}, "tolerations[0] has the operator []"),
        ({"affinity": "zone"}, "affinity='zone' is not a dict"),
        ({"affinity": {"nodeAffinty": {}}}, "did you mean 'nodeAffinity'?"),
        ({"affinity": {"podAffinity": []}}, "affinity['podAffinity']=[] is not a dict"),
    ],
    ids=str,
)
def test_what_kubernetes_would_refuse_is_refused_here(
    fields: dict[str, Any], complaint: str
) -> None:
    assert complaint in refusal(**fields)


@pytest.mark.parametrize("required", [{"a": 1}, {"nodeSelectorTerms": []}, [1], "x"], ids=str)
def test_required_nodes_need_terms_that_say_which(required: Any) -> None:
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}

    assert "without a list of nodeSelectorTerms" in refusal(affinity=affinity)


@pytest.mark.parametrize(
    ("volumes", "complaint"),
    [
        ([volume(name=None)], "volumes[0] has the name None"),
        ([volume(name="a.b")], "has the name 'a.b'"),
        ([volume(name="rayml-code")], "rayml- is rayml's; choose another"),
        ([volume(mount_path="data")], "write an absolute path"),
        ([volume(mountPath="/data")], "has the field 'mountPath'; did you mean 'mount_path'?"),
        ([volume(read_only="yes")], "has read_only='yes'"),
        ([volume(emptyDir={})], "needs one source and has emptyDir and persistentVolumeClaim"),
        ([{"name": "a", "mount_path": "/a"}], "needs one source and has none; give one of"),
        ([{"name": "a", "mount_path": "/a", "secret": "s"}], "has secret='s'; write a dict"),
        ([volume(), volume(mount_path="/b")], "two volumes have the name 'data'"),
        ([volume(), volume(name="b")], "two volumes have the mount_path '/data'"),
    ],
    ids=str,
)
def test_a_volume_that_no_pod_can_mount_is_refused(volumes: Any, complaint: str) -> None:
    assert complaint in refusal(volumes=volumes)


def test_what_no_json_can_say_is_refused() -> None:
    assert "volumes is no plain data" in refusal(
        volumes=[{"name": "a", "mount_path": "/a", "emptyDir": {"sizeLimit": {1}}}]
    )
