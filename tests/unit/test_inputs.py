from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import feather

from rayml.artifacts import Artifact, digest_of
from rayml.artifacts.dataset import save_dataset
from rayml.artifacts.file import save_file
from rayml.errors import NotFound, SpecError, StoreUnreachable
from rayml.inputs import Input, InputRecord, convert, describe_input
from rayml.ranks import Rank
from rayml.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAME = pd.DataFrame({"code": ["007", "010"], "n": [1, 2]})


@pytest.fixture
def flights(tmp_path: Path) -> Artifact:
    store = open_store(tmp_path / "store")
    record = msgspec.structs.replace(save_dataset(store, "flights", FRAME), run="7f3c")
    return Artifact(record, store)


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path not in ("/data/flights%202013.csv", "/broken.csv"):
                self.send_error(404)
                return
            Answer.asked += 1
            content = f"asked,query\n{Answer.asked},{query}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + 9 * (path == "/broken.csv")))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def given(value: object, folder: Path = Path("/")) -> Input:
    record = describe_input("data", value, folder)
    sent = msgspec.json.decode(msgspec.json.encode(record), type=InputRecord)
    return Input(sent, None if isinstance(value, str | Path) else value)


# What is recorded


def test_a_relative_path_is_recorded_as_absolute(tmp_path: Path) -> None:
    (tmp_path / "flüge 🛫.csv").write_text("a\n1\n")
    record = describe_input("data", "flüge 🛫.csv", tmp_path)
    assert record == InputRecord(
        name="data",
        uri=str(tmp_path / "flüge 🛫.csv"),
        kind="path",
        size=4,
        digest=hashlib.sha256(b"a\n1\n").hexdigest(),
    )
    assert describe_input("data", Path("flüge 🛫.csv"), tmp_path) == record
    assert describe_input("data", (tmp_path / "flüge 🛫.csv").as_uri(), Path("/")) == record


def test_a_folder_is_a_path_of_unknown_size(tmp_path: Path) -> None:
    assert describe_input("data", ".", tmp_path).size is None


def test_local_data_has_the_digest_of_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.csv").write_text("1")
    (tmp_path / "data" / "b.csv").write_text("2")
    store = open_store(tmp_path / "store")
    for name in ("data", "data/b.csv"):
        saved = save_file(store, "saved", tmp_path / name)
        assert describe_input("data", name, tmp_path).digest == digest_of(saved)


def test_what_is_large_or_nothing_or_no_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayml.inputs._READ_BYTES", 10)
    monkeypatch.setattr("rayml.inputs._READ_FILES", 3)
    for folder, count in (("full", 4), ("few", 3)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / f"{number}").write_text("x")
    (tmp_path / "large").write_text("x" * 11)
    (tmp_path / "empty").touch()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "some").write_text("x")
    os.mkfifo(tmp_path / "mixed" / "pipe")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "mixed" / "round").symlink_to(tmp_path / "mixed")
    names = ("full", "large", "empty", "mixed", "pipe")
    assert [describe_input("data", name, tmp_path).digest for name in names] == [None] * 5
    assert describe_input("data", "few", tmp_path).digest is not None


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "flights.csv").write_text("")
    with pytest.raises(SpecError, match=r"input 'data'.*did you mean 'flights.csv'"):
        describe_input("data", "flihgts.csv", tmp_path)
    with pytest.raises(SpecError, match="check the path"):
        describe_input("data", "no/such/folder.csv", tmp_path)
    with pytest.raises(SpecError, match="empty"):
        describe_input("data", "", tmp_path)


@pytest.mark.parametrize(
    "uri",
    ["s3://b/k.csv", "gs://b/k", "az://c/k", "https://host/k.csv?version=2", "http://host/k"],
)
def test_a_uri_is_recorded_as_it_is(uri: str) -> None:
    assert describe_input("data", uri, Path("/")) == InputRecord(name="data", uri=uri, kind="uri")


@pytest.mark.parametrize(
    "uri", ["s4://b/k", "ftp://host/k", "https://me:secret@host/k", "rayml://x"]
)
def test_a_uri_that_cannot_be_read_is_refused(uri: str) -> None:
    with pytest.raises(SpecError, match=";") as caught:
        describe_input("data", uri, Path("/"))
    assert "secret" not in str(caught.value)


def test_an_artifact_is_recorded_by_its_uri_and_digest(flights: Artifact) -> None:
    record = describe_input("data", flights, Path("/"))
    assert record.kind == "artifact"
    assert (record.uri, record.digest, record.size) == (
        "rayml://runs/7f3c/flights",
        flights.digest,
        flights.size,
    )
    assert describe_input("data", flights.uri, Path("/")).kind == "artifact"


@pytest.mark.parametrize(
    ("value", "uri"),
    [
        (FRAME, "memory://pandas.DataFrame"),
        (pa.table({}), "memory://pyarrow.lib.Table"),
        ([1], "memory://list"),
        (b"x", "memory://bytes"),
        (None, "memory://NoneType"),
    ],
)
def test_an_object_is_recorded_by_its_type(value: object, uri: str) -> None:
    assert describe_input("data", value, Path("/")) == InputRecord(
        name="data", uri=uri, kind="memory"
    )


# Files


def _write_folder(path: Path) -> None:
    path.mkdir()
    FRAME.to_parquet(path / "part-0.parquet")


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.csv": lambda path: FRAME.to_csv(path, index=False),
    "a.CSV": lambda path: FRAME.to_csv(path, index=False),
    "a.b.csv.gz": lambda path: FRAME.to_csv(path, index=False),
    "a.csv.zip": lambda path: FRAME.to_csv(path, index=False),
    "a.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "a.json": lambda path: path.write_text(json.dumps(FRAME.to_dict("records"))),
    "a.jsonl": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "a.ndjson.gz": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "a.parquet": FRAME.to_parquet,
    "folder": _write_folder,
    "a.feather": lambda path: feather.write_feather(FRAME, path),
    "a.arrow": lambda path: feather.write_feather(FRAME, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_read_by_its_suffix(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    data = given(name, tmp_path)
    frame = data.to_pandas()
    assert frame["n"].tolist() == [1, 2]
    assert frame["code"].tolist() == ([7, 10] if "sv" in name.lower() else ["007", "010"])
    assert data.to_arrow().column("n").to_pylist() == [1, 2]


@pytest.mark.parametrize("name", ["data", "data.xlsx", "data.parquet.gz", ".csv", "data.gz"])
def test_a_suffix_that_says_nothing_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"a\n1\n"))
    with pytest.raises(SpecError, match=r"does not say.*\.csv"):
        given(name, tmp_path).to_pandas()
    assert given(name, tmp_path).path() == tmp_path / name


def test_a_path_that_is_gone_on_the_worker_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    data = given("a.csv", tmp_path)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(NotFound, match="put it on object storage"):
        data.to_pandas()


def test_a_pattern_is_a_folder_of_the_files_that_fit_it(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.txt", "deep/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def names(pattern: str) -> list[str]:
        folder = given(pattern, tmp_path).path()
        files = (path for path in folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(folder).as_posix() for path in files)

    assert names("*.csv") == ["a.csv", "b.csv"]
    assert names("[bc].*") == ["b.csv", "c.txt"]
    assert names("**/a.csv") == ["a.csv", "deep/a.csv"]
    assert names("d*/?.csv") == ["deep/a.csv"]
    assert (given("*.txt", tmp_path).path() / "c.txt").read_text() == "c.txt"
    with pytest.raises(SpecError, match="there is no"):
        given("*.parquet", tmp_path)


def test_a_file_that_is_called_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("x")
    assert given("a[1].csv", tmp_path).path() == tmp_path / "a[1].csv"


# The web


def test_a_web_page_is_fetched_once(web: str) -> None:
    data = given(f"{web}/data/flights%202013.csv?version=2")
    first = data.to_pandas()
    assert first["query"].tolist() == ["version=2"]
    assert data.to_pandas().equals(first)
    assert data.path().name == "flights 2013.csv"


def test_a_web_page_that_is_not_there_or_broken_off_is_told(web: str) -> None:
    with pytest.raises(NotFound, match="404"):
        given(f"{web}/missing.csv").to_pandas()
    with pytest.raises(StoreUnreachable, match="broke off"):
        given(f"{web}/broken.csv").to_pandas()
    with pytest.raises(StoreUnreachable, match="did not answer"):
        given("http://127.0.0.1:9/a.csv").to_pandas()


# Buckets


@pytest.mark.s3
def test_objects_and_folders_of_a_bucket_are_fetched(s3_store_uri: str, tmp_path: Path) -> None:
    bucket = open_store(s3_store_uri)
    FRAME.to_parquet(tmp_path / "a.parquet")
    for key in ("flights 2013.parquet", "many/part-0.parquet", "many/part-1.parquet"):
        bucket.put(key, (tmp_path / "a.parquet").read_bytes())
    assert given(f"{s3_store_uri}/flights 2013.parquet").to_pandas().equals(FRAME)
    assert given(f"{s3_store_uri}/many/").to_arrow().num_rows == 4
    assert convert(given(f"{s3_store_uri}/many"), Path).is_dir()
    with pytest.raises(NotFound, match=r"missing\.csv"):
        given(f"{s3_store_uri}/missing.csv").to_pandas()


@pytest.mark.s3
def test_a_pattern_of_a_bucket_is_a_folder_of_what_fits_it(s3_store_uri: str) -> None:
    bucket = open_store(s3_store_uri)
    for key in ("day=1/a.csv", "day=2/a.csv", "day=2/b.csv", "day=2/deep/a.csv"):
        bucket.put(key, key.encode())

    def names(pattern: str) -> list[str]:
        folder = given(f"{s3_store_uri}/{pattern}").path()
        files = (path for path in folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(folder).as_posix() for path in files)

    assert names("day=*/a.csv") == ["day=1/a.csv", "day=2/a.csv"]
    assert names("day=2/*.csv") == ["a.csv", "b.csv"]
    assert names("**/a.csv") == ["day=1/a.csv", "day=2/a.csv", "day=2/deep/a.csv"]
    with pytest.raises(NotFound, match="fits"):
        names("*.parquet")


# Artifacts and objects


def test_an_artifact_is_found_by_its_uri(flights: Artifact) -> None:
    data = Input(
        describe_input("data", flights.uri, Path("/")), None, {flights.uri: flights}.__getitem__
    )
    assert data.to_pandas().equals(FRAME)
    assert data.to_arrow().num_rows == 2
    assert data.path().suffix == ".parquet"
    assert data.artifact is flights
    with pytest.raises(SpecError, match="which store"):
        given(flights.uri).to_pandas()
    with pytest.raises(SpecError, match="which store"):
        _ = given(flights.uri).artifact


def test_an_artifact_object_needs_no_search(flights: Artifact) -> None:
    assert given(flights).to_pandas().equals(FRAME)
    assert given(flights).artifact is flights


@pytest.mark.parametrize("value", [FRAME, b"x", None, "s3://b/k.csv", "https://host/k", "/"])
def test_what_is_no_artifact_names_none(value: object) -> None:
    assert given(value).artifact is None


@pytest.mark.parametrize("value", [FRAME, pa.Table.from_pandas(FRAME), pl.from_pandas(FRAME)])
def test_a_table_in_memory_takes_every_form(value: object) -> None:
    assert given(value).to_pandas()["code"].tolist() == ["007", "010"]
    assert given(value).to_arrow().column("n").to_pylist() == [1, 2]


def test_an_object_that_is_no_table_has_no_such_form() -> None:
    with pytest.raises(SpecError, match="no table"):
        given([1]).to_pandas()
    with pytest.raises(SpecError, match="in memory"):
        given([1]).path()


# Annotations


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (pd.DataFrame, pd.DataFrame),
        ("pd.DataFrame", pd.DataFrame),
        ("pandas.DataFrame | None", pd.DataFrame),
        (pd.DataFrame | None, pd.DataFrame),
        (Optional[pd.DataFrame], pd.DataFrame),  # noqa: UP045 - users write it
        (pa.Table, pa.Table),
        (pl.DataFrame, pl.DataFrame),
        (Path, Path),
        (str, str),
        (bytes, bytes),
        (None, Input),
        (inspect.Parameter.empty, Input),
        (int | str, Input),
        ("some.Thing", Input),
        (list[int], Input),
        (np.ndarray, Input),
    ],
    ids=repr,
)
def test_an_annotation_says_the_form(tmp_path: Path, annotation: object, kind: type) -> None:
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    converted = convert(given("a.csv", tmp_path), annotation)
    assert isinstance(converted, kind)
    if kind is str:
        assert converted == str(tmp_path / "a.csv")
    if kind is bytes:
        assert converted == (tmp_path / "a.csv").read_bytes()


def test_an_object_in_memory_is_handed_over_as_it_is() -> None:
    array = np.ones(3)
    assert convert(given(array), np.ndarray) is array
    assert convert(given(array), None) is array
    assert convert(given(FRAME), pd.DataFrame) is FRAME
    assert convert(given(b"x"), bytes) == b"x"
    polars = pl.from_pandas(FRAME)
    assert convert(given(polars), pl.DataFrame) is polars
    assert isinstance(convert(given(FRAME), pa.Table), pa.Table)
    with pytest.raises(SpecError, match="in memory"):
        convert(given(FRAME), str)


def test_bytes_of_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="folder"):
        convert(given(".", tmp_path), bytes)


def test_a_file_artifact_can_be_a_path(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    record = msgspec.structs.replace(save_file(store, "words.txt", b"a b"), run="7f3c")
    data = given(Artifact(record, store))
    assert convert(data, Path).read_text() == "a b"
    assert convert(data, bytes) == b"a b"
    assert convert(data, str) == "rayml://runs/7f3c/words.txt"
    with pytest.raises(SpecError, match="without rows"):
        convert(data, pd.DataFrame)


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
def test_each_rank_reads_as_many_rows_of_its_own(kind: str) -> None:
    table = pa.table({"n": range(7)})
    value = table if kind == "arrow" else table.to_pandas()
    record = describe_input("table", value, Path.cwd())
    shards = [Input(record, value, rank=Rank(rank, 3)).shard() for rank in range(3)]
    assert [shard["n"].to_pylist() for shard in shards] == [[0, 1], [2, 3], [4, 5]]
    assert Input(record, value).shard().num_rows == 7
