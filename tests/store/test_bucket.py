"""What a bucket does beyond the contract: how it is opened, and who it is when nobody answers."""

from __future__ import annotations

import pytest

from rayml.errors import SpecError, StoreError, StoreUnreachable
from rayml.store import open_store
from rayml.store.bucket import Bucket

pytestmark = pytest.mark.s3


def test_wrong_credentials_are_told_from_silence(
    s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")

    with pytest.raises(StoreError, match="refused the credentials") as caught:
        open_store(s3_store_uri).put("k", b"1")

    assert "wrong-secret" not in str(caught.value)


def test_a_silent_server_is_unreachable(
    s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    with pytest.raises(StoreUnreachable, match=f"store {s3_store_uri} did not answer"):
        open_store(s3_store_uri).get("k")


def test_credentials_are_those_of_the_moment_it_was_opened(
    s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_store_uri)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")

    store.put("k", b"1")

    assert store.get("k") == b"1"


def test_a_repr_shows_no_secret(s3_environment: dict[str, str], s3_store_uri: str) -> None:
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in repr(open_store(s3_store_uri))


def test_a_uri_without_a_bucket_is_refused() -> None:
    with pytest.raises(SpecError, match="cannot be opened"):
        Bucket("s3://")
