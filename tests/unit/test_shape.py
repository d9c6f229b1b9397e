"""A job's resources as a worker group: what the pod asks for, and how it is found again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rayml.cluster.code import Code
from rayml.cluster.quantity import cpu_quantity, memory_quantity, parse_quantity
from rayml.cluster.settings import Settings
from rayml.cluster.shape import Base, Shape, shape_key, shape_of
from rayml.config import Resources
from rayml.errors import SpecError
from tests.unit.crd import check_against_crd

HEAD_IMAGE = "rayproject/ray:2.60.0"
SETTINGS = Settings(store="s3://b/r", store_secret="store", code=Code("0123456789ab", 2))
BASE = Base(image=HEAD_IMAGE, pull_secrets=("registry",), ray_version="2.60.0", settings=SETTINGS)
CRD = Path(__file__).parents[3] / "shared" / "kuberay" / "ray.io_rayclusters.yaml"

LABELS = st.dictionaries(st.sampled_from(["a", "team", "x.io/y"]), st.sampled_from(["", "v"]))
TOLERATIONS = st.lists(
    st.sampled_from(
        [
            {"operator": "Exists"},
            {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
            {"key": "b", "value": "c", "effect": "NoSchedule"},
        ]
    ),
    max_size=3,
)
VOLUMES: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.sampled_from(
        [
            {"name": "a", "mount_path": "/a", "emptyDir": {}},
            {"name": "b", "mount_path": "/b", "sub_path": "x", "hostPath": {"path": "/b"}},
            {"name": "c", "mount_path": "/c", "secret": {"secretName": "c"}, "read_only": True},
            {"name": "d", "mount_path": "/d", "persistentVolumeClaim": {"claimName": "d"}},
            {"name": "e", "mount_path": "/e", "nfs": {"server": "h", "path": "/"}},
            {"name": "f", "mount_path": "/f", "configMap": {"name": "f"}},
            {"name": "g", "mount_path": "/g", "csi": {"driver": "g.csi.io"}},
        ]
    ),
    max_size=4,
    unique_by=lambda volume: str(volume["name"]),
)
TERM = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
OTHER = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
AFFINITIES = st.sampled_from(
    [
        None,
        {},
        {"podAntiAffinity": {REQUIRED: [{"topologyKey": "zone", "labelSelector": {}}]}},
        {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [TERM, OTHER]}}},
    ]
)
RESOURCES = st.builds(
    Resources,
    cpus=st.sampled_from([0, 0.1, 0.5, 1, 1.5, 4, 96]),
    memory=st.none() | st.sampled_from(["512Mi", "8Gi", 1_000_000_000]),
    gpus=st.sampled_from([0, 1, 8]),
    gpu_type=st.sampled_from([None, "nvidia-l4"]),
    cpus_limit=st.none() | st.just(100),
    memory_limit=st.none() | st.just("16Gi"),
    node_selector=st.none() | LABELS,
    tolerations=st.none() | TOLERATIONS,
    affinity=AFFINITIES,
    priority_class=st.none() | st.just("high"),
    spot=st.sampled_from([None, True, False]),
    volumes=st.none() | VOLUMES,
    service_account=st.none() | st.just("trainer"),
    labels=st.none() | LABELS,
)


def shape(base: Base = BASE, image: str | None = None, **resources: Any) -> Shape:
    return shape_of(Resources(**resources), image, base)


def pod(**resources: Any) -> Any:
    return shape(**resources).template["spec"]


def container(**resources: Any) -> Any:
    return pod(**resources)["containers"][0]


def node_terms(**resources: Any) -> Any:
    required = pod(**resources)["affinity"]["nodeAffinity"][REQUIRED]
    return required["nodeSelectorTerms"]


class TestKey:
    @given(RESOURCES, st.integers(1, 100))
    def test_the_number_of_workers_is_no_part_of_a_shape(
        self, resources: Resources, workers: int
    ) -> None:
        more = Resources(**{**vars(resources), "workers": workers})

        assert shape_of(more, None, BASE) == shape_of(resources, None, BASE)

    @given(RESOURCES)
    def test_the_order_in_which_things_are_listed_makes_no_difference(
        self, resources: Resources
    ) -> None:
        def turned(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: turned(value[key]) for key in reversed(value)}
            return value

        other = {name: turned(value) for name, value in vars(resources).items()}
        for name in ("tolerations", "volumes"):
            other[name] = other[name] and [turned(item) for item in reversed(other[name])]

        assert shape_of(Resources(**other), None, BASE) == shape_of(resources, None, BASE)

    def test_equal_amounts_make_equal_shapes(self) -> None:
        assert shape(memory="8Gi").key == shape(memory=8 * 2**30).key == shape(memory="8192Mi").key
        assert shape(cpus=2).key == shape(cpus=2.0).key
        assert shape(image=HEAD_IMAGE, cpus=2).template["spec"] == shape(cpus=2).template["spec"]

    @pytest.mark.parametrize(
        "other",
        [
            {"cpus": 2},
            {"memory": "1Gi"},
            {"gpus": 1},
            {"gpu_type": "nvidia-l4"},
            {"cpus_limit": 2},
            {"memory_limit": "1Gi"},
            {"node_selector": {"a": "b"}},
            {"tolerations": [{"operator": "Exists"}]},
            {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [TERM]}}}},
            {"priority_class": "high"},
            {"spot": True},
            {"spot": False},
            {"volumes": [{"name": "a", "mount_path": "/a", "emptyDir": {}}]},
            {"service_account": "trainer"},
            {"labels": {"team": "a"}},
            {"image": "other:1"},
            {"base": Base(image=HEAD_IMAGE)},
        ],
        ids=str,
    )
    def test_whatever_changes_the_pod_changes_the_key(self, other: dict[str, Any]) -> None:
        assert shape(**other).key != shape().key

    def test_a_shape_keeps_its_key_for_ever(self) -> None:
        # A new key here means that a new rayml finds none of the warm workers of the last one.
        plain = shape_of(
            Resources(cpus=2, memory="4Gi"), None, Base(image="rayproject/ray:2.60.0")
        )

        assert plain.key == "6a48eb4a16"
        assert plain.group == "rayml-6a48eb4a16"

    def test_a_group_is_told_from_others_by_its_name(self) -> None:
        assert shape_key(shape().group) == shape().key
        for name in ("workers", "rayml-", "rayml-gpu", "rayml-0123456789a", "rayml-012345678G"):
            assert shape_key(name) is None


class TestRay:
    @pytest.mark.parametrize(("cpus", "counted"), [(0, 0), (0.1, 1), (1, 1), (1.5, 2), (4, 4)])
    def test_ray_counts_whole_cpus_rounded_up(self, cpus: float, counted: int) -> None:
        made = shape(cpus=cpus)

        # KubeRay counts CPUs from here: without it, none would be all of the node's.
        assert made.group_spec(1)["resources"] == {"CPU": str(counted), "rayml_worker": "1"}
        assert made.bundle().get("CPU", 0) == counted

    def test_a_bundle_takes_the_whole_of_one_worker(self) -> None:
        made = shape(cpus=0, gpus=2)

        assert made.bundle() == {"GPU": 2, "rayml_worker": 1}
        assert made.group_spec(1)["resources"] == {"CPU": "0", "GPU": "2", "rayml_worker": "1"}
        assert made.selector() == made.group_spec(1)["labels"] == {"rayml.io/shape": made.key}


class TestPod:
    def test_what_is_asked_for_is_requested(self) -> None:
        resources = container(cpus=0.5, memory="8Gi", gpus=1, cpus_limit=2, memory_limit="16Gi")

        assert resources["resources"] == {
            "requests": {"cpu": "500m", "memory": "8Gi", "nvidia.com/gpu": "1"},
            "limits": {"cpu": "2", "memory": "16Gi", "nvidia.com/gpu": "1"},
        }

    def test_memory_is_a_limit_and_cpus_are_not(self) -> None:
        amounts = container(cpus=2, memory="8Gi")["resources"]

        assert amounts["limits"] == {"memory": "8Gi"}

    def test_no_cpu_is_requested_in_so_many_words(self) -> None:
        # Kubernetes requests the limit where no request is written.
        assert container(cpus=0, cpus_limit=1)["resources"]["requests"] == {"cpu": "0"}

    def test_a_gpu_of_another_maker_is_a_resource_with_a_slash(self) -> None:
        assert container(gpus=2, gpu_type="amd.com/gpu")["resources"]["limits"] == {
            "amd.com/gpu": "2"
        }
        assert "affinity" not in pod(gpus=2, gpu_type="amd.com/gpu")

    def test_a_kind_of_gpu_is_looked_for_under_each_label_that_could_name_it(self) -> None:
        terms = node_terms(gpus=1, gpu_type="nvidia-l4")

        keys = {term["matchExpressions"][0]["key"] for term in terms}
        assert {"nvidia.com/gpu.product", "cloud.google.com/gke-accelerator"} < keys
        assert all(t["matchExpressions"][0]["values"] == ["nvidia-l4"] for t in terms)

    def test_gpu_workers_tolerate_the_taint_of_gpu_nodes(self) -> None:
        taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}

        assert pod(gpus=1)["tolerations"] == [taint]
        assert "tolerations" not in pod()

    def test_a_shared_gpu_is_refused(self) -> None:
        with pytest.raises(SpecError, match=r"gpus=0\.5 is no whole number, and a pod shares no"):
            shape(gpus=0.5)

    @pytest.mark.parametrize("kind", ["NVIDIA A100", "a b/c", "x" * 64])
    def test_a_kind_of_gpu_that_no_node_can_have_is_refused(self, kind: str) -> None:
        with pytest.raises(SpecError, match=r"gpu_type="):
            shape(gpus=1, gpu_type=kind)

    def test_a_resource_without_an_amount_is_refused(self) -> None:
        with pytest.raises(SpecError, match="names no resource to ask for"):
            shape(gpus=0, gpu_type="amd.com/gpu")

    def test_spot_nodes_are_found_on_any_cloud_and_tolerated(self) -> None:
        terms, tolerated = node_terms(spot=True), pod(spot=True)["tolerations"]

        found = {(e["key"], *e["values"]) for t in terms for e in t["matchExpressions"]}
        assert ("karpenter.sh/capacity-type", "spot") in found
        assert ("eks.amazonaws.com/capacityType", "SPOT") in found
        assert all(len(term["matchExpressions"]) == 1 for term in terms)
        assert {t["key"] for t in tolerated} == {
            "cloud.google.com/gke-spot",
            "kubernetes.azure.com/scalesetpriority",
        }

    def test_no_spot_means_none_of_any_cloud(self) -> None:
        (term,) = node_terms(spot=False)

        assert len(term["matchExpressions"]) == 4
        assert {e["operator"] for e in term["matchExpressions"]} == {"NotIn"}

    def test_the_users_affinity_holds_besides_whatever_else_is_required(self) -> None:
        affinity = {
            "nodeAffinity": {
                REQUIRED: {"nodeSelectorTerms": [TERM, OTHER]},
                "preferredDuringSchedulingIgnoredDuringExecution": [],
            },
            "podAffinity": {REQUIRED: [{"topologyKey": "zone"}]},
        }
        terms = node_terms(affinity=affinity, spot=True, gpus=1, gpu_type="a100")

        assert len(terms) == 2 * 4 * 4
        for term in terms:
            keys = {e["key"] for e in term["matchExpressions"]}
            assert "zone" in keys or term["matchFields"] == OTHER["matchFields"]
            assert keys & {"karpenter.sh/capacity-type", "eks.amazonaws.com/capacityType"} or (
                keys & {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"}
            )
            assert any("gpu" in key or "accelerator" in key for key in keys)
        assert pod(affinity=affinity)["affinity"]["podAffinity"] == affinity["podAffinity"]

    def test_volumes_are_mounted_beside_the_code(self) -> None:
        claim = {"persistentVolumeClaim": {"claimName": "c"}}
        made = pod(volumes=[{"name": "d", "mount_path": "/d", "read_only": True, **claim}])

        assert [v["name"] for v in made["volumes"]] == ["d", "rayml-code"]
        assert made["volumes"][0] == {"name": "d", **claim}
        assert made["containers"][0]["volumeMounts"][0] == {
            "name": "d",
            "mountPath": "/d",
            "readOnly": True,
        }

    def test_the_cluster_gives_image_store_code_and_secrets(self) -> None:
        made = pod()
        (ray,) = made["containers"]

        assert ray["image"] == HEAD_IMAGE
        assert ray["env"] == [{"name": "RAYML_STORE", "value": "s3://b/r"}]
        assert ray["envFrom"] == [{"secretRef": {"name": "store"}}]
        assert "PYTHONPATH" in ray["command"][0]
        assert made["imagePullSecrets"] == [{"name": "registry"}]

    def test_an_image_that_has_rayml_needs_no_code(self) -> None:
        made = shape(base=Base(image=HEAD_IMAGE)).template["spec"]

        assert "volumes" not in made
        assert "command" not in made["containers"][0]

    def test_a_jobs_own_image_is_used_and_named(self) -> None:
        made = shape(image="team/horovod:3", gpus=1)

        assert made.template["spec"]["containers"][0]["image"] == "team/horovod:3"
        assert made.words == "1 CPU, 1 GPU, image team/horovod:3"
        assert made.template["metadata"]["annotations"] == {"rayml.io/shape": made.words}

    def test_a_worker_that_has_ended_stays_ended(self) -> None:
        assert pod()["restartPolicy"] == "Never"

    def test_a_worker_is_not_asked_whether_it_is_ready_while_its_ray_starts(self) -> None:
        assert container()["readinessProbe"]["initialDelaySeconds"] == 5

    def test_what_a_user_changes_later_changes_no_shape(self) -> None:
        selector = {"a": "b"}
        resources = Resources(node_selector=selector)
        before = shape_of(resources, None, BASE)
        selector["a"] = "c"

        assert shape_of(resources, None, BASE) == before


class TestBase:
    def test_it_is_read_from_the_head(self) -> None:
        cluster = {
            "metadata": {"name": "c", "annotations": SETTINGS.annotations()},
            "spec": {
                "rayVersion": "2.60.0",
                "enableInTreeAutoscaling": True,
                "headGroupSpec": {
                    "template": {
                        "spec": {
                            "containers": [{"image": HEAD_IMAGE, "imagePullPolicy": "Always"}],
                            "imagePullSecrets": [{"name": "registry"}],
                        }
                    }
                },
            },
        }
        base = Base.read(cluster)

        assert (base.image, base.pull_policy, base.is_autoscaling) == (HEAD_IMAGE, "Always", True)
        assert (base.pull_secrets, base.ray_version) == (("registry",), "2.60.0")
        assert base.settings == SETTINGS

    def test_a_head_without_an_image_is_named(self) -> None:
        with pytest.raises(SpecError, match="the head of RayCluster 'c' has no image"):
            Base.read({"metadata": {"name": "c"}, "spec": {}})


needs_crd = pytest.mark.skipif(not CRD.exists(), reason="KubeRay's CRD is not beside the project")


@needs_crd
@settings(deadline=None)  # the first example reads the CRD
@given(
    RESOURCES, st.sampled_from([None, "team/image:1"]), st.sampled_from([BASE, Base(image="i")])
)
def test_every_worker_group_is_one_that_kuberay_takes(
    resources: Resources, image: str | None, base: Base
) -> None:
    group = shape_of(resources, image, base).group_spec(3)

    check_against_crd(CRD, {"spec": {"headGroupSpec": None, "workerGroupSpecs": [group]}})
    assert yaml.safe_load(yaml.safe_dump(group)) == json.loads(json.dumps(group)) == group


@needs_crd
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"replica": 1}, "has the unknown field replica"),
        ({"replicas": "1"}, "is '1' and no integer"),
        ({"template": {"spec": {"tolerations": []}}}, "lacks containers"),
    ],
)
def test_a_worker_group_that_kuberay_refuses_is_noticed(
    change: dict[str, Any], complaint: str
) -> None:
    group = shape().group_spec(3) | change

    with pytest.raises(AssertionError, match=complaint):
        check_against_crd(CRD, {"spec": {"workerGroupSpecs": [group], "headGroupSpec": None}})


class TestQuantities:
    @given(st.integers(1, 2**50))
    def test_memory_is_exact(self, size: int) -> None:
        assert parse_quantity(memory_quantity(size)) == size

    @given(st.floats(0, 1000))
    def test_cpus_are_rounded_up_to_a_thousandth(self, cpus: float) -> None:
        assert cpus - 1e-6 <= parse_quantity(cpu_quantity(cpus)) < cpus + 0.00101

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("4", 4),
            ("100m", 0.1),
            ("15Gi", 15 * 2**30),
            ("1e3", 1000),
            ("2E", 2e18),
            (3, 3),
            (".5", 0.5),
        ],
    )
    def test_kubernetes_quantities_are_read(self, text: str | int, value: float) -> None:
        assert math.isclose(parse_quantity(text), value)

    @pytest.mark.parametrize("text", ["", "x", "1 Gi", "1gi", "Gi", "1.2.3"])
    def test_what_is_no_quantity_is_a_value_error(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not a quantity"):
            parse_quantity(text)
