"""Checkpoints: what an attempt leaves for the next one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rayml

if TYPE_CHECKING:
    from tests.ray.conftest import Submit

pytestmark = pytest.mark.ray
AGAIN = rayml.Retry(attempts=3, backoff_s=0.01)


def test_the_next_attempt_goes_on_from_the_newest_one(submit: Submit) -> None:
    def job(context: rayml.Context) -> list[int]:
        saved = context.restore()
        done = list(saved.load()) if saved else []
        for step in range(saved.meta["step"] + 1 if saved else 0, 6):
            done.append(context.attempt)
            context.log_metric("loss", context.attempt, step)
            context.checkpoint(bytes(done), step, sync=True)
            if (context.attempt, step) in {(1, 2), (2, 3)}:
                os.kill(os.getpid(), signal.SIGKILL)
        return done

    run = submit(job, retry=AGAIN).wait()
    assert (run.result, run.attempt) == ([1, 1, 1, 2, 3, 3], 3)
    assert run.history("loss").value.tolist() == [1, 1, 1, 2, 3, 3]
    checkpoint = run.artifact("checkpoint")
    assert (checkpoint.kind, checkpoint.meta["step"]) == ("checkpoint", 5)


def test_a_folder_comes_back_as_a_folder(submit: Submit) -> None:
    def job(context: rayml.Context) -> list[str]:
        saved = context.restore()
        if saved is not None:
            return sorted(path.name for path in saved.path().iterdir())
        folder = Path("state")
        folder.mkdir()
        (folder / "weights").write_bytes(b"1")
        (folder / "optimizer").write_bytes(b"2")
        context.checkpoint(folder)
        raise ValueError("once")

    assert submit(job, retry=AGAIN).wait().result == ["optimizer", "weights"]


def test_the_first_attempt_has_none_and_a_wrong_one_is_refused(submit: Submit) -> None:
    def job(context: rayml.Context) -> list[str]:
        assert context.restore() is None
        said = []
        for source, step in (("no-such-file", 1), (b"state", "two")):
            with pytest.raises(rayml.SpecError) as caught:
                context.checkpoint(source, step)  # type: ignore[arg-type]
            said.append(str(caught.value))
        return said

    said: Any = submit(job).wait().result
    assert "there is no file" in said[0]
    assert said[1] == "step='two' is not a step; give an integer, or None"


def test_what_cannot_be_imported_is_named_with_the_way_out(submit: Submit) -> None:
    def job() -> None:
        import no_such_package.inner  # type: ignore[import-not-found]  # noqa: F401

    with pytest.raises(rayml.JobFailed, match=r"give requirements=\['no_such_package'\]"):
        submit(job).wait()
