"""Commands that ask about several runs, change them, and register models; no Ray runs here."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import rayml
from tests.cli.terminal import Terminal, call
from tests.cli.test_reading import Run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two runs: shallow, with a model, and deep."""
    store = tmp_path / "store"
    for name, depth, auc in (("shallow", 2, 0.7), ("deep", 8, 0.9)):
        params = {"seed": 1, "tree": {"depth": depth}}
        with rayml.start_run(name, params=params, store=store) as context:
            context.log_metric("auc", auc)
            if name == "shallow":
                context.log_model("model", depth, format="pickle")
    return store


@pytest.fixture
def rayml_in(store: Path, tmp_path: Path) -> Run:
    return Run(store, tmp_path)


def run_id(store: Path, name: str) -> str:
    (run,) = rayml.runs(where=f"name = '{name}'", store=store)
    return run.id


def listed(done: object) -> list[str]:
    return [line.split()[1] for line in getattr(done, "stdout", "").splitlines()[1:]]


def test_list_filters_and_sorts(rayml_in: Run) -> None:
    assert listed(rayml_in("list", "--order-by", "metrics.auc")) == ["shallow", "deep"]
    assert listed(rayml_in("list", "--where", "params.tree.depth > 4")) == ["deep"]
    none = rayml_in("list", "--where", "params.tree.depth > 40")
    assert (none.returncode, none.stdout) == (0, "")
    assert none.stderr.endswith("has no runs that meet --where\n")
    found = rayml_in.json("list", "--where", "metrics.auc > 0.8")
    assert isinstance(found, list)
    assert [run["name"] for run in found] == ["deep"]


def test_a_where_with_sql_in_it_is_a_wrong_call(rayml_in: Run) -> None:
    done = rayml_in("list", "--where", "1=1; drop table runs")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has '; drop table runs', at character 4;" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_archived_run_is_listed_with_all(rayml_in: Run, store: Path) -> None:
    deep = run_id(store, "deep")
    done = rayml_in("archive", deep)
    assert (done.returncode, done.stderr) == (0, f"rayml: run {deep} is archived\n")
    assert listed(rayml_in("list")) == ["shallow"]
    assert listed(rayml_in("list", "--all")) == ["deep", "shallow"]
    assert listed(rayml_in("list", "--all", "--where", "metrics.auc > 0.8")) == ["deep"]
    assert "archived    yes" in rayml_in("show", deep).stdout
    assert rayml_in("unarchive", deep).returncode == 0
    assert listed(rayml_in("list")) == ["deep", "shallow"]


def test_a_deleted_run_comes_back(rayml_in: Run, store: Path) -> None:
    runs = [run_id(store, name) for name in ("deep", "shallow")]
    assert rayml_in("delete", *runs).returncode == 0
    assert rayml_in("list", "--all").stdout == ""
    shown = rayml_in("show", runs[0])
    assert shown.returncode == 2
    assert f"bring it back by `rayml undelete {runs[0]}`" in shown.stderr
    assert rayml_in("undelete", *runs).stderr.count(" is back\n") == 2
    assert listed(rayml_in("list")) == ["deep", "shallow"]


def test_nothing_changes_if_one_of_the_runs_is_not_there(rayml_in: Run, store: Path) -> None:
    done = rayml_in("archive", run_id(store, "deep"), "nobody")
    assert done.returncode == 2
    assert "has no run 'nobody'" in done.stderr
    assert listed(rayml_in("list")) == ["deep", "shallow"]


def test_labels_and_notes_are_shown(rayml_in: Run) -> None:
    assert rayml_in("label", "latest", "team=red", "tier=gold").returncode == 0
    assert rayml_in("label", "latest", "--remove", "tier").returncode == 0
    assert rayml_in("note", "latest", "see the other one").returncode == 0
    shown = rayml_in("show", "latest").stdout
    assert "labels      team=red\n" in shown
    assert "notes       see the other one\n" in shown
    data = rayml_in.json("show", "latest")
    assert isinstance(data, dict)
    assert (data["labels"], data["notes"]) == ({"team": "red"}, "see the other one")
    assert rayml_in("label", "latest").returncode == 2
    assert "write label NAME=VALUE" in rayml_in("label", "latest", "team").stderr


def test_compare_shows_what_differs(rayml_in: Run, store: Path) -> None:
    names = [run_id(store, name) for name in ("shallow", "deep")]
    done = rayml_in("compare", *names)
    assert list(csv.reader(done.stdout.splitlines())) == [
        ["name", *names], ["params.tree.depth", "2", "8"], ["metrics.auc", "0.7", "0.9"],
    ]  # fmt: skip
    found = rayml_in.json("compare", "--where", "metrics.auc > 0")
    assert isinstance(found, list)
    assert found[1] == {"name": "metrics.auc", names[0]: 0.7, names[1]: 0.9}
    alone = rayml_in("compare", names[0])
    assert alone.returncode == 2
    assert "1 run(s) cannot be compared; name two, or use --where" in alone.stderr


def test_a_model_is_registered_named_and_loaded(rayml_in: Run, store: Path) -> None:
    uri = f"rayml://runs/{run_id(store, 'shallow')}/model"
    done = rayml_in("model", "register", uri, "churn", "--alias", "candidate")
    assert (done.returncode, done.stdout) == (0, "rayml://models/churn@1\n")
    moved = rayml_in("model", "alias", "churn", "production", "candidate")
    assert moved.stderr == "rayml: churn@production is churn@1\n"
    assert rayml_in("model", "tag", "churn", "owner=ada").returncode == 0
    assert rayml_in("model", "tag", "churn", "ok=yes", "--version", "production").returncode == 0
    assert rayml_in("model", "alias", "churn", "candidate", "--remove").returncode == 0

    assert rayml.load_model("rayml://models/churn@production", trusted=True, store=store) == 2
    header, line = rayml_in("model", "list").stdout.splitlines()
    assert header.split() == ["model", "versions", "aliases", "tags"]
    assert line.split() == ["churn", "1", "production=1", "owner=ada"]
    shown = rayml_in("model", "show", "churn").stdout
    assert uri in shown
    assert re.search(r"candidate,,\w+\n$", shown)
    data = rayml_in.json("model", "show", "churn")
    assert isinstance(data, dict)
    assert data["versions"][0]["tags"] == {"ok": "yes"}
    assert [move["version"] for move in data["history"]] == [1, 1, None]
    got = rayml_in("artifact", "get", "rayml://models/churn@production")
    assert got.stdout.endswith("/model.pkl\n")


def test_a_model_s_signature_and_requirements_are_shown(rayml_in: Run, store: Path) -> None:
    sklearn = pytest.importorskip("sklearn.dummy")
    rows = pd.DataFrame({"age": [30, 40], "paid": [1.5, 2.5]})
    with rayml.start_run(store=store) as context:
        model = sklearn.DummyClassifier().fit(rows, ["no", "no"])
        artifact = context.log_model("dummy", model, input_example=rows)
    rayml.register_model(artifact, "churn")

    shown = rayml_in("model", "show", "churn").stdout
    assert re.search(r"version 1 +sklearn\.dummy\.DummyClassifier, skops\n", shown)
    assert re.search(r"inputs +age int64, paid float64\noutputs +str\n", shown)
    assert re.search(r"requirements +scikit-learn==\S+ skops==\S+\n", shown)
    data = rayml_in.json("model", "show", "churn")
    assert isinstance(data, dict)
    assert data["versions"][0]["signature"]["inputs"][0]["name"] == "age"
    assert data["versions"][0]["requirements"] == artifact.meta["requirements"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["model", "show", "nothing"], "has no model 'nothing'; there are none"),
        (["model", "register", "churn", "churn"], "'churn' is not the URI of an artifact"),
        (["model", "alias", "churn", "production"], "give VERSION, or --remove"),
        (["lineage", "rayml://models/x"], "has no model 'x'"),
        (["sql", "drop table runs"], "may have one SELECT"),
        (["sql", "select x from runs"], 'Referenced column "x" not found'),
    ],
)
def test_a_wrong_question_is_one_line_and_2(rayml_in: Run, words: list[str], problem: str) -> None:
    done = rayml_in(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_empty_store_has_no_models_and_no_experiments(tmp_path: Path) -> None:
    for words, problem in ((["model", "list"], "no models"), (["experiments"], "no runs")):
        done = call(*words, "--store", "empty", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "")
        assert problem in done.stderr
        assert call(*words, "--store", "empty", "--json", cwd=tmp_path).stdout == "[]\n"


def test_lineage_is_a_tree(rayml_in: Run, store: Path) -> None:
    run = run_id(store, "shallow")
    done = rayml_in("lineage", run)
    assert done.stdout == (
        f"run {run} (shallow, succeeded)\nto\n  model rayml://runs/{run}/model\n"
    )
    steps = rayml_in.json("lineage", f"rayml://runs/{run}/model")
    assert isinstance(steps, list)
    assert [step["source"] for step in steps] == [f"rayml://runs/{run}"]


def test_experiments_are_counted(rayml_in: Run) -> None:
    found = rayml_in.json("experiments")
    assert isinstance(found, list)
    assert [(one["name"], one["runs"]) for one in found] == [("default", 2)]
    assert rayml_in("experiments").stdout.splitlines()[1].split()[:2] == ["default", "2"]


def test_sql_answers_in_csv_and_json(rayml_in: Run) -> None:
    query = "select name, duration_s is null as n, ended_at from runs order by name"
    done = rayml_in("sql", query)
    lines = list(csv.reader(done.stdout.splitlines()))
    assert lines[0] == ["name", "n", "ended_at"]
    assert lines[1][:2] == ["deep", "False"]
    found = rayml_in.json("sql", query)
    assert isinstance(found, list)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", found[0]["ended_at"])


def test_sql_tells_what_is_missing_from_what_is_no_number(rayml_in: Run) -> None:
    found = rayml_in.json("sql", "select 'nan'::double as a, null::double as b, 1.5 as c")
    assert found == [{"a": "nan", "b": None, "c": 1.5}]


def test_a_terminal_gets_tables(store: Path, tmp_path: Path) -> None:
    terminal = Terminal("compare", "--where", "metrics.auc > 0", "--store", store, cwd=tmp_path)
    assert terminal.wait() == 0
    assert re.search(r"params\.tree\.depth\s+[28]\s+[28]", terminal.text)
    terminal.close()
