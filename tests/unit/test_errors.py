"""The error tree: who catches what, and what survives a trip to another process."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml import errors
from rayml.errors import JobFailed, RaymlError, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable

TREE = sorted(errors.__all__)

ROUND_TRIPS: dict[str, Callable[[RaymlError], RaymlError]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "cloudpickle": lambda error: pickle.loads(cloudpickle.dumps(error)),
    "copy": copy.deepcopy,
}


def example(name: str) -> RaymlError:
    """An error with a value of its own in every attribute."""
    if name == "JobFailed":
        return JobFailed(
            "r-1", "raised KeyError('é🚀')", "Traceback …\nKeyError: 'é'\n", 3, 2, "oom"
        )
    error = getattr(errors, name)("store s3://runs is naïve; mend it")
    assert isinstance(error, RaymlError)
    return error


@pytest.mark.parametrize("trip", ROUND_TRIPS)
@pytest.mark.parametrize("name", TREE)
def test_every_error_survives(name: str, trip: str) -> None:
    error = example(name)

    arrived = ROUND_TRIPS[trip](error)

    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert arrived.args == error.args
    assert vars(arrived) == vars(error)


def test_all_names_the_whole_tree() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, RaymlError)
    }

    assert set(errors.__all__) == defined


@pytest.mark.parametrize("name", TREE)
def test_the_drawing_of_the_tree_has_it(name: str) -> None:
    assert name in (errors.__doc__ or "").split()


@pytest.mark.parametrize(
    ("name", "builtin"),
    [("SpecError", ValueError), ("JobTimeout", TimeoutError), ("NotFound", LookupError)],
)
def test_a_slip_is_caught_as_pythons_own_error_too(name: str, builtin: type[Exception]) -> None:
    with pytest.raises(builtin):
        raise example(name)


@pytest.mark.parametrize(
    ("branch", "leaves"),
    [
        ("ClusterError", {"ClusterUnreachable", "CapacityError", "ResizeTimeout"}),
        (
            "StoreError",
            {"StoreUnreachable", "JournalFenced", "JournalCorrupt", "ArtifactCorrupt"},
        ),
    ],
)
def test_branches_hold_their_leaves(branch: str, leaves: set[str]) -> None:
    base = getattr(errors, branch)

    assert {n for n in TREE if issubclass(getattr(errors, n), base)} == leaves | {branch}


class TestJobFailed:
    def test_the_users_traceback_comes_first_and_the_way_to_the_log_last(self) -> None:
        text = str(JobFailed("r-1", "raised KeyError('x')", "Traceback\n  …\nKeyError: 'x'\n", 2))

        assert text.splitlines() == [
            "Traceback",
            "  …",
            "KeyError: 'x'",
            "",
            "run r-1: raised KeyError('x') (attempt 2); its log: rayml logs r-1",
        ]

    def test_a_process_that_died_has_no_traceback(self) -> None:
        error = JobFailed("r-1", "was killed by signal 9", kind="killed")

        assert str(error).startswith("run r-1: was killed by signal 9 (attempt 1);")
        assert (error.rank, error.attempt, error.kind) == (0, 1, "killed")


class TestSuggestion:
    @given(st.text(), st.lists(st.text()))
    def test_it_names_only_what_is_known(self, name: str, known: list[str]) -> None:
        text = suggestion(name, known)

        if not known:
            assert text == "there are none"
        elif text.startswith("did you mean"):
            assert any(text == f"did you mean {each!r}?" for each in known)
        else:
            more = f" and {len(known) - 10} more" if len(known) > 10 else ""
            assert text == "known: " + ", ".join(map(repr, sorted(known)[:10])) + more

    def test_a_slip_of_one_letter_is_recognised(self) -> None:
        assert suggestion("max_iters", ["max_iter", "seed"]) == "did you mean 'max_iter'?"
