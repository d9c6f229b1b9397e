"""The objects of a cluster of ours."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayml.cluster.address import ClusterName
from rayml.cluster.bundle import PART_BYTES, Bundle
from rayml.cluster.choices import Choices, ray_of
from rayml.cluster.manifest import Head, manifest, own_image, renewed_head, to_yaml
from rayml.cluster.settings import Settings
from rayml.cluster.shape import Base
from rayml.errors import SpecError
from tests.unit.crd import check_against_crd

CRD = Path(__file__).parents[3] / "shared" / "kuberay" / "ray.io_rayclusters.yaml"
NAME = ClusterName("team", "shared")
HEAD = Head(image="rayproject/ray:2.60.0-py311", ray_version="2.60.0")
SETTINGS = Settings(store="s3://runs/team", store_secret="store", max_workers=6)
BUNDLE = Bundle.of(bytes(range(256)) * (PART_BYTES // 200))


def make(
    head: Head = HEAD, settings: Settings = SETTINGS, bundle: Bundle | None = BUNDLE
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for item in manifest(NAME, head, settings, bundle):
        found.setdefault(item["kind"], []).append(item)
    return found


def head_of(items: dict[str, list[Any]]) -> Any:
    return items["RayCluster"][0]["spec"]["headGroupSpec"]["template"]["spec"]


def test_what_others_need_is_made_before_them() -> None:
    kinds = list(dict.fromkeys(item["kind"] for item in manifest(NAME, HEAD, SETTINGS, BUNDLE)))

    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "RayCluster"]


def test_all_of_it_is_in_the_clusters_namespace_and_says_whose_it_is() -> None:
    for items in make().values():
        for item in items:
            assert item["metadata"]["namespace"] == "team"
            assert item["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "rayml"


def test_the_head_may_change_its_own_cluster_and_no_other() -> None:
    (role,) = make()["Role"]
    rules = {tuple(rule["resources"]): rule for rule in role["rules"]}

    assert rules["rayclusters",]["resourceNames"] == ["shared"]
    assert rules["rayclusters",]["verbs"] == ["get", "patch"]
    assert rules["pods",]["verbs"] == ["list", "patch"]
    verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "patch"}
    assert not [rule for rule in role["rules"] if "secrets" in rule["resources"]]


def test_the_head_runs_as_the_account_that_has_the_role() -> None:
    items = make()
    (binding,) = items["RoleBinding"]

    assert binding["roleRef"]["name"] == items["Role"][0]["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject["name"] == items["ServiceAccount"][0]["metadata"]["name"]
    assert subject["name"] == head_of(items)["serviceAccountName"]


def test_the_code_comes_out_as_it_went_in() -> None:
    parts = [b64decode(*item["binaryData"].values()) for item in make()["ConfigMap"]]

    assert b"".join(parts) == BUNDLE.data
    assert all(item["immutable"] for item in make()["ConfigMap"])


def test_the_volume_shows_the_config_maps_that_are_made() -> None:
    items = make()
    (volume,) = head_of(items)["volumes"]
    mounted = [source["configMap"]["name"] for source in volume["projected"]["sources"]]

    assert mounted == [item["metadata"]["name"] for item in items["ConfigMap"]]


def test_an_image_that_has_rayml_gets_no_code() -> None:
    items = make(bundle=None)

    assert "ConfigMap" not in items
    assert "volumes" not in head_of(items)
    assert head_of(items)["containers"][0]["command"] == ["(python3 -m rayml.wake &)"]


def test_the_head_takes_no_work_and_asks_for_ray_s_token() -> None:
    spec = make()["RayCluster"][0]["spec"]

    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == "2.60.0"


def test_a_new_worker_group_restarts_nothing() -> None:
    assert "upgradeStrategy" not in make()["RayCluster"][0]["spec"]


def test_credentials_come_by_reference_alone() -> None:
    container = head_of(make())["containers"][0]

    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert {"name": "RAYML_STORE", "value": "s3://runs/team"} in container["env"]
    assert "AWS" not in str(container["env"])


def test_what_is_set_can_be_read_back() -> None:
    (cluster,) = make()["RayCluster"]
    found = Settings.read(cluster)

    assert (found.store, found.max_workers, found.managed) == ("s3://runs/team", 6, "up")
    assert found.code == BUNDLE.code
    assert Base.read(cluster).image == HEAD.image


@pytest.mark.skipif(not CRD.exists(), reason="KubeRay's CRD is not beside the project")
@pytest.mark.parametrize("bundle", [BUNDLE, None])
@pytest.mark.parametrize("settings", [SETTINGS, Settings()])
@pytest.mark.parametrize(
    "head", [HEAD, Head(image="i", ray_version="2.60.0", cpus=0.5, node_selector={"a": "b"})]
)
def test_kuberay_s_own_schema_takes_it(
    head: Head, settings: Settings, bundle: Bundle | None
) -> None:
    check_against_crd(CRD, make(head, settings, bundle)["RayCluster"][0])


def test_yaml_reads_back_as_the_same_objects() -> None:
    items = manifest(NAME, HEAD, SETTINGS, BUNDLE)

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    assert list(yaml.load_all(to_yaml(items), loader)) == items


class TestRenewed:
    def test_what_others_have_added_to_a_head_stays(self) -> None:
        group = make()["RayCluster"][0]["spec"]["headGroupSpec"]
        container = group["template"]["spec"]["containers"][0]
        container["env"].append({"name": "HTTPS_PROXY", "value": "http://proxy"})
        container["envFrom"].append({"secretRef": {"name": "theirs"}})
        group["template"]["spec"]["volumes"].append({"name": "cache", "emptyDir": {}})
        group["template"]["spec"]["tolerations"] = [{"key": "heads"}]
        other = Settings(store="s3://other", store_secret="other", code=Bundle.of(b"x").code)

        new = renewed_head(group, HEAD, other, SETTINGS)["template"]["spec"]

        env = {item["name"]: item["value"] for item in new["containers"][0]["env"]}
        assert env.pop("RAY_worker_niceness") == "0"
        assert env == {"HTTPS_PROXY": "http://proxy", "RAYML_STORE": "s3://other"}
        secrets = [item["secretRef"]["name"] for item in new["containers"][0]["envFrom"]]
        assert secrets == ["theirs", "other"]
        assert [volume["name"] for volume in new["volumes"]] == ["cache", "rayml-code"]
        assert new["tolerations"] == [{"key": "heads"}]

    def test_the_same_again_is_the_same(self) -> None:
        (cluster,) = make()["RayCluster"]
        group, settings = cluster["spec"]["headGroupSpec"], Settings.read(cluster)

        assert renewed_head(group, HEAD, settings, settings) == group

    def test_resources_change_only_where_something_is_said(self) -> None:
        group = make(Head(image="a", ray_version="1", cpus=2, memory="3Gi"))["RayCluster"][0]
        head = Head(image="b", ray_version="1", memory="6Gi")
        new = renewed_head(group["spec"]["headGroupSpec"], head, SETTINGS, SETTINGS)

        (container,) = new["template"]["spec"]["containers"]
        assert container["image"] == "b"
        assert container["resources"]["requests"] == {"cpu": "2", "memory": "6Gi"}
        assert container["resources"]["limits"] == {"memory": "6Gi"}

    def test_the_group_that_was_given_is_left_alone(self) -> None:
        group = make()["RayCluster"][0]["spec"]["headGroupSpec"]
        before = yaml.safe_dump(group)
        renewed_head(group, Head(image="b", ray_version="1"), Settings(), SETTINGS)

        assert yaml.safe_dump(group) == before


class TestChoices:
    def test_a_new_cluster_has_the_ray_and_python_of_this_process(self) -> None:
        assert Choices().new_head().image == own_image()
        assert own_image().startswith("rayproject/ray:")

    @pytest.mark.parametrize(
        ("image", "version"),
        [
            ("rayproject/ray:2.59.1-py311", "2.59.1"),
            ("rayproject/ray:2.61.0rc1-py311", "2.61.0rc1"),
            ("registry:5000/ray:2.58.0", "2.58.0"),
        ],
    )
    def test_a_tag_says_which_ray_is_in_an_image(self, image: str, version: str) -> None:
        assert ray_of(image) == version
        assert Choices(image=image).new_head().ray_version == version

    def test_what_is_not_chosen_stays(self) -> None:
        assert Choices(max_workers=2).settings(SETTINGS).store == SETTINGS.store
        (cluster,) = make(Head(image="own:1", ray_version="2.58.0"))["RayCluster"]

        assert Choices().renewed_head(cluster).ray_version == "2.58.0"

    @pytest.mark.parametrize("store", ["/srv/runs", "runs", "file:///srv/runs"])
    def test_a_store_that_pods_cannot_see_is_refused(self, store: str) -> None:
        with pytest.raises(SpecError, match="pods cannot see"):
            Choices(store=store)

    @pytest.mark.parametrize(
        "choice", [{"max_workers": -1}, {"grace_s": float("inf")}, {"grace_s": float("nan")}]
    )
    def test_a_number_that_is_none_is_refused(self, choice: dict[str, Any]) -> None:
        with pytest.raises(SpecError, match="is no amount"):
            Choices(**choice)

    @pytest.mark.parametrize("choice", [{"head_cpus": 0}, {"head_memory": "much"}])
    def test_a_head_of_no_size_is_refused(self, choice: dict[str, Any]) -> None:
        with pytest.raises(SpecError, match=r"is not an amount|is not a quantity"):
            Choices(**choice).new_head()
