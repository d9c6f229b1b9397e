"""Who starts, who waits and why, and which workers go: by examples, and in clusters by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from rayml.cluster.admission import TOGETHER_S
from rayml.cluster.observation import Group, Observation, Worker
from rayml.cluster.patch import patch_ops
from rayml.cluster.plan import Plan, plan
from rayml.cluster.pool import LOST_S, PATIENCE_S
from rayml.cluster.quota import amounts_planned
from rayml.cluster.settings import Settings
from tests.unit.small_cluster import SmallCluster, make_demand, make_shape

if TYPE_CHECKING:
    from rayml.cluster.demand import Demand
    from rayml.cluster.shape import Shape

NOW = 1000.0
A, B, C = make_shape(1), make_shape(2), make_shape(3)


def workers(shape: Shape, *states: str, **fields: Any) -> list[Worker]:
    """Make workers: `ready` ones that are idle since NOW, or as `fields` say."""
    times = {"free_since": NOW, "idle_since": NOW} | fields
    prefix = fields.pop("prefix", shape.key[:2])
    times.pop("prefix", None)
    return [
        Worker(name=f"{prefix}-{n}", shape=shape.key, state=state, **times)  # type: ignore[arg-type]
        for n, state in enumerate(states)
    ]


def observe(*found: list[Worker], sizes: dict[str, int] | None = None, **more: Any) -> Observation:
    """Make an observation of groups; each is as large as it has workers, or as `sizes` says."""
    shapes = {A.key: A, B.key: B, C.key: C}
    listed = [worker for some in found for worker in some]
    counts = {w.shape: 0 for w in listed} | dict.fromkeys(sizes or {}, 0)
    for worker in listed:
        counts[worker.shape] += not worker.is_named
    counts |= sizes or {}
    groups = tuple(
        Group(
            index=index,
            name=shapes[key].group,
            shape=key,
            replicas=size,
            named=tuple(w.name for w in listed if w.shape == key and w.is_named),
        )
        for index, (key, size) in enumerate(counts.items())
    )
    fields: dict[str, Any] = {
        "resource_version": "1",
        "groups": groups,
        "size": len(groups),
    } | more
    return Observation(workers=tuple(listed), **fields)


def decide(
    demands: list[Demand], seen: Observation | None = None, held: Any = None, **more: Any
) -> Plan:
    limits = Settings(max_workers=more.pop("max_workers", None), grace_s=more.pop("grace_s", 60))
    return plan(demands, seen or observe(), limits, held or {}, more.pop("now", NOW), **more)


class TestAdmission:
    def test_a_job_gets_as_many_new_workers_as_it_needs(self) -> None:
        made = decide([make_demand("r", 3, A)])

        assert made.replicas == {A.group: 3}
        assert made.waiting == {"r": "0 of 3 workers ready: 3 pods to be created"}

    def test_warm_workers_of_the_shape_are_used_first(self) -> None:
        made = decide([make_demand("r", 3, A)], observe(workers(A, "ready", "ready")))

        assert made.replicas == {A.group: 3}
        assert made.waiting["r"] == "2 of 3 workers ready: 1 pod to be created"

    def test_a_job_whose_workers_are_all_there_starts_with_those_used_last(self) -> None:
        idle = [
            structs.replace(worker, idle_since=NOW - age)
            for worker, age in zip(workers(A, "ready", "ready", "ready"), (1, 9, 5), strict=True)
        ]
        made = decide([make_demand("r", 2, A)], observe(idle))

        assert made.ready == {"r": (idle[0].name, idle[2].name)}
        assert made.waiting == {}

    def test_the_next_job_starts_only_when_the_pods_of_the_first_have_nodes(self) -> None:
        demands = [make_demand("first", 2, A), make_demand("second", 1, B, since=1)]

        pending = decide(demands, observe(workers(A, "scheduled", "pending")))
        assert pending.replicas == {A.group: 2}
        assert pending.waiting["second"] == "position 2 in the queue, behind run first"

        bound = decide(demands, observe(workers(A, "scheduled", "started")))
        assert bound.replicas == {A.group: 2, B.group: 1}

    def test_who_came_first_is_served_first(self) -> None:
        late = make_demand("late", 4, A, since=100)
        early = make_demand("early", 4, B, since=1)

        assert decide([late, early], max_workers=6).replicas == {B.group: 4}

    def test_a_higher_priority_is_served_before(self) -> None:
        early = make_demand("early", 4, A, since=1)
        urgent = make_demand("urgent", 4, B, since=100, priority=1)
        made = decide([early, urgent], max_workers=6)

        assert made.replicas == {B.group: 4}
        assert made.waiting["early"] == "position 2 in the queue, behind run urgent"

    def test_a_small_job_does_not_overtake_a_large_one_that_came_long_before(self) -> None:
        held = {"old": frozenset(w.name for w in workers(A, *["ready"] * 4))}
        demands = [
            make_demand("old", 4, A),
            make_demand("large", 4, B, since=1),
            make_demand("small", 1, B, since=2 + TOGETHER_S),
        ]
        made = decide(demands, observe(workers(A, *["ready"] * 4)), held, max_workers=6)

        assert B.group not in made.replicas
        assert made.waiting == {
            "large": "the cluster's limit of 6 workers is reached: 4 in use, 4 needed",
            "small": "position 2 in the queue, behind run large",
        }

    def test_jobs_that_came_together_fill_what_room_there_is(self) -> None:
        demands = [make_demand("large", 4, A), make_demand("small", 2, B, since=TOGETHER_S)]
        held = {"old": frozenset(w.name for w in workers(C, *["ready"] * 4))}
        seen = observe(workers(C, *["ready"] * 4))
        made = decide([make_demand("old", 4, C), *demands], seen, held, max_workers=6)

        assert made.replicas == {C.group: 4, B.group: 2}

    def test_of_jobs_that_came_together_those_with_warm_workers_go_first(self) -> None:
        demands = [make_demand("cold", 2, A), make_demand("warm", 2, B, since=1)]
        made = decide(demands, observe(workers(B, "ready", "ready")), max_workers=3)

        assert set(made.ready) == {"warm"}
        assert made.waiting["cold"].startswith("the cluster's limit of 3 workers is reached")

    def test_of_one_shape_nobody_overtakes_even_so(self) -> None:
        demands = [make_demand("two", 2, A), make_demand("one", 1, A, since=1)]

        assert decide(demands, observe(workers(A, "ready"))).ready == {}

    def test_warm_workers_serve_nobody_before_one_who_waits_with_a_higher_priority(self) -> None:
        demands = [
            make_demand("starting", 3, A, priority=1),
            make_demand("urgent", 3, B, priority=1, since=99),
            make_demand("late", 1, C, since=100),
        ]
        made = decide(demands, observe(workers(C, "ready")), max_workers=6)

        assert made.ready == {}
        assert made.waiting["late"] == "position 3 in the queue, behind run starting"

    def test_warm_workers_serve_the_next_while_pods_of_the_first_are_made(self) -> None:
        demands = [make_demand("starting", 3, A), make_demand("next", 1, C, since=99)]
        made = decide(demands, observe(workers(C, "ready")), max_workers=6)

        assert set(made.ready) == {"next"}
        assert made.replicas == {A.group: 3, C.group: 1}

    def test_what_is_beyond_the_limit_alone_holds_nobody_back(self) -> None:
        made = decide([make_demand("huge", 9, A), make_demand("r", 2, B, since=99)], max_workers=6)

        assert made.replicas == {B.group: 2}
        assert "asks for 9 workers and the cluster's limit is 6; ask for" in made.waiting["huge"]

    def test_a_lowered_maximum_of_a_group_is_respected(self) -> None:
        seen = observe(sizes={A.key: 0})
        seen = replace(seen, groups=(replace(seen.groups[0], maximum=2),))
        demands = [make_demand("r", 2, A), make_demand("s", 1, A, since=1), make_demand("t", 3, A)]
        made = decide(demands, seen)

        assert made.replicas == {A.group: 2}
        assert f"worker group {A.group} may have 2" in made.waiting["t"]

    def test_workers_that_others_use_serve_nobody(self) -> None:
        used = workers(A, "ready", is_busy=True, free_since=NOW - 60, idle_since=None)
        made = decide([make_demand("r", 1, A)], observe(used), max_workers=5)

        assert made.ready == {}
        assert made.replicas == {A.group: 2}
        assert made.victims == frozenset()

    def test_a_worker_left_a_moment_ago_serves_the_next_job_at_once(self) -> None:
        # Ray still calls it busy: it reports with delay.
        left = workers(A, "ready", is_busy=True, free_since=NOW - 1, idle_since=None)
        made = decide([make_demand("r", 1, A)], observe(left))

        assert made.ready == {"r": (left[0].name,)}

    def test_workers_of_a_run_that_has_not_said_which_it_got_serve_nobody(self) -> None:
        demands = [make_demand("started", 2, A), make_demand("next", 1, A, since=1)]
        made = decide(demands, observe(workers(A, "ready", "ready")), {"started": frozenset()})

        assert made.ready == {}
        assert made.replicas == {A.group: 3}
        assert made.victims == frozenset()

    def test_workers_of_a_run_whose_shape_has_changed_meanwhile_are_enough(self) -> None:
        # The cluster was given another image while the run goes on.
        found = workers(A, "ready", "ready", is_busy=True, free_since=None, idle_since=None)
        held = {"r": frozenset(worker.name for worker in found)}
        made = decide([make_demand("r", 2, B)], observe(found), held)

        assert made.replicas == {A.group: 2}

    def test_a_run_that_lost_a_worker_gets_its_successor_before_others_start(self) -> None:
        left, *lost = workers(A, "ready", "pending")
        demands = [make_demand("old", 2, A), make_demand("new", 1, B, since=1)]
        made = decide(demands, observe([left, *lost]), {"old": frozenset({left.name})})

        assert made.replicas == {A.group: 2}
        assert made.waiting["new"] == "position 1 in the queue, until lost workers are back"

    def test_a_successor_that_no_node_comes_for_holds_nobody_back_for_ever(self) -> None:
        left = workers(A, "ready")
        stuck = workers(
            A, "pending", prefix="s", is_unschedulable=True, free_since=NOW - PATIENCE_S - 1
        )
        demands = [make_demand("old", 2, A), make_demand("new", 1, B, since=1)]
        made = decide(demands, observe(left + stuck), {"old": frozenset({left[0].name})})

        assert made.replicas == {A.group: 2, B.group: 1}

    def test_a_successor_that_cannot_be_created_holds_nobody_back_for_ever(self) -> None:
        left = workers(A, "ready")
        demands = [make_demand("old", 2, A), make_demand("new", 1, B, since=1)]
        seen = observe(
            left,
            sizes={A.key: 2},
            problems={A.group: "admission webhook: no"},
            problems_since={A.group: NOW - PATIENCE_S - 1},
        )
        made = decide(demands, seen, {"old": frozenset({left[0].name})})

        # Nor does KubeRay stop at it, which makes no pod behind one that it cannot make.
        assert made.replicas == {A.group: 1, B.group: 1}
        alone = decide(demands[:1], seen, {"old": frozenset({left[0].name})})
        assert alone.replicas == {A.group: 2}


class TestLostWorkers:
    """On a node that is dead and that Kubernetes still believes in."""

    def lost(self, age: float = LOST_S + 1) -> list[Worker]:
        return workers(A, "started", lost_since=NOW - age)

    def test_one_is_replaced_at_once_for_who_waits(self) -> None:
        made = decide([make_demand("r", 1, A)], observe(self.lost()), grace_s=1e9)

        # KubeRay makes no other while one that it deletes stays: so it is not told to delete.
        assert made.victims == frozenset()
        assert made.replicas == {A.group: 2}
        assert made.waiting["r"].startswith("0 of 1 workers ready: 1 pod to be created")

    def test_one_that_a_run_holds_is_replaced_too(self) -> None:
        held = {"r": frozenset({self.lost()[0].name})}

        made = decide([make_demand("r", 1, A)], observe(self.lost()), held)
        assert made.replicas == {A.group: 2}
        assert made.victims == frozenset()

    def test_it_has_a_while_to_come_back(self) -> None:
        made = decide([make_demand("r", 1, A)], observe(self.lost(LOST_S - 1)), grace_s=0)

        assert made.replicas == {A.group: 1}
        assert made.victims == frozenset()

    def test_its_record_does_not_count_against_the_limit(self) -> None:
        made = decide([make_demand("r", 1, A)], observe(self.lost()), max_workers=1)

        assert made.replicas == {A.group: 2}

    def test_its_group_does_not_shrink_under_those_that_live(self) -> None:
        # With a size of 1 KubeRay would delete either of the two.
        gone = workers(A, "leaving", prefix="gone", lost_since=NOW - 300)
        alive = workers(A, "ready")
        held = {"r": frozenset({alive[0].name})}
        made = decide([make_demand("r", 1, A)], observe(gone + alive), held)

        assert (made.replicas, made.victims) == ({A.group: 2}, frozenset())
        assert decide([], observe(gone)).replicas == {A.group: 1}

    @pytest.mark.parametrize("state", ["started", "leaving"])
    def test_it_holds_nobody_back(self, state: str) -> None:
        gone = workers(A, state, prefix="gone", lost_since=NOW - 300)

        made = decide([make_demand("new", 1, B)], observe(gone))
        assert made.replicas == {A.group: 1, B.group: 1}
        alive = workers(A, "ready")
        held = {"r": frozenset({alive[0].name})}
        demands = [make_demand("r", 1, A), make_demand("new", 1, B, since=1)]
        assert decide(demands, observe(gone + alive), held).replicas[B.group] == 1

    def test_one_that_kubernetes_takes_for_well_for_long_goes(self) -> None:
        # Its node lives then, and so does the pod: it would cost for ever.
        made = decide([], observe(self.lost(PATIENCE_S + 1)))

        assert made.victims == {self.lost()[0].name}

    def test_its_record_takes_nothing_of_a_quota(self) -> None:
        gone = workers(A, "leaving", lost_since=NOW - 300, takes=amounts_planned(A.template))
        quotas = (quota("pods", "4", "0"),)  # Kubernetes has stopped counting it

        assert decide([make_demand("r", 4, A)], observe(gone, quotas=quotas)).replicas


def quota(resource: str, hard: str, used: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "q"},
        "spec": {"hard": {resource: hard}},
        "status": {"used": {resource: used}},
    }


class TestQuotas:
    """A job's workers are of 1, 2 or 3 CPUs; nothing is begun that a quota would stop half-way."""

    def test_a_job_waits_until_there_is_room_for_all_its_workers(self) -> None:
        found = workers(A, "ready", "ready", takes=amounts_planned(A.template))
        held = {"old": frozenset(worker.name for worker in found)}
        demands = [make_demand("old", 2, A), make_demand("r", 2, B, since=1)]
        made = decide(demands, observe(found, quotas=(quota("requests.cpu", "5", "2"),)), held)

        assert made.replicas == {A.group: 2}
        assert made.waiting["r"] == (
            "ResourceQuota 'q' of 5 requests.cpu is reached: 2 in use, 4 needed"
        )

    def test_idle_workers_are_room(self) -> None:
        found = workers(A, "ready", "ready", takes=amounts_planned(A.template))
        seen = observe(found, quotas=(quota("requests.cpu", "5", "2"),))

        assert decide([make_demand("r", 2, B)], seen).replicas[B.group] == 2

    def test_jobs_admitted_together_fit_together(self) -> None:
        demands = [make_demand("r", 2, B), make_demand("s", 1, B, since=1)]
        found = workers(B, "scheduled", "scheduled", takes=amounts_planned(B.template))
        made = decide(demands, observe(found, quotas=(quota("pods", "3", "3"),)))

        assert made.replicas == {B.group: 2}
        assert made.waiting["s"].startswith("ResourceQuota 'q' of 3 pods is reached: 3 in use")

    def test_what_others_have_taken_holds_back_nobody_who_needs_less(self) -> None:
        demands = [make_demand("r", 2, B), make_demand("s", 1, A, since=99)]
        made = decide(demands, observe(quotas=(quota("requests.cpu", "5", "3"),)))

        assert made.replicas == {A.group: 1}
        assert made.waiting["r"] == (
            "it asks for 4 of requests.cpu and ResourceQuota 'q' allows 5, of which others than "
            "rayml's workers have 3"
        )

    def test_workers_that_have_just_gone_are_not_others(self) -> None:
        left = workers(A, "ready", takes=amounts_planned(A.template))
        seen = observe(quotas=(quota("requests.cpu", "2", "1"),), went=((NOW - 1, left[0]),))
        made = decide([make_demand("r", 1, B)], seen)

        assert made.waiting["r"] == (  # Kubernetes would refuse its pod until it has counted anew
            "ResourceQuota 'q' of 2 requests.cpu is reached: 1 in use, 2 needed"
        )

    def test_a_quota_that_counts_them_no_more_has_no_room_of_theirs(self) -> None:
        left = workers(A, "ready", "ready", takes=amounts_planned(A.template))
        went = tuple((NOW - 1, worker) for worker in left)
        made = decide(
            [make_demand("r", 2, A)], observe(quotas=(quota("pods", "2", "1"),), went=went)
        )

        assert made.replicas.get(A.group, 0) == 0
        assert made.waiting["r"] == "ResourceQuota 'q' of 2 pods is reached: 1 in use, 2 needed"

    def test_one_that_nobody_has_counted_yet_lets_nobody_in(self) -> None:
        new = {**quota("pods", "4", "0"), "status": {}}
        made = decide([make_demand("r", 2, A)], observe(quotas=(new,)))

        assert made.replicas == {}
        assert made.waiting["r"] == "ResourceQuota 'q' is new: its pods are not counted yet"

    def test_warm_workers_need_no_room(self) -> None:
        found = workers(A, "ready", takes=amounts_planned(A.template))
        seen = observe(found, quotas=(quota("requests.cpu", "0", "1"),))

        assert decide([make_demand("r", 1, A)], seen).ready

    def test_a_quota_of_certain_pods_only_is_left_to_kubernetes(self) -> None:
        scoped = quota("pods", "0", "0")
        scoped["spec"]["scopes"] = ["BestEffort"]

        assert decide([make_demand("r", 1, A)], observe(quotas=(scoped,))).replicas


class TestRelease:
    def test_an_idle_worker_stays_for_its_grace_and_goes_after_it(self) -> None:
        seen = observe(workers(A, "ready", idle_since=NOW))

        assert decide([], seen, now=NOW + 59).victims == frozenset()
        made = decide([], seen, now=NOW + 60)
        assert made.victims == {seen.workers[0].name}
        assert made.replicas == {A.group: 0}

    def test_without_grace_it_goes_at_once(self) -> None:
        assert decide([], observe(workers(A, "ready")), grace_s=0).victims

    def test_the_one_longest_idle_goes_first(self) -> None:
        idle = [
            structs.replace(worker, idle_since=NOW - age)
            for worker, age in zip(
                workers(A, "ready", "ready", "ready"), (70, 90, 80), strict=True
            )
        ]
        made = decide([make_demand("r", 2, A)], observe(idle))

        # The job is about to get two of the three, and nobody knows which: none goes yet.
        assert made.victims == frozenset()
        assert decide([], observe(idle), grace_s=1e9, max_workers=2).victims == {idle[1].name}

    def test_a_busy_worker_never_goes(self) -> None:
        busy = workers(A, "ready", is_busy=True, free_since=0.0, idle_since=None)

        assert decide([], observe(busy), grace_s=0).victims == frozenset()
        assert decide([], observe(busy), max_workers=0).replicas == {A.group: 1}

    def test_a_held_worker_never_goes(self) -> None:
        held = {"gone": frozenset(w.name for w in workers(A, "ready"))}

        assert decide([], observe(workers(A, "ready")), held, grace_s=0).victims == frozenset()

    def test_pods_without_a_node_that_nobody_needs_any_more_go_at_once(self) -> None:
        made = decide([], observe(workers(A, "pending", "pending")), grace_s=1e9)

        assert len(made.victims) == 2
        assert made.replicas == {A.group: 0}

    def test_idle_workers_of_other_shapes_make_room_under_the_limit(self) -> None:
        seen = observe(workers(A, "ready", "ready", "ready"))
        made = decide([make_demand("r", 2, B)], seen, max_workers=4)

        assert len(made.victims) == 1
        assert made.replicas == {A.group: 2, B.group: 1}
        assert made.waiting["r"] == (
            "0 of 2 workers ready: 2 pods to be created, "
            "and 1 worker of others leaving to make room"
        )

    def test_idle_workers_make_room_for_a_pod_that_found_none(self) -> None:
        reason = "pod p is unschedulable: 0/1 nodes are available: 1 Insufficient cpu."
        stuck = workers(B, "pending", is_unschedulable=True, lacks_room=True, reason=reason)
        seen = observe(workers(A, "ready", "ready"), stuck)
        made = decide([make_demand("r", 1, B)], seen)

        assert len(made.victims) == 1
        assert made.waiting["r"] == (
            f"0 of 1 workers ready: {reason}, and 1 worker of others leaving to make room"
        )

    def test_idle_workers_stay_when_their_room_would_not_help(self) -> None:
        stuck = workers(B, "pending", is_unschedulable=True, lacks_room=False)

        made = decide([make_demand("r", 1, B)], observe(workers(A, "ready"), stuck))
        assert made.victims == frozenset()

    def test_idle_workers_make_room_in_a_quota(self) -> None:
        problems = {B.group: "pods is forbidden: exceeded quota: q"}
        seen = observe(workers(A, "ready", "ready"), sizes={B.key: 1, A.key: 2}, problems=problems)
        made = decide([make_demand("r", 1, B)], seen)

        assert len(made.victims) == 1
        assert made.waiting["r"].startswith(
            "0 of 1 workers ready: KubeRay cannot create 1 pod: pods is forbidden: exceeded quota"
        )

    def test_workers_of_a_job_further_back_give_way_to_one_further_ahead(self) -> None:
        demands = [make_demand("back", 4, A, since=1), make_demand("ahead", 4, B, priority=1)]
        seen = observe(workers(A, "ready", "ready", "ready", "scheduled"))
        made = decide(demands, seen, max_workers=4)

        assert len(made.victims) == 4
        assert made.replicas == {A.group: 0}  # room for the others only when these are gone
        assert made.waiting["back"] == (
            "the cluster's limit of 4 workers is reached: 4 in use, 4 needed"
        )

    def test_a_lowered_limit_leaves_groups_in_use_as_they_are(self) -> None:
        found = workers(A, "ready", "ready", "ready")
        held = {"r": frozenset(worker.name for worker in found)}
        made = decide([make_demand("r", 3, A)], observe(found), held, max_workers=1)

        assert (made.replicas, made.victims) == ({A.group: 3}, frozenset())

    def test_a_lowered_limit_makes_idle_workers_go(self) -> None:
        made = decide([], observe(workers(A, "ready", "ready", "ready")), max_workers=1)

        assert len(made.victims) == 2

    def test_a_drained_worker_goes_even_if_somebody_needs_it_by_now(self) -> None:
        ready = workers(A, "ready")
        made = decide([make_demand("r", 1, A)], observe(ready), drained=[ready[0].name])

        assert made.ready == {}
        assert made.victims == {ready[0].name}
        assert made.replicas == {A.group: 1}

    def test_a_group_is_taken_out_only_when_the_operator_has_emptied_it(self) -> None:
        empty = observe(sizes={A.key: 0})

        assert decide([], empty).removable == (A.group,)
        assert decide([], replace(empty, is_settled=False)).removable == ()
        assert decide([], replace(empty, is_autoscaling=True)).removable == ()
        assert decide([make_demand("r", 1, A)], empty).removable == ()
        limited = replace(empty, groups=(replace(empty.groups[0], maximum=2),))
        assert decide([], limited).removable == ()
        going = workers(A, "leaving", is_named=True)
        assert decide([], observe(going)).removable == ()

    def test_a_group_is_not_lowered_below_pods_that_may_be_on_their_way(self) -> None:
        # The operator may be creating two more: with a size of 1 it would delete any two of three.
        held = {"r": frozenset(w.name for w in workers(A, "ready"))}
        seen = observe(workers(A, "ready"), sizes={A.key: 3})
        unsettled = replace(seen, is_settled=False)

        assert decide([make_demand("r", 1, A)], unsettled, held).replicas == {A.group: 3}
        assert decide([make_demand("r", 1, A)], seen, held).replicas == {A.group: 1}
        assert decide([], unsettled).replicas == {A.group: 1}

    def test_a_pod_that_ended_by_itself_is_named_when_nobody_needs_its_successor(self) -> None:
        alive, ended = workers(A, "ready", "leaving")
        held = {"r": frozenset({alive.name})}
        made = decide([make_demand("r", 1, A)], observe([alive, ended]), held)

        # Otherwise the operator, which still counts it, would delete either of the two.
        assert made.replicas == {A.group: 1}
        assert made.victims == {ended.name}


class TestQueueingAnew:
    def stuck(self, age: float, **more: Any) -> Observation:
        waits = {"is_unschedulable": True, "free_since": NOW - age}
        return observe(workers(A, "pending", **waits), **more)

    def test_a_job_that_no_node_comes_for_lets_others_go_first_after_a_while(self) -> None:
        demands = [make_demand("stuck", 1, A), make_demand("next", 1, B, since=1)]

        assert decide(demands, self.stuck(PATIENCE_S + 1)).postponed == ("stuck",)
        assert decide(demands, self.stuck(PATIENCE_S - 1)).postponed == ()

    def test_so_does_one_whose_pods_cannot_be_created(self) -> None:
        demands = [make_demand("stuck", 1, A), make_demand("next", 1, B, since=1)]
        refused: Any = {"sizes": {A.key: 1}, "problems": {A.group: "admission webhook: no"}}
        for age, postponed in ((PATIENCE_S + 1, ("stuck",)), (PATIENCE_S - 1, ())):
            seen = observe(**refused, problems_since={A.group: NOW - age})
            assert decide(demands, seen).postponed == postponed

    def test_nobody_goes_back_for_what_a_run_that_goes_on_has_lost(self) -> None:
        left, mine = workers(A, "ready", "pending")
        old = workers(
            A, "pending", prefix="s", is_unschedulable=True, free_since=NOW - PATIENCE_S - 1
        )
        demands = [make_demand("old", 2, A), make_demand("x", 1, A, since=1)]
        demands += [make_demand("y", 1, B, since=2)]
        seen = observe([left, mine, *old])

        assert decide(demands, seen, {"old": frozenset({left.name})}).postponed == ()

    def test_it_keeps_its_place_as_long_as_nobody_else_waits(self) -> None:
        stuck = [make_demand("stuck", 1, A), make_demand("same", 1, A, since=1)]

        assert decide(stuck[:1], self.stuck(9 * PATIENCE_S)).postponed == ()
        assert decide(stuck, self.stuck(9 * PATIENCE_S)).postponed == ()


class TestAutoscaler:
    def test_sizes_are_least_sizes_and_nobody_is_named(self) -> None:
        seen = observe(workers(A, "ready", "ready"), workers(B, "ready"), is_autoscaling=True)
        groups = tuple(replace(group, minimum=2) for group in seen.groups)
        made = decide([make_demand("r", 3, A)], replace(seen, groups=groups), grace_s=0)

        assert made.replicas == {A.group: 3, B.group: 0}
        assert made.victims == frozenset()

    def test_a_least_size_is_never_above_the_groups_maximum(self) -> None:
        seen = observe(workers(A, "ready"), is_autoscaling=True)
        groups = tuple(replace(group, minimum=1, maximum=1) for group in seen.groups)
        held = {"r": frozenset({seen.workers[0].name})}
        made = decide([make_demand("r", 2, A)], replace(seen, groups=groups), held)

        assert made.replicas == {A.group: 1}


class TestWords:
    def test_a_refusal_by_the_operator_is_passed_on(self) -> None:
        made = decide([make_demand("r", 1, A)], observe(invalid="rayVersion is missing"))

        assert made.waiting["r"] == (
            "0 of 1 workers ready: KubeRay refuses the RayCluster: rayVersion is missing"
        )

    def test_a_pod_that_has_failed_before_is_told_of(self) -> None:
        failures = {A.group: "pod q has failed: Error, exit code 127"}
        seen = observe(workers(A, "scheduled", reason="pod p is starting"), failures=failures)

        assert decide([make_demand("r", 1, A)], seen).waiting["r"] == (
            "0 of 1 workers ready: pod q has failed: Error, exit code 127; pod p is starting"
        )

    def test_many_reasons_are_counted(self) -> None:
        starting = workers(A, *["scheduled"] * 4)
        seen = observe([structs.replace(w, reason=f"pod {w.name} is starting") for w in starting])
        made = decide([make_demand("r", 4, A)], seen)

        first, second = (w.name for w in starting[:2])
        assert made.waiting["r"] == (
            f"0 of 4 workers ready: pod {first} is starting; pod {second} is starting; and 2 more"
        )


SHAPES = [make_shape(1), make_shape(1, memory="1Gi"), make_shape(1, memory="2Gi")]


def check(cluster: SmallCluster) -> None:
    limit = cluster.settings.max_workers
    assert limit is None or len(cluster.pods) <= limit
    assert cluster.deleted_busy == []


def check_stable(cluster: SmallCluster) -> None:
    """Check that planning anew gives the same, and what was done leaves nothing to do."""
    demands, held = cluster.demands(), cluster.held()
    shapes = {demand.shape.key: demand.shape for demand in demands}
    for _ in range(len(demands) + 1):
        seen = cluster.observe()
        made = plan(demands, seen, cluster.settings, held, cluster.now)
        assert plan(demands[::-1], seen, cluster.settings, held, cluster.now) == made
        cluster.drain(made.victims)
        cluster.apply(patch_ops(made, seen, shapes))
        if not made.ready:  # whoever starts moves those behind up
            break
        held |= dict.fromkeys(made.ready, frozenset())
    seen = cluster.observe()
    again = plan(demands, seen, cluster.settings, held, cluster.now)
    assert (again.victims, again.ready) == (frozenset(), {})
    assert patch_ops(again, seen, shapes) == []
    for run in held:
        cluster.grant(run)


class TestClusters:
    @settings(max_examples=20, deadline=None)
    @given(
        seed=st.integers(0, 10**6),
        max_workers=st.sampled_from([None, 4, 6]),
        nodes=st.sampled_from([{"n": 6.0}, {"a": 4.0, "b": 3.0}]),
        grace_s=st.sampled_from([0.0, 2.0, 1e9]),
        kills=st.sampled_from([0.0, 0.1]),
        laziness=st.sampled_from([0.0, 0.5]),
    )
    def test_all_jobs_finish_within_the_limits_and_no_busy_worker_is_deleted(
        self,
        seed: int,
        max_workers: int | None,
        nodes: dict[str, float],
        grace_s: float,
        kills: float,
        laziness: float,
    ) -> None:
        cluster, chance = SmallCluster(nodes), random.Random(seed)
        cluster.settings = Settings(max_workers=max_workers, grace_s=grace_s)
        for number in range(20):
            size, length = chance.randint(1, 4), chance.randint(1, 10)
            urgency = chance.choice([0, 0, 0, 1])
            cluster.submit(f"r{number}", size, chance.choice(SHAPES), length, priority=urgency)
            cluster.now += chance.choice([0, 0.01, 5, 40])
        steps = 0
        while not cluster.is_done():
            cluster.step(check, lambda: chance.random() < laziness)
            if steps % 3 == 0:
                check_stable(cluster)
            if cluster.pods and chance.random() < kills:
                chance.choice(list(cluster.pods.values())).is_terminating = True
            steps += 1
            assert steps < 3000, cluster.planned

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 10**6), st.sampled_from([0.0, 3.0]))
    def test_a_cluster_that_nobody_uses_ends_up_without_workers_and_groups(
        self, seed: int, grace_s: float
    ) -> None:
        chance = random.Random(seed)
        cluster = SmallCluster({"n": 6.0}, Settings(grace_s=grace_s))
        for number in range(5):
            cluster.submit(f"r{number}", chance.randint(1, 4), chance.choice(SHAPES), 2)
        for _ in range(100):
            cluster.step(check)

        assert cluster.is_done()
        assert (cluster.pods, cluster.spec["workerGroupSpecs"]) == ({}, [])
        version = cluster.generation
        cluster.step(check)
        assert cluster.generation == version

    def test_twenty_jobs_at_once_take_little_longer_than_their_work(self) -> None:
        """Nodes hold 6 workers: no order at all is done before work / 6."""
        ratios = []
        for seed in range(5):
            chance = random.Random(seed)
            cluster, work = SmallCluster({"n": 6.0}, Settings(max_workers=6)), 0
            for number in range(20):
                size, length = chance.randint(1, 3), chance.randint(60, 120)
                cluster.submit(f"r{number}", size, SHAPES[number % 3], length)
                work += size * length
            start = cluster.now
            while not cluster.is_done():
                cluster.step(check)
            ratios.append((cluster.now - start) / (work / 6))

        assert max(ratios) < 1.25, ratios
        assert sum(ratios) / 5 < 1.2, ratios

    def test_a_job_that_no_nodes_can_hold_does_not_stop_the_others_for_ever(self) -> None:
        cluster = SmallCluster({"n": 6.0})
        cluster.submit("impossible", 7, SHAPES[0])
        for number in range(6):
            cluster.now += 2 * TOGETHER_S
            cluster.submit(f"r{number}", 2, SHAPES[1 + number % 2])
        for _ in range(300):
            cluster.step(check)
            cluster.now += 20

        assert [run for run, job in cluster.jobs.items() if job.state != "done"] == ["impossible"]
        assert "6 of 7 workers ready: pod " in cluster.planned.waiting["impossible"]

    def test_jobs_after_each_other_share_warm_workers(self) -> None:
        cluster = SmallCluster({"n": 6.0}, Settings(grace_s=60))
        for number in range(5):
            cluster.submit(f"r{number}", 2, SHAPES[0], 2)
            while not cluster.is_done():
                cluster.step(check)

        assert len({pod.name for pod in cluster.pods.values()}) == 2
        assert next(cluster.numbers) == 2  # pods ever made

    def test_what_others_write_into_a_group_stays(self) -> None:
        cluster = SmallCluster({"n": 6.0})
        cluster.spec = {"workerGroupSpecs": [{"groupName": "theirs", "replicas": 0, "mine": 1}]}
        theirs = cluster.spec["workerGroupSpecs"][0] | {
            "minReplicas": 0,
            "maxReplicas": 1,
            "template": {"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}},
        }
        cluster.spec["workerGroupSpecs"] = [theirs]
        cluster.submit("r", 2, SHAPES[0], 2)
        while not cluster.is_done():
            cluster.step(check)
            for entry in cluster.spec["workerGroupSpecs"][1:]:
                entry["idleTimeoutSeconds"] = 7

        assert cluster.spec["workerGroupSpecs"][0] == theirs
        assert cluster.spec["workerGroupSpecs"][1]["idleTimeoutSeconds"] == 7

    def test_an_operator_that_is_away_is_waited_for(self) -> None:
        cluster = SmallCluster({"n": 6.0}, Settings(max_workers=4))
        cluster.submit("r", 2, SHAPES[0], 2)
        for _ in range(5):
            cluster.step_planner()
        generation = cluster.generation
        assert generation == 2

        while not cluster.is_done():
            cluster.step(check)

    @pytest.mark.parametrize("seed", range(5))
    def test_with_rays_autoscaler_least_sizes_alone_bring_all_jobs_through(
        self, seed: int
    ) -> None:
        chance = random.Random(seed)
        cluster = SmallCluster({"n": 6.0}, Settings(max_workers=6), is_autoscaling=True)
        for number in range(10):
            cluster.submit(f"r{number}", chance.randint(1, 4), chance.choice(SHAPES), 3)
        for _ in range(500):
            cluster.step(check)
            cluster.step_autoscaler()

        assert cluster.is_done()
        sizes = [entry["minReplicas"] for entry in cluster.spec["workerGroupSpecs"]]
        assert sizes == [0] * len(sizes)
