"""Artifacts whose bytes stay where they are."""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

import rayml
from rayml.errors import ArtifactCorrupt, NotFound, SpecError
from rayml.store import open_store
from rayml.store.base import blob_key
from rayml.upkeep.verification import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rayml.artifacts import Artifact


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def refer(store: Path, uri: str | Path) -> Artifact:
    """Log a reference, and return it as another process finds it."""
    with rayml.start_run(store=store) as context:
        context.log_reference("data", uri)
    return rayml.artifact(f"rayml://runs/{context.run_id}/data", store=store)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_is_read_where_it_is(store: Path, tmp_path: Path) -> None:
    data = tmp_path / "data?#%41.csv"
    data.write_bytes(b"a,b\n")
    found = refer(store, data)
    assert found.record.files[0].path == "data?#%41.csv"
    assert (found.reference, found.size, found.kind) == (str(data), 4, "file")
    assert found.load() == b"a,b\n"
    assert found.path().read_bytes() == b"a,b\n"
    assert found.download(tmp_path / "copy").read_bytes() == b"a,b\n"
    assert not (store / blob_key(sha256(b"a,b\n").hexdigest())).exists()
    assert list(verify(open_store(store))) == []


def test_a_folder_is_read_where_it_is(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_text("one")
    (folder / "inner" / "b").write_text("two")
    found = refer(store, folder.as_uri())
    assert [file.path for file in found.record.files] == ["a", "inner/b"]
    assert (found.path() / "inner" / "b").read_text() == "two"


def test_other_bytes_are_found_out(store: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_bytes(b"a,b\n")
    found = refer(store, data)
    data.write_bytes(b"a,c\n")
    with pytest.raises(ArtifactCorrupt, match="holds other bytes than when artifact"):
        found.load()
    with pytest.raises(ArtifactCorrupt):
        found.download(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    data.unlink()
    with pytest.raises(NotFound, match="not any more"):
        found.load()


def test_a_file_on_the_web_is_read_there(store: Path, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("from afar")
    with served(tmp_path) as address:
        found = refer(store, f"{address}/data.txt")
        assert found.load() == b"from afar"
        assert found.path().name == "data.txt"
        with rayml.start_run(store=store) as context, pytest.raises(SpecError, match="there is"):
            context.log_reference("none", f"{address}/none.txt")


@pytest.mark.s3
def test_objects_in_a_bucket_are_read_there(store: Path, s3_store_uri: str) -> None:
    bucket = open_store(s3_store_uri)
    bucket.put("one/object", b"one")
    bucket.put("many/a", b"a")
    bucket.put("many/b/c", b"c")
    assert refer(store, f"{s3_store_uri}/one/object").load() == b"one"
    found = refer(store, f"{s3_store_uri}/many/")
    assert [file.path for file in found.record.files] == ["a", "b/c"]
    assert (found.path() / "b" / "c").read_bytes() == b"c"
    bucket.put("one/object", b"two")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("/no/such/file", "there is no '/no/such/file'"),
        ("ftp://host/file", "cannot read from 'ftp'"),
        ("https://me:secret@host/file", "holds a password"),
        ("https://host/file?X-Amz-Signature=abc", "holds a password or signature"),
    ],
)
def test_what_cannot_be_referred_to_is_a_wrong_call(store: Path, uri: str, words: str) -> None:
    with rayml.start_run(store=store) as context:
        with pytest.raises(SpecError, match=words) as raised:
            context.log_reference("data", uri)
        assert "secret" not in str(raised.value)
