"""A run's job again: what is taken from its record, what is laid over it, and what is refused.

Runs are recorded here without being executed, and rerun by `dry_run`; tests/ray executes some.
"""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import msgspec
import pandas as pd
import pytest

import rayml
from rayml.code import pack_folder
from rayml.environment import runtime_env
from rayml.installed import list_installed
from rayml.job import submit
from rayml.rerun import find_signature
from rayml.runner import Payload, _load_payload
from rayml.spec import InputRecord, Spec, Target, is_exact
from rayml.store.folder import Folder
from rayml.tracker.journal import Journal
from rayml.tracker.long_params import keep_long
from rayml.tracker.records import Submission
from rayml.tracker.submissions import create_submission
from tests.cli.terminal import call
from tests.unit.journals import OWNER, Replayed, encode, make_spec, started, submitted

if TYPE_CHECKING:
    from rayml.tracker.records import Record

TRAIN = "def train(depth: int = 3, rate=0.1, table=None): ...\n"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "table.csv").write_text("a\n1\n")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture
def record(store: Folder, work: Path) -> Any:
    """Return what records a run of `submit`'s arguments here, as if another process had."""

    def record(function: Any = "train.py:train", *more: Record, **options: Any) -> rayml.Run:
        given = {"working_dir": work, "store": store, **options}
        spec = submit(function, dry_run=True, **given)
        assert isinstance(spec, Spec)
        long = keep_long(options.get("params", {}), store)
        return write(store, msgspec.structs.replace(spec, long_params=long), *more)

    return record


def write(store: Folder, spec: Spec, *more: Record) -> rayml.Run:
    journal = Journal(store, f"shard-{spec.run}")
    journal.open(OWNER, Replayed())
    first = msgspec.structs.replace(submitted(spec.run), spec=spec)
    rest = [msgspec.structs.replace(one, run=spec.run) for one in more]
    journal.append([encode(first, *rest, producer=spec.run)])
    return rayml.get_run(spec.run, store=store)


def send(store: Folder, folder: Path, payload: Payload, **fields: Any) -> rayml.Run:
    """Lay a run into the store as it is sent to a cluster."""
    code = pack_folder(folder, store)
    spec = make_spec("sent", cluster="http://head:8265", working_dir=code, **fields)
    packed = store.add(BytesIO(cloudpickle.dumps(payload))).digest
    assert create_submission(store, Submission(spec=spec, payload=packed, code=code))
    return rayml.get_run("sent", store=store)


def again(run: rayml.Run, **overrides: Any) -> Spec:
    spec = run.rerun(dry_run=True, **overrides)
    assert isinstance(spec, Spec)
    return spec


# What stays


def test_a_rerun_is_the_same_job(record: Any, work: Path) -> None:
    run = record(
        params={"depth": 4},
        inputs={"table": "table.csv"},
        args=["--fast"],
        name="fit",
        experiment="flights",
        labels={"team": "red"},
        resources=rayml.Resources(cpus=2, memory="1Gi"),
        engine=rayml.Torch(workers=2),
        requirements=["six"],
        env={"A": "1"},
        retry=rayml.Retry(attempts=2),
        timeout_s=60,
        start_timeout_s=30,
        autolog=True,
        image="ray:2",
        cluster="local",
    )
    spec = again(run)

    new = {"run": spec.run, "origin": spec.origin, "submitted_at": spec.submitted_at}
    assert spec == msgspec.structs.replace(run.spec, rerun_of=run.id, **new)
    assert spec.run != run.id


def test_values_arrive_as_they_were(record: Any) -> None:
    params = {"depth": 4, "rate": {"low": [0.5, None], "long": "x" * 5000}}
    run = record(params={**params, "table": 0})
    with pytest.raises(rayml.SpecError, match="wants int"):
        again(run, params={"depth": "deep"})
    assert again(run).params == run.spec.params


def test_a_script_and_a_module_are_run_again(record: Any, work: Path) -> None:
    (work / "fit.py").write_text("")
    assert again(record("fit.py", args=["-v"])).args == ["-v"]
    assert again(record("train:train")).target.module == "train"


def test_a_rerun_of_a_rerun_names_the_one_that_it_repeats(record: Any, store: Folder) -> None:
    first = record()
    second = write(store, again(first, params={"depth": 5}))
    assert again(second).rerun_of == second.id
    assert again(second).params == {"depth": 5}
    assert f"rerun of {first.id}" in str(rayml.lineage(second.id, store=store))
    found = rayml.runs(where=f"rerun_of = '{first.id}'", store=store)
    assert [run.id for run in found] == [second.id]


# What is laid over


def test_values_are_laid_over_by_name(record: Any, work: Path, tmp_path: Path) -> None:
    run = record(
        params={"depth": 4, "rate": 1},
        inputs={"table": "table.csv"},
        env={"A": "1", "B": "2"},
        labels={"team": "red", "by": "ada"},
    )
    (tmp_path / "other.csv").write_text("")
    spec = again(
        run,
        params={"rate": None},
        inputs={"table": str(tmp_path / "other.csv")},
        env={"A": None, "C": "3"},
        labels={"team": "blue"},
    )
    assert spec.params == {"depth": 4, "rate": None}
    assert spec.inputs["table"].uri == str(tmp_path / "other.csv")
    assert spec.env == {"B": "2", "C": "3"}
    assert spec.labels == {"team": "blue", "by": "ada"}
    assert again(run, inputs={"table": None}).inputs == {}


def test_a_parameter_takes_the_place_of_an_input_and_the_other_way_round(record: Any) -> None:
    run = record(params={"rate": 1}, inputs={"table": "table.csv"})
    spec = again(run, params={"table": 5}, inputs={"rate": "s3://bucket/rates"})
    assert (spec.params, list(spec.inputs)) == ({"table": 5}, ["rate"])


def test_a_new_path_is_relative_to_the_folder_of_now(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record()
    (tmp_path / "new.csv").write_text("")
    monkeypatch.chdir(tmp_path)
    assert again(run, inputs={"table": "new.csv"}).inputs["table"].uri == str(tmp_path / "new.csv")


def test_all_else_is_replaced(record: Any, tmp_path: Path) -> None:
    run = record(args=["-v"], requirements=["six"], resources=rayml.Resources(cpus=2, gpus=1))
    (tmp_path / "train.py").write_text(TRAIN)
    spec = again(
        run,
        args=[],
        requirements=[],
        resources=rayml.Resources(cpus=1),
        name="other",
        working_dir=tmp_path,
        timeout_s=5,
    )
    assert (spec.args, spec.requirements, spec.name, spec.timeout_s) == ([], [], "other", 5)
    assert spec.resources == rayml.Resources(cpus=1)
    assert spec.target.file == str(tmp_path / "train.py")


def test_an_engine_and_resources_do_not_contradict_what_was_before(record: Any) -> None:
    run = record(engine=rayml.Torch(workers=4), resources=rayml.Resources(memory="1Gi"))
    more = again(run, resources=rayml.Resources(memory="2Gi"))
    assert (more.resources.workers, more.resources.memory) == (4, "2Gi")
    assert again(run, resources=rayml.Resources(workers=2)).resources.workers == 2
    assert again(run, engine=rayml.Torch(workers=3)).resources.workers == 3
    assert again(run, engine=None).resources == rayml.Resources(memory="1Gi")


def test_another_function_takes_the_same_values(record: Any) -> None:
    run = record(lambda depth: depth, params={"depth": 4})
    assert again(run, function="train.py:train").params == {"depth": 4}
    assert again(run, function=lambda depth: -depth).target.kind == "callable"


def test_an_unknown_argument_is_named(record: Any) -> None:
    with pytest.raises(rayml.SpecError, match=r"takes no 'param'; did you mean 'params'\?"):
        record().rerun(param={"depth": 4})
    with pytest.raises(rayml.SpecError, match="params='depth' is no dict"):
        record().rerun(params="depth")


# What cannot be repeated


def test_a_block_of_code_was_never_submitted(store: Folder) -> None:
    with rayml.start_run(store=store) as context:
        pass
    with pytest.raises(rayml.SpecError, match="block of code that was not submitted; run that"):
        rayml.get_run(context.run_id, store=store).rerun()


def test_a_function_of_another_process_is_asked_for(record: Any) -> None:
    with pytest.raises(rayml.SpecError, match=r"of the process .* not stored; give it as func"):
        record(lambda: None).rerun()


def test_an_object_in_memory_is_asked_for(record: Any) -> None:
    run = record(inputs={"table": pd.DataFrame({"a": [1]})})
    with pytest.raises(rayml.SpecError, match=r"'table' of run .* memory://.*; give inputs={'ta"):
        run.rerun()
    assert again(run, inputs={"table": "s3://bucket/table"}).inputs["table"].kind == "uri"


@pytest.mark.parametrize("value", [(1, 2), float("nan"), b"x", {1: 2}, {"a": {3}}, 2**70])
def test_a_parameter_that_is_only_described_is_asked_for(record: Any, value: object) -> None:
    run = record(params={"rate": value})
    assert (is_exact(value), run.spec.described) == (False, ["rate"])
    with pytest.raises(rayml.SpecError, match=r"'rate' of run .* its record, .*; give params={"):
        run.rerun()
    assert again(run, params={"rate": 1}).described == []


def test_a_parameter_that_had_a_secret_in_it_is_asked_for(
    record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t-word")
    run = record(params={"rate": {"url": "https://s3cr3t-word@host"}}, secrets=["TOKEN"])
    assert "s3cr3t-word" not in str(run.spec)
    with pytest.raises(rayml.SpecError, match="parameter 'rate' of run"):
        run.rerun()


def test_secrets_are_taken_from_the_environment_or_given(
    record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t-word")
    run = record(secrets=["TOKEN"])
    assert again(run).secrets == ["TOKEN"]
    monkeypatch.delenv("TOKEN")
    with pytest.raises(rayml.SpecError, match="secret 'TOKEN' is not in the environment"):
        run.rerun()
    assert again(run, secrets={"TOKEN": "an0ther", "KEY": "m0re"}).secrets == ["KEY", "TOKEN"]
    assert again(run, secrets={"TOKEN": None}).secrets == []


def test_a_file_that_is_gone_is_named(record: Any, work: Path) -> None:
    run = record(inputs={"table": "table.csv"})
    (work / "table.csv").unlink()
    with pytest.raises(rayml.SpecError, match=r"input 'table': there is no '.*table\.csv'"):
        run.rerun()
    (work / "train.py").unlink()
    with pytest.raises(rayml.SpecError, match=r"there is no file .*train\.py"):
        again(run, inputs={"table": None})
    work.rename(work.with_name("gone"))
    with pytest.raises(rayml.SpecError, match=r"work of .*, which is not a folder here; give wor"):
        run.rerun()


def test_an_artifact_of_another_store_is_asked_for(
    record: Any, store: Folder, tmp_path: Path
) -> None:
    with rayml.start_run(store=store) as context:
        context.log_artifact("rates", b"1")
    run = record(inputs={"table": f"rayml://runs/{context.run_id}/rates"})
    assert again(run).inputs["table"].uri == f"rayml://runs/{context.run_id}/rates"
    with pytest.raises(rayml.SpecError, match=r"'table' of run .* is an artifact in .*; give in"):
        run.rerun(store=tmp_path / "other")


# Code


def test_another_commit_is_told(
    record: Any, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def commit() -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        words = ["git", *who, "commit", "--quiet", "--allow-empty", "-m", "x"]
        subprocess.run(words, cwd=work, check=True)

    subprocess.run(["git", "init", "--quiet"], cwd=work, check=True)
    commit()
    run = record()
    again(run)
    assert capsys.readouterr().err == ""
    commit()
    spec = again(run)
    then, now = run.spec.origin.commit, spec.origin.commit
    assert then
    assert now
    assert capsys.readouterr().err == (
        f"rayml: run {run.id} was at commit {then[:10]}, and its code is at {now[:10]} now\n"
    )


def test_packed_code_is_used_as_it_was(store: Folder, work: Path) -> None:
    target = Target(kind="file", text="train.py:train", file="train.py", function="train")
    params = {"depth": 4}
    run = send(store, work, Payload(params=dict(params)), target=target, params=params)
    (work / "train.py").write_text("def other(): ...\n")

    spec = again(run, params={"rate": 1}, cluster="local")
    assert (spec.params, spec.cluster) == ({"depth": 4, "rate": 1}, "local")
    assert Path(spec.target.file).read_text() == TRAIN
    with pytest.raises(rayml.SpecError, match="no function 'train'; known: 'other'"):
        again(run, working_dir=work)
    signature = find_signature(run, {})
    assert signature is not None
    assert list(signature.named) == ["depth", "rate", "table"]


def test_what_only_the_packed_payload_has_is_left_in_it(store: Folder, work: Path) -> None:
    recorded: dict[str, object] = {"depth": 4, "rate": "Timestamp('2026-01-01')"}
    table = InputRecord(name="table", uri="memory://DataFrame", kind="memory")
    target = Target(kind="callable", text="m.train", function="train")
    run = send(
        store, work, Payload(), target=target, params=recorded, described=["rate"],
        inputs={"table": table},
    )  # fmt: skip

    spec = again(run, params={"depth": 5}, cluster="local")
    assert (spec.params, spec.described) == ({**recorded, "depth": 5}, ["rate"])
    assert (spec.inputs, spec.target) == ({"table": table}, target)
    with pytest.raises(rayml.SpecError, match="'rate' of run sent cannot be told"):
        run.rerun(function="train.py:train")


def test_a_payload_takes_what_it_lacks_from_the_one_before() -> None:
    first = Payload(lambda depth: -depth, {"depth": 4, "when": {1}, "gone": 0}, {"table": b"1"})
    second = Payload(params={"depth": 5}, base=cloudpickle.dumps(first), kept=("when",))
    third = Payload(inputs={"table": b"2"}, base=cloudpickle.dumps(second), kept=("depth",))
    arrived = _load_payload(cloudpickle.dumps(second))
    assert (arrived.params, arrived.inputs) == ({"depth": 5, "when": {1}}, {"table": b"1"})
    arrived = _load_payload(cloudpickle.dumps(third))
    assert (arrived.params, arrived.inputs) == ({"depth": 5}, {"table": b"2"})
    assert arrived.function is not None
    assert arrived.function(7) == -7


# The command line


def test_words_are_read_by_the_signature_and_laid_over(record: Any, tmp_path: Path) -> None:
    run = record(
        params={"depth": 4, "rate": 1},
        args=["-v"],
        resources=rayml.Resources(memory="1Gi"),
        engine=rayml.Torch(workers=4),
    )
    words = ["rerun", run.id, "--store", run.store.uri, "--dry-run"]
    done = call(*words, "-p", "depth=8", "--workers", "1", "--label", "a=b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spec = msgspec.json.decode(done.stdout, type=Spec)
    assert (spec.params, spec.args, spec.labels) == ({"depth": 8, "rate": 1}, ["-v"], {"a": "b"})
    assert (spec.resources.workers, spec.resources.memory) == (1, "1Gi")
    assert (spec.rerun_of, spec.working_dir) == (run.id, run.spec.working_dir)

    wrong = call(*words, "-p", "depth=deep", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("rayml: parameter 'depth' is 'deep'")
    missing = call("rerun", "nothing", *words[2:], cwd=tmp_path)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


# Packages


def test_the_packages_that_a_run_has_found_are_required_in_their_versions(
    record: Any, store: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = "# mine==1 was installed from file:///mine\n# rayml==0 was installed from file:///r\n"
    listed += "numpy==1.0\nray==2.0\nsix==1.0\n"
    digest = store.add(BytesIO(listed.encode())).digest
    begun = msgspec.structs.replace(started(), packages=digest)
    run = record("train.py:train", begun, requirements=["six", "./mine"])

    assert again(run, packages=True).requirements == ["./mine", "numpy==1.0", "six==1.0"]
    said = "rayml: not installed again: mine==1 was installed from file:///mine\n"
    assert capsys.readouterr().err == said
    other = again(run, packages=True, requirements=["NumPy>=2"]).requirements
    assert other == ["./mine", "NumPy>=2", "six==1.0"]
    with pytest.raises(rayml.SpecError, match="has not begun, and its packages are not known"):
        record().rerun(packages=True)


def test_of_a_whole_environment_only_what_is_not_here_is_installed() -> None:
    said: list[str] = []
    pins = [line for line in list_installed().splitlines() if not line.startswith("#")]
    assert runtime_env(make_spec(requirements=pins), None, said.append) == {}

    older = ["six==1.15.0" if line.startswith("six==") else line for line in pins]
    made = runtime_env(make_spec(requirements=older), None, said.append)
    assert str(made["py_executable"]).endswith(" --with six==1.15.0 python")
    assert said == ["installing six==1.15.0"]
    with pytest.raises(rayml.SpecError, match=r"ray==2\.0"):
        runtime_env(make_spec(requirements=[*pins, "ray==2.0"]), None, said.append)
