"""Secrets reach the job and nothing that rayml writes down."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import ray

import rayml
from rayml.logs import capture_path
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from rayml.store import Store
    from tests.ray.conftest import Submit

pytestmark = pytest.mark.ray


@pytest.fixture
def secret() -> str:
    """A new secret, with all that quoting can change."""
    return f"tok-{uuid4().hex}-'ż\"\\-{uuid4().hex}"


def places_of(secret: str, store: Store) -> list[str]:
    """Return the files of the store, of the capture folder and of Ray that hold the secret.

    Its two halves are looked for as well: quoting leaves them as they are.
    """
    session = Path(tempfile.gettempdir(), "ray", ray.get_runtime_context().get_session_name())
    assert session.is_dir()
    folders = [Path(store.uri), capture_path("x", 1).parent, session]
    needles = [half.encode() for half in (secret[:36], secret[-32:])]
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_search_finds_what_is_there(submit: Submit, store: Store, secret: str) -> None:
    submit(lambda: print(json.dumps(secret))).wait()
    assert len(places_of(secret, store)) == 1


def test_a_job_sees_them_and_the_next_one_does_not(
    submit: Submit, store: Store, secret: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> str | None:
        value = os.environ.get("A_TOKEN")
        return value and hashlib.sha256(value.encode()).hexdigest()

    (work / "look.py").write_text(
        "import hashlib, os; print(hashlib.sha256(os.environ['A_TOKEN'].encode()).hexdigest())\n"
    )
    run = submit(look, secrets={"A_TOKEN": secret}).wait()
    assert run.result == digest(secret)
    assert run.spec.secrets == ["A_TOKEN"]
    assert submit(look).wait().result is None
    assert submit("look.py", secrets={"A_TOKEN": secret}).wait().logs() == f"{digest(secret)}\n"
    monkeypatch.setenv("A_TOKEN", secret)
    assert submit(look, secrets=["A_TOKEN"]).wait().result == digest(secret)
    assert secret not in repr(run)
    assert secret not in str(run.spec)
    assert places_of(secret, store) == []


def test_printing_logging_and_returning_them_hides_them(
    submit: Submit, store: Store, secret: str
) -> None:
    def job(context: rayml.Context) -> dict[str, object]:
        value = os.environ["A_TOKEN"]
        print(os.environ, dict(os.environ), repr(value), json.dumps(value), file=sys.stderr)
        print(value, value[:20], end="")
        sys.stdout.flush()
        print(value[20:])
        subprocess.run(["/bin/sh", "-c", "env; echo $A_TOKEN >&2"], check=True)
        os.write(1, value.encode() * 3)
        context.log_params({"token": value, value: 1, "deep": {"list": [value]}})
        context.log_param(f"long {value}", [value, "x" * 5_000])
        context.log_label("token", value)
        context.log_metric(f"loss of {value}", 0.5)
        context.log_artifact(f"notes of {value[:4]}", b"x")
        return {"token": value, "deep": [value]}

    run = submit(job, secrets={"A_TOKEN": secret}).wait()
    assert places_of(secret, store) == []
    assert run.result == {"token": "***", "deep": ["***"]}
    long = {"long ***": ["***", "x" * 5_000]}
    assert run.params == {"token": "***", "***": 1, "deep": {"list": ["***"]}} | long
    assert run.labels == {"token": "***"}
    assert run.metrics == {"loss of ***": 0.5}
    printed = run.logs()
    assert isinstance(printed, str)
    assert printed.count("***") >= 8
    assert "'A_TOKEN': " in printed


def test_they_are_hidden_in_errors(submit: Submit, store: Store, secret: str, work: Path) -> None:
    def job() -> None:
        value = os.environ["A_TOKEN"]
        try:
            int(value)
        except ValueError as exc:
            raise RuntimeError({"env": dict(os.environ)}) from exc

    (work / "fails.py").write_text("import os; raise ValueError(os.environ['A_TOKEN'])\n")
    for function in (job, "fails.py"):
        run = submit(function, secrets={"A_TOKEN": secret})
        with pytest.raises(rayml.JobFailed) as caught:
            run.wait()
        assert secret not in str(caught.value)
        assert "ValueError: " in caught.value.traceback
        assert "***" in caught.value.traceback
    assert places_of(secret, store) == []


def test_they_are_hidden_when_an_exit_tells_them(
    submit: Submit, store: Store, secret: str
) -> None:
    run = submit(lambda: sys.exit(os.environ["A_TOKEN"]), secrets={"A_TOKEN": secret})
    with pytest.raises(rayml.JobFailed, match=r"exited with .*\*\*\*"):
        run.wait()
    assert places_of(secret, store) == []


def test_a_pickled_result_may_not_hold_one(submit: Submit, store: Store, secret: str) -> None:
    run = submit(lambda: (os.environ["A_TOKEN"],), secrets={"A_TOKEN": secret})
    with pytest.raises(rayml.JobFailed, match="holds the value of a secret; return it without"):
        run.wait()
    assert places_of(secret, store) == []


def test_they_are_hidden_when_the_process_is_killed(
    submit: Submit, store: Store, secret: str, work: Path
) -> None:
    def job() -> None:
        print(os.environ["A_TOKEN"], flush=True)
        print(os.environ, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    (work / "dies.py").write_text(
        dedent("""
            import os
            print(os.environ["A_TOKEN"], os.environ, flush=True)
            os.kill(os.getpid(), 9)
        """)
    )
    for function in (job, "dies.py"):
        run = submit(function, secrets={"A_TOKEN": secret})
        with pytest.raises(rayml.JobFailed):
            run.wait(60)
        assert "***" in run.logs()
        assert places_of(secret, store) == []


def test_they_are_hidden_in_what_children_log(submit: Submit, store: Store, secret: str) -> None:
    def job() -> None:
        code = (
            "import os, rayml; token = os.environ['A_TOKEN'];"
            "rayml.context().log_param('token', token);"
            "rayml.context().log_metric(token, 1)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    run = submit(job, secrets={"A_TOKEN": secret}).wait()
    assert (run.params, run.metrics) == ({"token": "***"}, {"***": 1})
    assert places_of(secret, store) == []


@pytest.mark.slow
def test_each_rank_sees_them_and_none_tells_them(
    submit: Submit, store: Store, secret: str
) -> None:
    def job(context: rayml.Context) -> None:
        import torch

        value = os.environ["A_TOKEN"]
        print(value, hashlib.sha256(value.encode()).hexdigest())
        context.log_param(f"token of {context.rank}", value)
        context.flush()
        torch.distributed.barrier()
        if context.rank == 1:
            raise ValueError(value)

    two = rayml.Torch(workers=2, timeout_s=60)
    half = rayml.Resources(cpus=0.5)
    run = submit(job, engine=two, resources=half, secrets={"A_TOKEN": secret})
    with pytest.raises(rayml.JobFailed, match=r"rank 1: ValueError: \*\*\*"):
        run.wait(120)
    assert [run.logs(rank=rank) for rank in (0, 1)] == [f"*** {digest(secret)}\n"] * 2
    assert run.params == {"token of 0": "***", "token of 1": "***"}
    assert places_of(secret, store) == []


@pytest.mark.slow
@pytest.mark.parametrize("client", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_each_worker_of_dask_sees_them_and_none_tells_them(
    submit: Submit, store: Store, secret: str, work: Path, client: bool
) -> None:
    def job() -> None:
        import dask

        def look(_: int) -> str:
            (work / f"worker-{os.getpid()}").touch()
            eventually(lambda: len(list(work.glob("worker-*"))) == 2, 60)
            return hashlib.sha256(os.environ["A_TOKEN"].encode()).hexdigest()

        def fail() -> None:
            raise ValueError(os.environ["A_TOKEN"])

        print(*dask.compute(*[dask.delayed(look)(n) for n in range(2)]), sep="\n")
        dask.delayed(fail)().compute()

    two = rayml.Dask(workers=2, client=client)
    half = rayml.Resources(cpus=0.5)
    run = submit(job, engine=two, resources=half, secrets={"A_TOKEN": secret})
    with pytest.raises(rayml.JobFailed, match=r"ValueError: \*\*\*"):
        run.wait(120)
    assert run.logs() == f"{digest(secret)}\n" * 2
    assert places_of(secret, store) == []


def test_they_may_not_stand_in_what_is_recorded(
    submit: Submit, store: Store, secret: str, work: Path
) -> None:
    (work / "show.py").write_text("import sys; print(sys.argv[1])\n")

    def show(token: str) -> str:
        return hashlib.sha256(token.encode()).hexdigest()

    long = [secret, "x" * 5_000]
    run = submit(
        lambda token, long: (show(token), long)[0], params={"token": secret, "long": long},
        secrets={"A_TOKEN": secret},
    ).wait()  # fmt: skip
    assert run.result == digest(secret)
    assert run.params == {"token": "***", "long": ["***", "x" * 5_000]}
    for options in ({"env": {"OTHER": secret}}, {"args": [secret]}):
        with pytest.raises(rayml.SpecError, match="holds the value of a secret") as caught:
            submit("show.py", secrets={"A_TOKEN": secret}, **options)
        assert secret not in str(caught.value)
    assert places_of(secret, store) == []


def test_what_cannot_be_hidden_or_found_is_refused(submit: Submit, store: Store) -> None:
    with pytest.raises(rayml.SpecError, match="secret 'A_TOKEN' has 3 characters"):
        submit(lambda: None, secrets={"A_TOKEN": "abc"})
    with pytest.raises(rayml.SpecError, match="secret 'NO_SUCH_TOKEN' is not in the environment"):
        submit(lambda: None, secrets=["NO_SUCH_TOKEN"])
    with pytest.raises(rayml.SpecError, match="is text; give a list of names or a mapping"):
        submit(lambda: None, secrets="A_TOKEN")
    assert store.list("shards/") == []
