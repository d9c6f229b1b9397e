"""What is refused at submit, because the cluster can never hold it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rayml.cluster.fit import check_fit
from rayml.cluster.observation import Group
from rayml.cluster.settings import Settings
from rayml.errors import CapacityError, SpecError
from tests.unit.small_cluster import make_demand, make_shape


def node(name: str = "n", cpu: str = "4", memory: str = "16Gi", **more: Any) -> dict[str, Any]:
    labels, taints = more.pop("labels", {}), more.pop("taints", [])
    allocatable = {"cpu": cpu, "memory": memory, "pods": "110"} | more.pop("resources", {})
    return {
        "metadata": {"name": name, "labels": labels, **more},
        "spec": {"taints": taints},
        "status": {"allocatable": allocatable},
    }


def quota(**hard: str) -> dict[str, Any]:
    names = {name.replace("_", "."): value for name, value in hard.items()}
    return {"metadata": {"name": "q"}, "spec": {"hard": names}}


def check(
    workers: int = 1,
    *,
    nodes: Any = None,
    quotas: Any = (),
    max_workers: int | None = None,
    **resources: Any,
) -> None:
    demand = make_demand("r", workers, make_shape(**resources))
    check_fit(demand, Settings(max_workers=max_workers), quotas, nodes)


def refusal(*args: Any, **more: Any) -> str:
    with pytest.raises(CapacityError) as caught:
        check(*args, **more)
    return str(caught.value)


def test_the_clusters_limit_is_named() -> None:
    check(6, max_workers=6)
    assert "asks for 7 workers and the cluster's limit is 6" in refusal(7, max_workers=6)


def test_the_limit_that_somebody_has_set_for_the_group_is_named() -> None:
    demand = make_demand("r", 3, make_shape())
    group = Group(index=0, name="g", shape=demand.shape.key, replicas=0, maximum=2)
    with pytest.raises(CapacityError, match="worker group g may have 2; ask for fewer, or raise"):
        check_fit(demand, Settings(), (), None, [group])
    check_fit(demand, Settings(), (), None, [replace(group, shape="other")])


class TestQuota:
    @pytest.mark.parametrize(
        ("hard", "words"),
        [
            ({"requests_cpu": "7"}, "8 of requests.cpu in all and ResourceQuota 'q' allows 7"),
            ({"cpu": "7500m"}, "8 of cpu in all and ResourceQuota 'q' allows 7500m"),
            ({"requests_memory": "7Gi"}, "8Gi of requests.memory in all"),
            ({"limits_memory": "7Gi"}, "8Gi of limits.memory in all"),
            ({"limits_cpu": "8"}, "16 of limits.cpu in all"),
            ({"pods": "3"}, "4 of pods in all and ResourceQuota 'q' allows 3"),
            ({"requests_nvidia_com/gpu": "3"}, "4 of requests.nvidia.com/gpu in all"),
        ],
        ids=str,
    )
    def test_more_than_a_quota_ever_allows_is_refused(
        self, hard: dict[str, str], words: str
    ) -> None:
        asked = {"cpus": 2, "cpus_limit": 4, "memory": "2Gi", "gpus": 1}

        assert words in refusal(4, quotas=[quota(**hard)], **asked)

    def test_what_a_quota_allows_is_no_matter_of_now(self) -> None:
        used = quota(requests_cpu="8") | {"status": {"used": {"requests.cpu": "8"}}}

        check(4, quotas=[used], cpus=2)
        check(4, quotas=[quota(services="0", requests_storage="0")], cpus=2)

    def test_a_pod_is_never_smaller_than_kuberays_init_container(self) -> None:
        check(5, quotas=[quota(requests_cpu="1")], cpus=0)
        assert "of requests.cpu" in refusal(6, quotas=[quota(requests_cpu="1")], cpus=0)

    def test_a_quota_for_other_pods_does_not_count(self) -> None:
        scoped = quota(pods="0")
        scoped["spec"]["scopes"] = ["BestEffort"]

        check(4, quotas=[scoped])


class TestNodes:
    def test_a_worker_larger_than_any_node_is_refused(self) -> None:
        words = refusal(cpus=8, nodes=[node(cpu="4"), node(cpu="3920m")])

        assert words == (
            "a worker of 8 CPUs needs 8 of cpu and the largest node that takes it has 4; "
            "ask for less, or add a larger node"
        )
        assert "of memory and the largest node" in refusal(memory="32Gi", nodes=[node()])
        assert "of nvidia.com/gpu" in refusal(gpus=1, nodes=[node()])

    def test_more_workers_than_fit_side_by_side_are_refused(self) -> None:
        nodes = [node("a", cpu="4"), node("b", cpu="3")]

        check(3, cpus=2, nodes=nodes)
        assert "asks for 4 workers of 2 CPUs and the cluster's nodes can hold 3" in refusal(
            4, cpus=2, nodes=nodes
        )

    def test_nodes_that_nobody_may_see_are_no_limit(self) -> None:
        check(1000, cpus=64, nodes=None)
        check(1000, cpus=64, nodes=[])

    @pytest.mark.parametrize(
        "label",
        [
            "karpenter.sh/nodepool",
            "eks.amazonaws.com/nodegroup",
            "cloud.google.com/gke-nodepool",
            "doks.digitalocean.com/node-pool",
            "k8s.scaleway.com/pool",
            "kops.k8s.io/instancegroup",
            "lke.linode.com/pool-id",
            "magnum.openstack.org/nodegroup",
        ],
    )
    def test_where_more_nodes_can_come_those_there_are_no_limit(self, label: str) -> None:
        check(1000, cpus=64, nodes=[node(labels={label: "x"})])

    def test_nodes_are_no_limit_where_the_cluster_says_that_more_can_come(self) -> None:
        demand = make_demand("r", 9, make_shape(cpus=64))
        cluster = {"metadata": {"annotations": {"rayml.io/nodes-grow": "true"}}}
        check_fit(demand, Settings.read(cluster), (), [node()])

        cluster["metadata"]["annotations"]["rayml.io/nodes-grow"] = "yes"
        with pytest.raises(SpecError, match="nodes-grow is 'yes'; it has to be 'true' or 'false'"):
            Settings.read(cluster)

    def test_a_kind_of_gpu_that_no_node_has_is_named(self) -> None:
        label = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}
        nodes = [node(labels=label, resources={"nvidia.com/gpu": "1"}), node()]

        check(gpus=1, gpu_type="NVIDIA-A100-SXM4-40GB", nodes=nodes)
        assert refusal(gpus=1, gpu_type="A100", nodes=nodes).endswith(
            "their labels name 'NVIDIA-A100-SXM4-40GB' and gpu_type is 'A100'; give one of theirs"
        )
        assert "labels name no GPU" in refusal(gpus=1, gpu_type="A100", nodes=[node()])

    def test_spot_is_named_where_it_stands_in_the_way(self) -> None:
        spot = node(labels={"cloud.google.com/gke-spot": "true"})

        check(spot=True, nodes=[spot])
        assert "spot is True and none of them is labelled" in refusal(spot=True, nodes=[node()])
        check(spot=False, nodes=[node()])
        assert "spot is False and all of them are" in refusal(spot=False, nodes=[spot])

    def test_a_node_that_the_selector_does_not_mean_does_not_count(self) -> None:
        nodes = [node("a", labels={"pool": "big"}), node("b")]

        check(2, cpus=2, node_selector={"pool": "big"}, nodes=nodes)
        assert "can hold 2" in refusal(3, cpus=2, node_selector={"pool": "big"}, nodes=nodes)
        assert "none of the cluster's 2 nodes takes workers of 1 CPU" in refusal(
            node_selector={"pool": "huge"}, nodes=nodes
        )

    @pytest.mark.parametrize(
        ("expression", "is_met"),
        [
            ({"key": "zone", "operator": "In", "values": ["a", "b"]}, True),
            ({"key": "zone", "operator": "In", "values": ["c"]}, False),
            ({"key": "zone", "operator": "NotIn", "values": ["c"]}, True),
            ({"key": "none", "operator": "NotIn", "values": ["c"]}, True),
            ({"key": "zone", "operator": "Exists"}, True),
            ({"key": "none", "operator": "Exists"}, False),
            ({"key": "none", "operator": "DoesNotExist"}, True),
            ({"key": "zone", "operator": "DoesNotExist"}, False),
            ({"key": "speed", "operator": "Gt", "values": ["4"]}, True),
            ({"key": "speed", "operator": "Gt", "values": ["5"]}, False),
            ({"key": "speed", "operator": "Lt", "values": ["6"]}, True),
            ({"key": "zone", "operator": "Lt", "values": ["6"]}, False),
            ({"key": "zone", "operator": "OfLaterDays"}, True),
        ],
        ids=str,
    )
    def test_required_affinity_is_understood(
        self, expression: dict[str, Any], is_met: bool
    ) -> None:
        required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
        nodes = [node(labels={"zone": "a", "speed": "5"})]

        if is_met:
            check(affinity=affinity, nodes=nodes)
        else:
            assert "none of the cluster's 1 nodes" in refusal(affinity=affinity, nodes=nodes)

    def test_a_node_can_be_meant_by_its_name(self) -> None:
        field = {"key": "metadata.name", "operator": "In", "values": ["b"]}
        required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}

        check(2, cpus=2, affinity=affinity, nodes=[node("a"), node("b")])
        assert "can hold 2" in refusal(3, cpus=2, affinity=affinity, nodes=[node("a"), node("b")])

    @pytest.mark.parametrize(
        ("toleration", "is_tolerated"),
        [
            ({"operator": "Exists"}, True),
            ({"key": "gpu", "operator": "Exists"}, True),
            ({"key": "gpu", "value": "yes"}, True),
            ({"key": "gpu", "value": "no"}, False),
            ({"key": "gpu", "value": "yes", "effect": "NoSchedule"}, True),
            ({"key": "gpu", "value": "yes", "effect": "NoExecute"}, False),
            ({"key": "other", "operator": "Exists"}, False),
        ],
        ids=str,
    )
    def test_taints_keep_away_who_does_not_tolerate_them(
        self, toleration: dict[str, Any], is_tolerated: bool
    ) -> None:
        nodes = [node(taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])]

        assert "labels, taints or readiness" in refusal(nodes=nodes)
        if is_tolerated:
            check(tolerations=[toleration], nodes=nodes)
        else:
            assert refusal(tolerations=[toleration], nodes=nodes)

    def test_a_node_that_is_not_ready_for_a_moment_counts(self) -> None:
        effect = "NoExecute"
        check(nodes=[node(taints=[{"key": "node.kubernetes.io/not-ready", "effect": effect}])])
        check(nodes=[node(taints=[{"key": "x", "effect": "PreferNoSchedule"}])])
