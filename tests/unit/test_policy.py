"""What follows a failed attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.config import Retry
from rayml.policy import GiveUp, TryAgain, decide

KINDS = ["error", "exit", "killed", "oom", "node_lost", "timeout", "cancelled", "result", "store"]

retries = st.builds(
    Retry,
    attempts=st.integers(1, 10_000),
    backoff_s=st.integers(0, 10**9) | st.floats(0, 1e308),
    on=st.lists(st.sampled_from(["node_lost", "oom", "error"])).map(tuple),
)


def test_without_a_retry_the_first_failure_is_the_last() -> None:
    assert decide(1, "error", None) == GiveUp(
        "attempt 1 ended with error and no retry was asked for"
    )


@pytest.mark.parametrize(
    ("kind", "on"),
    [
        ("exit", "error"),
        ("killed", "error"),
        ("engine", "error"),
        ("oom", "oom"),
        ("node_lost", "node_lost"),
    ],
)
def test_a_failure_is_retried_if_its_sort_is_asked_for(kind: str, on: str) -> None:
    others = tuple({"node_lost", "oom", "error"} - {on})
    assert isinstance(decide(1, kind, Retry(on=(on,))), TryAgain)  # type: ignore[arg-type]
    assert isinstance(decide(1, kind, Retry(on=others)), GiveUp)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [
    "timeout", "start_timeout", "cancelled", "result", "store", "requirements",
])  # fmt: skip
def test_what_would_end_the_same_way_is_not_retried(kind: str) -> None:
    assert decide(1, kind, Retry()) == GiveUp(
        f"attempt 1 of 3 ended with {kind}, which is not retried"
    )


def test_the_wait_doubles_up_to_ten_minutes() -> None:
    retry = Retry(attempts=9, backoff_s=10)
    delays = [
        decision.delay_s
        for n in range(1, 9)
        if isinstance(decision := decide(n, "oom", retry), TryAgain)
    ]
    assert delays == [10, 20, 40, 80, 160, 320, 600, 600]


@given(st.integers(1, 20_000), st.sampled_from(KINDS), retries)
def test_every_retry_comes_to_an_end_after_bounded_waits(
    attempt: int, kind: str, retry: Retry
) -> None:
    decision = decide(attempt, kind, retry)
    if attempt >= retry.attempts:
        assert isinstance(decision, GiveUp)
    elif isinstance(decision, TryAgain):
        assert 0 <= decision.delay_s <= 600
    assert kind in decision.reason


@given(st.integers(1, 50), st.sampled_from(KINDS), retries)
def test_a_later_attempt_never_waits_less(attempt: int, kind: str, retry: Retry) -> None:
    now, later = decide(attempt, kind, retry), decide(attempt + 1, kind, retry)
    if isinstance(now, TryAgain) and isinstance(later, TryAgain):
        assert later.delay_s >= now.delay_s
    if isinstance(now, GiveUp):
        assert isinstance(later, GiveUp)
