"""The main job with its store in a bucket: a real S3 server, a real Ray."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import rayml
from rayml.store import open_store
from tests.ray.conftest import end_tracker, run_script, tracker_pid
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.store import Store
    from tests.ray.conftest import Gate, Submit

pytestmark = [pytest.mark.ray, pytest.mark.s3]


@pytest.fixture
def store(s3_store_uri: str) -> Iterator[Store]:
    """An empty store in a bucket; its tracker ends with the test."""
    opened = open_store(s3_store_uri)
    yield opened
    end_tracker(opened)


def test_a_run_in_a_bucket_is_read_back_elsewhere(
    submit: Submit, store: Store, work: Path
) -> None:
    def job(context: rayml.Context) -> dict[str, float]:
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        for step in range(100):
            context.log_metric("loss", 1 / (step + 1))
        context.log_dataset("data", pd.DataFrame({"a": [1, 2], "b": ["x", None]}))
        context.log_artifact("notes.txt", "żółw".encode())
        model = LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1])
        context.log_model("model", model)
        print("done")
        return {"auc": 0.75}

    run = submit(job, autolog=False).wait(120)
    assert run.metrics == {"loss": 0.01, "auc": 0.75}
    assert len(run.history("loss")) == 100
    source = """
        import sys, rayml
        run = rayml.get_run("latest", store=sys.argv[1])
        print(run.id, run.state, run.result, run.metrics)
        print(run.artifact("data").load().a.tolist(), run.artifact("notes.txt").load().decode())
        print(run.artifact("model").load().predict([[1.0]]))
        print(run.logs(), end="")
        assert "ray" not in sys.modules
    """
    printed, _ = run_script(work, source, store.uri)
    assert printed.splitlines() == [
        f"{run.id} succeeded {{'auc': 0.75}} {{'loss': 0.01, 'auc': 0.75}}",
        "[1, 2] żółw",
        "[1]",
        "done",
    ]


def test_logs_are_followed_in_a_bucket(submit: Submit, gate: Gate) -> None:
    path = str(gate)

    def job() -> None:
        print("before żółw")
        Path(path).read_bytes()
        print("after")

    run = submit(job)
    lines = iter(run.logs(follow=True))
    with gate.held():
        assert next(lines) == "before żółw\n"
        assert run.state == "running"
    assert list(lines) == ["after\n"]
    run.wait()


def test_killing_the_tracker_loses_and_doubles_nothing(
    submit: Submit, store: Store, tmp_path: Path
) -> None:
    reached, go = tmp_path / "reached", tmp_path / "go"

    def job(context: rayml.Context) -> int:
        step = 0
        while step < 5_000 or not go.exists():
            context.log_metric("step", step)
            step += 1
            if step % 500 == 0:
                context.flush()
                reached.touch()
        return step

    run = submit(job)
    eventually(reached.exists)
    os.kill(tracker_pid(store), signal.SIGKILL)
    go.touch()
    steps = run.wait(120).result
    assert isinstance(steps, int)
    assert run.history("step").value.tolist() == list(range(steps))


def test_a_bucket_that_is_not_there_is_named(submit: Submit, store: Store) -> None:
    with pytest.raises(rayml.StoreError, match=r"store s3://no-such-bucket/x "):
        submit(lambda: None, store="s3://no-such-bucket/x")
