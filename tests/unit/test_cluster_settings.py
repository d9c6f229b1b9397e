"""Settings of a cluster, read from annotations that anyone may have edited."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.cluster.code import Code
from rayml.cluster.settings import Settings, check_resizable
from rayml.errors import SpecError

SETTINGS = st.builds(
    Settings,
    max_workers=st.none() | st.integers(0, 10**6),
    grace_s=st.floats(0, 1e9),
    store=st.none() | st.just("s3://bucket/runs"),
    store_secret=st.none() | st.just("store"),
    version=st.none() | st.just("0.1.0"),
    code=st.none() | st.builds(Code, st.from_regex(r"\A[0-9a-f]{12}\Z"), st.integers(1, 999)),
    managed=st.sampled_from([None, "up", "adopted"]),
)


def cluster(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "c", "annotations": annotations}, "spec": spec}


@given(SETTINGS)
def test_settings_are_the_same_after_a_trip_through_a_cluster(settings: Settings) -> None:
    metadata = {"annotations": settings.annotations(), "labels": settings.labels()}

    assert Settings.read({"metadata": metadata}) == settings


def test_a_cluster_without_annotations_has_no_limit_and_a_minute_of_grace() -> None:
    settings = Settings.read(cluster())

    assert (settings.max_workers, settings.grace_s, settings.managed) == (None, 60.0, None)


def test_annotations_of_others_are_no_setting() -> None:
    assert Settings.read(cluster({"max-workers": "x", "other/grace-s": "x"})) == Settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max-workers", "six"),
        ("max-workers", "-1"),
        ("max-workers", "1.5"),
        ("grace-s", "1 minute"),
        ("grace-s", "-0.5"),
        ("grace-s", "inf"),
        ("grace-s", "nan"),
        ("code", "0123"),
    ],
)
def test_garbage_in_an_annotation_is_named(name: str, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        Settings.read(cluster({f"rayml.io/{name}": text}))

    assert f"annotation rayml.io/{name} is {text!r}; it has to be" in str(caught.value)


def test_an_unknown_manager_is_named() -> None:
    with pytest.raises(SpecError, match=r"label rayml\.io/managed is 'down'; it has"):
        Settings.read({"metadata": {"labels": {"rayml.io/managed": "down"}}})


def test_a_plain_cluster_can_be_resized() -> None:
    check_resizable(cluster(upgradeStrategy={"type": "None"}, suspend=False))
    check_resizable(cluster(upgradeStrategy=None))


def test_a_cluster_that_restarts_on_any_change_cannot_be_resized() -> None:
    with pytest.raises(SpecError, match="upgradeStrategy Recreate, which restarts every pod"):
        check_resizable(cluster(upgradeStrategy={"type": "Recreate"}))


def test_a_suspended_cluster_cannot_be_resized() -> None:
    with pytest.raises(SpecError, match="is suspended and has no head"):
        check_resizable(cluster(suspend=True))


def test_kueue_would_stop_a_cluster_that_is_not_elastic() -> None:
    queued = cluster()
    queued["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    with pytest.raises(SpecError, match="Kueue's queue 'gpus', which stops the whole cluster"):
        check_resizable(queued)

    queued["metadata"]["annotations"] = {"kueue.x-k8s.io/elastic-job": "true"}
    check_resizable(queued)
