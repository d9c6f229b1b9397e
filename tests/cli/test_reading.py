"""Commands that read a store: no Ray runs in any of these tests."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import rayml
from rayml.store import open_store
from rayml.tracker.own import close_idle
from tests.cli.terminal import Terminal, call, command, environment

if TYPE_CHECKING:
    from pathlib import Path


def strict_json(text: str) -> object:
    """Parse JSON as a strict reader does, to which NaN is no number."""
    return json.loads(text, parse_constant=pytest.fail)


def fail_a_run(store: Path) -> None:
    with rayml.start_run("broken", store=store):
        raise KeyError("label")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A store, a run in it that succeeded, and a later one that failed."""
    store = tmp_path_factory.mktemp("reading") / "store"
    folder = store.with_name("report")
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    (folder / "b.txt").write_text("two")
    with rayml.start_run(
        "fit", experiment="flights", params={"depth": 4}, labels={"team": "red"}, store=store
    ) as context:
        for step, loss in enumerate((0.5, math.nan, math.inf)):
            context.log_metric("loss", loss, step=step)
        context.log_metric("härte 🎈", 0.25)
        context.log_metrics({"system/cpus": 1.5, "system/memory": 2**30}, step=10)
        context.log_artifact("notes", b"hello")
        context.log_artifact("report", folder)
        context.log_table("scores", {"fold": [1, 2], "score": [0.5, None]})
        good = context.run_id
    with pytest.raises(KeyError):
        fail_a_run(store)
    bad = rayml.get_run("latest", store=store).id
    return store, good, bad


@pytest.fixture
def rayml_in(written: tuple[Path, str, str], tmp_path: Path) -> Run:
    return Run(written[0], tmp_path)


class Run:
    """Calls commands on the store, in an empty folder."""

    def __init__(self, store: Path, folder: Path) -> None:
        self.store = store
        self.folder = folder

    def __call__(self, *words: object) -> subprocess.CompletedProcess[str]:
        return call(*words, "--store", self.store, cwd=self.folder)

    def json(self, *words: object) -> object:
        done = self(*words, "--json")
        assert done.returncode == 0, done.stderr
        return strict_json(done.stdout)


def test_list_shows_the_newest_first(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    _, good, bad = written
    done = rayml_in("list")
    header, first, second = done.stdout.splitlines()

    assert done.returncode == 0
    assert header.split() == [
        "id",
        "name",
        "experiment",
        "state",
        "started",
        "duration",
        "metrics",
    ]
    assert first.startswith(bad)
    assert "failed: KeyError: 'label'" in first
    assert second.startswith(good)
    assert "loss=inf, härte 🎈=0.25" in second
    assert done.stderr == ""


def test_list_can_be_limited(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    limited = rayml_in("list", "--limit", 1)
    filtered = rayml_in("list", "--experiment", "flights")

    assert written[1] not in limited.stdout
    assert limited.stderr == "rayml: 1 of 2 runs; --limit 2 lists all\n"
    assert [line.split()[0] for line in filtered.stdout.splitlines()[1:]] == [written[1]]


def test_list_gives_strict_json(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    runs = rayml_in.json("list")

    assert isinstance(runs, list)
    assert [run["id"] for run in runs] == [written[2], written[1]]
    assert runs[1]["metrics"] == {"loss": "inf", "härte 🎈": 0.25}


def test_list_of_a_store_without_runs_says_so(tmp_path: Path) -> None:
    done = call("list", "--store", "empty", cwd=tmp_path)
    data = call("list", "--store", "empty", "--json", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"rayml: store \S+/empty has no runs\n", done.stderr)
    assert strict_json(data.stdout) == []
    assert not (tmp_path / "empty").exists()


def test_list_warns_once_of_what_cannot_be_read(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with rayml.start_run("lost", store=store) as context:
        context.log_metric("loss", 1)
    close_idle()
    (shard,) = (store / "shards").iterdir()
    min(shard.glob("*.jsonl")).write_bytes(b"\0 these are \n no records \n")
    with rayml.start_run("kept", store=store) as context:
        context.log_metric("loss", 1)
    done = call("list", "--store", store, cwd=tmp_path)

    assert done.returncode == 0
    assert "kept" in done.stdout
    assert done.stderr.startswith("rayml: warning: some runs may be missing or cut off: ")
    assert done.stderr.count("\n") == 1


def test_parts_of_runs_are_left_out_of_the_list_until_they_are_asked_for(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with rayml.start_run("search", store=store) as context:
        for _ in range(3):
            with rayml.start_run("trial", parent=context.run_id, store=store):
                pass

    done = call("list", "--store", store, cwd=tmp_path)
    every = call("list", "--all", "--store", store, cwd=tmp_path)
    asked = call("list", "--where", "name = 'trial'", "--store", store, cwd=tmp_path)

    assert "trial" not in done.stdout
    assert "3 more are parts of others; --all lists them" in done.stderr
    assert every.stdout.count("trial") == asked.stdout.count("trial") == 3


def test_list_fits_the_terminal(written: tuple[Path, str, str], tmp_path: Path) -> None:
    terminal = Terminal("list", "--store", written[0], cwd=tmp_path)
    try:
        code = terminal.wait()
    finally:
        terminal.close()

    assert code == 0
    assert max(map(len, terminal.text.splitlines())) <= 100
    assert written[1] in terminal.text


@pytest.mark.parametrize("by", ["id", "beginning", "latest"])
def test_show_finds_a_run(rayml_in: Run, written: tuple[Path, str, str], by: str) -> None:
    bad = written[2]
    name = {"id": bad, "beginning": bad[:-2], "latest": "latest"}[by]
    done = rayml_in("show", name)

    assert done.returncode == 0
    assert re.search(rf"^run +{bad}$", done.stdout, re.MULTILINE)


def test_show_begins_with_the_users_own_traceback(rayml_in: Run) -> None:
    done = rayml_in("show", "latest")
    lines = done.stdout.splitlines()

    assert lines[0] == "Traceback (most recent call last):"
    assert 'raise KeyError("label")' in done.stdout
    assert "/rayml/tracking.py" not in done.stdout
    assert re.search(r"^state +failed: KeyError: 'label'$", done.stdout, re.MULTILINE)


def test_show_tells_all(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    store, good, _ = written
    done = rayml_in("show", good)
    facts = dict(re.findall(r"^(\w+) {2,}(.+)$", done.stdout, re.MULTILINE))

    assert (facts["name"], facts["experiment"], facts["state"]) == ("fit", "flights", "succeeded")
    assert facts["labels"] == "team=red"
    assert re.fullmatch(r"\d+\.\d s of CPU.*", facts["used"])
    assert facts["store"] == str(store)
    assert facts["submitter"].endswith(tuple("0123456789abcdef"))
    assert "params\n  depth  4\n" in done.stdout
    assert re.search(r"^ {2}loss +inf$", done.stdout, re.MULTILINE)
    assert (
        "system\n  cpus    1.5, at most 1.5\n  memory  1.0 GiB, at most 1.0 GiB\n" in done.stdout
    )
    assert re.search(
        rf"^ {{2}}notes +file +5 B +rayml://runs/{good}/notes$", done.stdout, re.MULTILINE
    )


def test_show_gives_strict_json(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    good, bad = rayml_in.json("show", written[1]), rayml_in.json("show", written[2])

    assert isinstance(good, dict)
    assert isinstance(bad, dict)
    assert (good["state"], good["error"], good["result"]) == ("succeeded", None, None)
    assert good["params"] == {"depth": 4}
    assert good["system"]["cpus"] == {"last": 1.5, "max": 1.5}
    assert good["cpu_s"] > 0
    assert good["artifacts"]["notes"]["size"] == 5
    assert good["duration_s"] >= 0
    assert bad["error"]["message"] == "KeyError: 'label'"
    assert bad["error"]["traceback"].startswith("Traceback")


def test_an_unknown_run_is_a_wrong_call(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    done = rayml_in("show", written[1] + "x")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("rayml: store ")
    assert f"did you mean {written[1]!r}?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_history_is_csv_in_a_pipe(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    done = rayml_in("history", written[1], "loss")
    rows = list(csv.DictReader(done.stdout.splitlines()))

    assert [(row["step"], row["value"]) for row in rows] == [
        ("0", "0.5"),
        ("1", "nan"),
        ("2", "inf"),
    ]
    assert rows[0]["time"].endswith("+00:00")


def test_history_goes_along_another_metric(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    done = rayml_in("history", written[1], "loss", "--axis", "loss")
    rows = list(csv.DictReader(done.stdout.splitlines()))

    assert [row["axis"] for row in rows] == [row["value"] for row in rows] == ["0.5", "nan", "inf"]


def test_history_gives_strict_json(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    points = rayml_in.json("history", written[1], "loss")

    assert isinstance(points, list)
    assert [(point["step"], point["value"]) for point in points] == [
        (0, 0.5),
        (1, "nan"),
        (2, "inf"),
    ]


def test_history_of_an_unknown_metric_suggests_one(
    rayml_in: Run, written: tuple[Path, str, str]
) -> None:
    done = rayml_in("history", written[1], "lost")

    assert done.returncode == 2
    assert done.stderr.endswith("has no metric 'lost'; did you mean 'loss'?\n")


def test_logs_of_a_run_that_printed_nothing(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    done = rayml_in("logs", "-f", written[1])

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"rayml: run {written[1]} succeeded\n"


def test_cancel_leaves_an_ended_run_as_it_is(
    rayml_in: Run, written: tuple[Path, str, str]
) -> None:
    done = rayml_in("cancel", written[1])

    assert done.returncode == 0
    assert done.stderr == f"rayml: run {written[1]} has ended already: succeeded\n"


def test_artifacts_are_listed_with_their_uris(
    rayml_in: Run, written: tuple[Path, str, str]
) -> None:
    lines = rayml_in("artifact", "list", written[1]).stdout.splitlines()
    data = rayml_in.json("artifact", "list", written[1])

    assert lines[0].split() == ["notes", "file", "5", "B", f"rayml://runs/{written[1]}/notes"]
    assert isinstance(data, list)
    assert [artifact["name"] for artifact in data] == ["notes", "report", "scores"]


def test_an_artifact_is_looked_at(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    table = rayml_in("artifact", "show", written[1], "scores")
    data: Any = rayml_in.json("artifact", "show", f"rayml://runs/{written[1]}/scores")

    assert table.stdout == "fold,score\n1,0.5\n2,\n"
    assert (data["name"], data["meta"]["statistics"]["score"]["nulls"]) == ("scores", 1)


def test_an_artifact_is_fetched_by_name_or_uri(
    rayml_in: Run, written: tuple[Path, str, str]
) -> None:
    by_name = rayml_in("artifact", "get", written[1], "report")
    by_uri = rayml_in("artifact", "get", f"rayml://runs/{written[1]}/notes", "--to", "in/here.txt")
    folder = rayml_in.folder

    assert by_name.stdout == f"{folder / 'report'}\n"
    assert {p.name: p.read_text() for p in (folder / "report").iterdir()} == {
        "a.txt": "one",
        "b.txt": "two",
    }
    assert by_uri.stdout == f"{folder / 'in' / 'here.txt'}\n"
    assert (folder / "in" / "here.txt").read_bytes() == b"hello"


def test_an_artifact_never_overwrites(rayml_in: Run, written: tuple[Path, str, str]) -> None:
    mine = rayml_in.folder / "notes"
    mine.write_text("mine")
    done = rayml_in("artifact", "get", written[1], "notes")

    assert (done.returncode, done.stdout) == (2, "")
    assert "exists already; choose a path that does not" in done.stderr
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["artifact", "get", "latest", "notse"], "has no artifact 'notse'; there are none"),
        (["artifact", "get", "latest"], "'latest' names no artifact; give RUN and NAME"),
        (["artifact", "get", "rayml://runs/x"], "is not the URI of an artifact"),
        (["artifact", "get", "latest", "x", "--to", "/proc/no/x"], "has no artifact 'x'"),
    ],
)
def test_a_wrong_artifact_is_a_wrong_call(rayml_in: Run, words: list[str], message: str) -> None:
    done = rayml_in(*words)

    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_place_that_cannot_be_written_is_a_wrong_call(
    rayml_in: Run, written: tuple[Path, str, str]
) -> None:
    done = rayml_in("artifact", "get", written[1], "notes", "--to", "/proc/no/such")

    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "Missing argument 'TARGET'; see rayml run --help"),
        (["run", "x.py", "--gpu", "1"], "No such option: --gpu (Possible options: "),
        (["run", "x.py", "--cpus", "many"], "Invalid value for '--cpus': "),
        (["run", "x.py", "-p", "depth"], "-p 'depth' has no name or value; write -p NAME=VALUE"),
        (["run", "x.py", "--memory", "banana"], "memory='banana' is not a quantity"),
        (["run", "x.py", "--attempts", "0"], "attempts=0 is not a count"),
        (["run", "x.py", "--timeout-s", "-1"], "timeout_s=-1.0 is not a time"),
        (["run", "x.py", "-r", "a", "--requirements", "b"], "by -r and by --requirements b"),
        (["run", "x.py", "--secret", "NO_SUCH"], "secret 'NO_SUCH' is not in the environment"),
        (["run", "y.py"], "y.py; did you mean 'x.py'?"),
        (["run", "x.py:trian"], "x.py has no function 'trian'; did you mean 'train'?"),
        (["run", "x.py:train", "-p", "dept=4"], "no parameter 'dept'; did you mean 'depth'?"),
        (["run", "x.py:train", "-p", "depth=deep"], "parameter 'depth' is 'deep'"),
        (["run", "x.py:train"], "the function needs a value for 'depth'"),
        (["run", "bad.py"], "bad.py:1 is not valid Python: "),
        (["list", "--store", "ftp://x"], "has the scheme 'ftp', which rayml cannot store to"),
        (["lits"], "No such command 'lits'"),
    ],
)
def test_a_wrong_call_is_one_line_and_2(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "x.py").write_text("def train(depth: int): ...\n")
    (tmp_path / "bad.py").write_text("def\n")
    done = call(*words, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.startswith("rayml: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".rayml").exists()


def test_a_store_that_does_not_answer_is_3(tmp_path: Path) -> None:
    nobody = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_REGION": "us-east-1",
    }
    done = call("list", "--store", "s3://bucket/runs", cwd=tmp_path, env=nobody)

    assert (done.returncode, done.stdout) == (3, "")
    assert "store s3://bucket/runs did not answer" in done.stderr


def test_automatic_logging_is_on_unless_it_is_turned_off(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("print(1)")
    for words, is_on in ((), True), (("--autolog",), True), (("--no-autolog",), False):
        done = call("run", "x.py", "--dry-run", *words, cwd=tmp_path)
        assert json.loads(done.stdout)["autolog"] is is_on


def test_dry_run_prints_the_job_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def train(depth: int, rate=0.5): ...\n")
    words = ["--dry-run", "-p", "depth=4", "x.py:train", "-p", "rate=none", "--memory", "1Gi"]
    done = call("run", *words, "--env", "A=b=c", "--label", "team=red", cwd=tmp_path)
    job = strict_json(done.stdout)

    assert done.returncode == 0
    assert isinstance(job, dict)
    assert job["params"] == {"depth": 4, "rate": "none"}
    assert job["resources"]["memory"] == "1Gi"
    assert (job["env"], job["labels"]) == ({"A": "b=c"}, {"team": "red"})
    assert not (tmp_path / ".rayml").exists()


def test_words_after_two_dashes_are_the_scripts(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("")
    done = call("run", "x.py", "--dry-run", "--", "--epochs", "3", "-p", cwd=tmp_path)
    job = strict_json(done.stdout)

    assert isinstance(job, dict)
    assert job["args"] == ["--epochs", "3", "-p"]


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    done = call("--help", cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}

    assert done.returncode == 0
    assert "list" in done.stdout
    assert "typer" in loaded
    assert loaded & {"ray", "pandas", "numpy", "pyarrow", "obstore", "rich.live"} == set()


def test_a_reader_that_has_seen_enough_ends_a_listing_quietly(
    written: tuple[Path, str, str],
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command(["list", "--store", written[0]]),
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)

    assert done.stderr == b""


def test_version(tmp_path: Path) -> None:
    assert call("--version", cwd=tmp_path).stdout == f"{rayml.__version__}\n"


def test_a_run_whose_process_has_gone_is_not_left_running(tmp_path: Path) -> None:
    code = (
        "import os, rayml\n"
        "with rayml.start_run('killed', store='store') as context:\n"
        "    context.log_metric('loss', 1)\n"
        "    context.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    done = call("list", "--store", "store", cwd=tmp_path)

    assert "failed: the process" in done.stdout
    assert "loss=1" in done.stdout
    assert open_store(tmp_path / "store").is_local
