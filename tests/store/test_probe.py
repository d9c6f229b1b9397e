"""Which stores are trusted with a journal, what that costs, and whose a store is."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from rayml.errors import StoreError
from rayml.store import check_format, check_store, open_store
from rayml.store.bucket import Bucket
from rayml.store.probe import FORMAT, MARKER
from tests.faults import Fault, faults
from tests.rclone import BUCKET as RCLONE_BUCKET
from tests.rclone import rclone_server
from tests.s3 import BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store


def test_a_good_store_gets_a_marker_and_nothing_else(store: Store) -> None:
    check_store(store)

    assert json.loads(store.get(MARKER))["format"] == FORMAT
    assert store.list("probes/") == []
    assert check_format(store) is True


def test_a_store_without_a_marker_can_be_read(store: Store) -> None:
    store.put("shards/a/1.jsonl", b"from before there were markers")

    assert check_format(store) is False
    check_store(store)
    assert check_format(store) is True


def test_of_many_first_writers_all_are_let_in(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check_store, [store] * 8))

    assert check_format(store) is True
    assert store.list("probes/") == []


@pytest.mark.parametrize("check", [check_store, check_format])
@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[1]", b'{"format": 1}', b'{"format": true, "probed": ""}', b"<html>"]
)
def test_another_projects_store_is_left_alone(tmp_path: Path, check: object, data: bytes) -> None:
    store = open_store(tmp_path / "theirs")
    store.put(MARKER, data)

    with pytest.raises(
        StoreError, match=r"another project's: its rayml\.json is not rayml's; cho"
    ):
        check(store)  # type: ignore[operator]

    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == [".gitignore", MARKER]
    assert store.get(MARKER) == data


@pytest.mark.parametrize("check", [check_store, check_format])
def test_a_newer_format_asks_for_an_upgrade(store: Store, check: object) -> None:
    store.put(MARKER, json.dumps({"format": FORMAT + 1, "probed": "2030-01-01"}).encode())

    with pytest.raises(StoreError, match=f"format {FORMAT + 1}, .* knows {FORMAT}; upgrade rayml"):
        check(store)  # type: ignore[operator]


def test_a_copied_store_is_as_good_as_the_first(store: Store, tmp_path: Path) -> None:
    check_store(store)
    copy = open_store(tmp_path / "copy")
    copy.put(MARKER, store.get(MARKER))

    check_store(copy)

    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [".gitignore", MARKER]


@pytest.mark.s3
def test_a_known_store_costs_one_request_and_then_none(
    s3_environment: dict[str, str], s3_store_uri: str
) -> None:
    check_store(open_store(s3_store_uri))

    with faults(s3_environment["AWS_ENDPOINT_URL"]) as proxy:
        config = {k.lower(): v for k, v in s3_environment.items()}
        store = Bucket(s3_store_uri, config | {"aws_endpoint_url": proxy.url})
        check_store(store)
        assert [request.split()[0] for request in proxy.requests] == ["GET"]
        check_store(pickle.loads(pickle.dumps(store)))
        assert len(proxy.requests) == 1


@pytest.mark.s3
def test_a_server_that_overwrites_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rclone_server(tmp_path) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{RCLONE_BUCKET}/store")

        for _ in range(2):
            with pytest.raises(StoreError, match=r"overwrites a key that is taken.*; use a serv"):
                check_store(store)

        assert list(tmp_path.joinpath(RCLONE_BUCKET).rglob("*.json")) == []


@pytest.mark.s3
def test_a_lost_answer_is_not_held_against_a_store(s3_environment: dict[str, str]) -> None:
    with faults(s3_environment["AWS_ENDPOINT_URL"]) as proxy:
        config = {k.lower(): v for k, v in s3_environment.items()}
        store = Bucket(f"s3://{BUCKET}/lost-answers", config | {"aws_endpoint_url": proxy.url})
        proxy.add(Fault(method="PUT", forward=True, times=6))

        check_store(store)

        assert check_format(store) is True


@pytest.mark.s3
def test_a_store_that_may_only_be_read_says_so(s3_environment: dict[str, str]) -> None:
    with faults(s3_environment["AWS_ENDPOINT_URL"]) as proxy:
        config = {k.lower(): v for k, v in s3_environment.items()}
        store = Bucket(f"s3://{BUCKET}/read-only", config | {"aws_endpoint_url": proxy.url})
        proxy.add(
            Fault(method="PUT", status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
        )

        assert check_format(store) is False
        with pytest.raises(StoreError, match="403 Forbidden AccessDenied; check the environment"):
            check_store(store)
