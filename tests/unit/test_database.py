"""SQL over all that was recorded, which can change and reach nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import rayml
from rayml.errors import SpecError
from rayml.store.folder import Folder
from tests.unit.journals import ended, logged, points, started
from tests.unit.test_listing import write

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("duckdb")


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    store = Folder(tmp_path / "store")
    write(
        store, "a", started(run="a"), points("auc", [0, 1, 2], [0.5, "nan", 0.7], run="a"),
        points("auc", [1, 2], [0.6, 0.8], attempt=2, run="a"), ended(run="a", attempt=2),
        submitted_at=1.5, labels={"team": "red"}, parent="z",
        params={"depth": 4, "on": True, "none": None, "model": {"kind": "forest", "k": [1, 2]}},
    )  # fmt: skip
    write(store, "b", logged(8, run="b", name="depth"), submitted_at=2.0)
    write(store, "c", submitted_at=3.0)
    rayml.get_run("c", store=store).delete()
    rayml.get_run("b", store=store).archive()
    return store


def ask(store: Folder, query: str) -> pd.DataFrame:
    return rayml.sql(query, store=store)


def rows(store: Folder, query: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in ask(store, query).itertuples(index=False)]


def test_runs_are_a_table_without_the_deleted(store: Folder) -> None:
    found = rows(
        store,
        'select id, state, attempt, duration_s, parent, "user", notes, archived, labels '
        "from runs order by id",
    )
    assert found[0] == ("a", "succeeded", 2, 7.0, "z", "ada", "", False, {"team": "red"})
    assert [row[0] for row in found] == ["a", "b"]
    assert found[1][-2:] == (True, {})


def test_times_are_times_in_utc(store: Folder) -> None:
    frame = ask(store, "select submitted_at, ended_at from runs where id = 'a'")
    assert frame["submitted_at"][0] == pd.Timestamp("1970-01-01T00:00:01.5Z")
    assert frame["ended_at"][0] == pd.Timestamp(9, unit="s", tz="UTC")
    within = "select count(*) from runs where submitted_at > '1970-01-01 00:00:01.6'"
    assert rows(store, within) == [(1,)]


def test_params_are_a_table_of_parts(store: Folder) -> None:
    found = ask(store, "select name, value, number from params where run = 'a' order by name")
    assert found["name"].tolist() == ["depth", "model.k", "model.kind", "none", "on"]
    assert found["value"].tolist()[:3] == ["4", "[1,2]", "forest"]
    assert found["value"].tolist()[4] == "true"
    assert found["value"].isna().tolist() == [False, False, False, True, False]
    assert found["number"].dropna().tolist() == [4.0]


def test_metrics_are_the_points_that_count(store: Folder) -> None:
    query = "select run, metric, attempt, rank, step, time, value from metrics order by step"
    frame = ask(store, query)
    assert frame["attempt"].tolist() == [1, 2, 2]
    assert frame["value"].tolist() == [0.5, 0.6, 0.8]
    assert frame["time"][0] == pd.Timestamp(4, unit="s", tz="UTC")
    history = rayml.get_run("a", store=store).history("auc")
    assert history["value"].tolist() == frame["value"].tolist()


def test_artifacts_are_a_table(store: Folder) -> None:
    with rayml.start_run("art", store=store) as context:
        artifact = context.log_artifact("notes", b"hello")
    (found,) = rows(store, "select run, name, kind, size, digest, uri from artifacts")
    assert found == (context.run_id, "notes", "file", 5, artifact.digest, artifact.uri)


def test_tables_are_joined(store: Folder) -> None:
    query = """
        select r.id, max(m.value) as best, any_value(p.number) as depth
        from runs r join metrics m on m.run = r.id join params p on p.run = r.id
        where p.name = 'depth' group by r.id
    """
    assert rows(store, query) == [("a", 0.8, 4.0)]


def test_tables_of_an_empty_store_are_empty(tmp_path: Path) -> None:
    empty = Folder(tmp_path / "empty")
    for table in ("runs", "params", "metrics", "artifacts"):
        assert ask(empty, f"from {table}").empty
    assert len(ask(empty, "show tables")) == 4


def test_a_wrong_query_says_what_is_wrong(store: Folder) -> None:
    for query, problem in {
        "selec 1": "the SQL is wrong: Parser Error: syntax error at or near",
        "select x from runs": 'Referenced column "x" not found',
        "select * from run": "Table with name run does not exist",
        "": "the SQL has the statements none and may have one SELECT",
        "select 1; select 2": "the statements SELECT, SELECT and may have one",
        "select 1 as a, 2 as a": "gives two columns of one name",
    }.items():
        with pytest.raises(SpecError, match=problem):
            ask(store, query)
    with pytest.raises(SpecError, match="is not text"):
        rayml.sql(4, store=store)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "query",
    [
        "drop view runs",
        "create table x as select 1",
        "set enable_external_access = true",
        "attach '/tmp/x.db'",
        "install httpfs",
        "copy (select 1) to '{path}'",
        "export database '{path}'",
        "select 1; copy (select 1) to '{path}'",
        "select * from read_text('{path}')",
        "select * from '{path}'",
        "select * from glob('/*')",
        "select * from read_csv('http://127.0.0.1:9/x.csv')",
        "select * from secret",
        "pragma enable_profiling = 'json'",
        "call pragma_version()",
    ],
)
def test_a_query_reaches_and_changes_nothing(store: Folder, tmp_path: Path, query: str) -> None:
    path = tmp_path / "private.csv"
    path.write_text("a,b\n1,2\n")
    secret = pd.DataFrame({"token": ["x"]})
    with pytest.raises(SpecError):
        ask(store, query.format(path=path))
    assert path.read_text() == "a,b\n1,2\n"
    assert len(secret) == 1
    assert len(ask(store, "select * from runs")) == 2


def test_without_duckdb_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['duckdb'] = None\n"
        "import rayml\n"
        "try: rayml.sql('select 1', store=sys.argv[1])\n"
        "except rayml.SpecError as exc: print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "rayml.sql needs duckdb, which is not installed; pip install 'rayml[sql]'\n"
    )
