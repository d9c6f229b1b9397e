"""What a bucket does when its server fails: how long it tries, and what it says then."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from rayml.errors import NotFound, StoreError, StoreUnreachable
from rayml.store import Blob, open_store
from rayml.store.base import blob_key
from rayml.store.bucket import Bucket, Patience
from tests.azure import CONTAINER
from tests.faults import Fault, Faults, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.s3

MIB = 1024 * 1024
FOR_EVER = 10_000


def answer(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>why</Message></Error>".encode()


@pytest.fixture
def proxy(s3_environment: dict[str, str]) -> Iterator[Faults]:
    with faults(s3_environment["AWS_ENDPOINT_URL"]) as proxy:
        yield proxy


def behind(
    proxy: Faults, uri: str, environment: dict[str, str], patience: Patience | None = None
) -> Bucket:
    config = {name.lower(): value for name, value in environment.items()}
    return Bucket(uri, config | {"aws_endpoint_url": proxy.url}, patience)


def with_an_object(store: Bucket, proxy: Faults) -> Bucket:
    """Let the store answer once, so that it counts as one that has."""
    store.put("there", b"x" * 300_000)
    proxy.clear()
    return store


@pytest.fixture
def store(proxy: Faults, s3_store_uri: str, s3_environment: dict[str, str]) -> Bucket:
    return with_an_object(behind(proxy, s3_store_uri, s3_environment), proxy)


@pytest.fixture
def impatient(proxy: Faults, s3_store_uri: str, s3_environment: dict[str, str]) -> Bucket:
    """A store that is not waited for as long as in earnest."""
    patience = Patience(first_s=1, later_s=1, silence_s=1)
    return with_an_object(behind(proxy, s3_store_uri, s3_environment, patience), proxy)


@contextmanager
def at_most(limit_s: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < limit_s


CALLS: dict[str, Callable[[Bucket], object]] = {
    "get": lambda store: store.get("there"),
    "chunks": lambda store: b"".join(store.chunks("there")),
    "size": lambda store: store.size("there"),
    "list": lambda store: store.list(""),
    "put": lambda store: store.put("there", b"2"),
    "create": lambda store: store.create("new", b"2"),
    "delete": lambda store: store.delete("there"),
    "add": lambda store: store.add(io.BytesIO(b"blob")),
    "missing": lambda store: store.missing([Blob("0" * 64, 1)]),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class TestAMomentsFault:
    @each_call
    @pytest.mark.parametrize(
        "fault",
        [Fault(), Fault(status=500), Fault(status=503, times=3), Fault(delay_s=0.3)],
        ids=["dropped", "500", "503", "slow"],
    )
    def test_is_not_noticed(
        self, proxy: Faults, store: Bucket, call: Callable[[Bucket], object], fault: Fault
    ) -> None:
        expected = call(store)
        store.delete("new")
        store.put("there", b"x" * 300_000)
        proxy.add(fault)

        assert call(store) in (expected, [*store.list("")])

    @pytest.mark.parametrize("call", ["get", "chunks", "list"])
    def test_half_an_answer_is_completed(self, proxy: Faults, store: Bucket, call: str) -> None:
        whole = CALLS[call](store)
        proxy.add(Fault(method="GET", half=True))

        assert CALLS[call](store) == whole

    def test_a_server_that_restarts_is_waited_for(self, proxy: Faults, store: Bucket) -> None:
        proxy.add(Fault(times=FOR_EVER))
        back = threading.Timer(2, proxy.clear)
        back.start()

        assert store.create("new", b"1") is True
        back.join()


class TestALostAnswer:
    def test_of_a_create_looks_like_somebody_elses(self, proxy: Faults, store: Bucket) -> None:
        proxy.add(Fault(method="PUT", forward=True))

        assert store.create("new", b"mine") is False
        assert store.get("new") == b"mine"

    def test_of_a_put_or_delete_is_not_noticed(self, proxy: Faults, store: Bucket) -> None:
        proxy.add(Fault(method="PUT", forward=True))
        store.put("new", b"mine")
        proxy.add(Fault(method="POST", match="delete", forward=True))
        store.delete("new")

        assert store.size("new") is None

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(method="PUT", match="partNumber=2", forward=True),
            Fault(method="PUT", match="partNumber=2", status=503, times=3),
            Fault(method="POST", match="uploads", forward=True),
            Fault(method="POST", match="uploadId", forward=True),
            Fault(
                method="POST",
                match="uploadId",
                forward=True,
                status=404,
                body=answer("NoSuchUpload"),
            ),
        ],
        ids=["part", "part-503", "start", "end", "end-forgotten"],
    )
    def test_of_an_upload_is_not_noticed(self, proxy: Faults, store: Bucket, fault: Fault) -> None:
        data = random.Random(4).randbytes(20 * MIB)
        proxy.add(fault)

        blob = store.add(io.BytesIO(data))

        assert blob.digest == hashlib.sha256(data).hexdigest()
        assert store.size(blob_key(blob.digest)) == len(data)


class TestAConflict:
    """S3 says 409 when another writer is busy with the key, and MinIO has said 304."""

    @pytest.mark.parametrize("status", [409, 412, 304])
    def test_over_a_key_that_is_there_is_lost(
        self, proxy: Faults, store: Bucket, status: int
    ) -> None:
        store.create("k", b"first")
        proxy.add(Fault(method="PUT", status=status))

        assert store.create("k", b"second") is False

    def test_over_a_key_that_is_not_there_is_tried_again(
        self, proxy: Faults, store: Bucket
    ) -> None:
        proxy.add(
            Fault(method="PUT", status=409, body=answer("ConditionalRequestConflict"), times=2)
        )

        assert store.create("k", b"1") is True
        assert store.get("k") == b"1"

    def test_without_end_is_an_error(self, proxy: Faults, store: Bucket) -> None:
        proxy.add(Fault(method="PUT", status=409, times=FOR_EVER))

        with pytest.raises(StoreUnreachable, match="refused 5 times to create 'k', which is not"):
            store.create("k", b"1")


class TestALastingFault:
    @each_call
    @pytest.mark.parametrize(
        ("fault", "says"),
        [
            (Fault(silent=True, times=FOR_EVER), "did not answer"),
            (Fault(status=503, times=FOR_EVER), "failed: 503 Service Unavailable"),
        ],
        ids=["silent", "503"],
    )
    def test_is_given_up_in_time(
        self,
        proxy: Faults,
        impatient: Bucket,
        call: Callable[[Bucket], object],
        fault: Fault,
        says: str,
    ) -> None:
        proxy.add(fault)

        with (
            at_most(12),
            pytest.raises(StoreUnreachable, match=f"store {impatient.uri} {says}.*; check the"),
        ):
            call(impatient)

    def test_of_a_server_never_heard_of_is_given_up_sooner(
        self, proxy: Faults, s3_store_uri: str, s3_environment: dict[str, str]
    ) -> None:
        patience = Patience(first_s=1, later_s=FOR_EVER)
        unknown = behind(proxy, s3_store_uri, s3_environment, patience)
        proxy.add(Fault(times=FOR_EVER))

        with at_most(8), pytest.raises(StoreUnreachable):
            unknown.get("k")

    def test_of_an_upload_is_given_up_in_time_and_leaves_nothing(
        self, proxy: Faults, impatient: Bucket
    ) -> None:
        data = random.Random(5).randbytes(20 * MIB)
        proxy.add(Fault(match="partNumber=3", times=FOR_EVER))

        with at_most(15), pytest.raises(StoreUnreachable):
            impatient.add(io.BytesIO(data))
        assert impatient.list("blobs/") == []

        proxy.clear()
        assert impatient.add(io.BytesIO(data)).size == len(data)

    @pytest.mark.parametrize("call", ["get", "chunks"])
    def test_half_an_answer_is_never_taken_for_the_whole(
        self, proxy: Faults, impatient: Bucket, call: str
    ) -> None:
        proxy.add(Fault(method="GET", half=True, times=FOR_EVER))

        with at_most(30), pytest.raises(StoreUnreachable):
            CALLS[call](impatient)


class TestARefusal:
    @pytest.mark.parametrize(
        ("status", "code", "says"),
        [
            (
                400,
                "ExpiredToken",
                "refused the credentials: 400 Bad Request ExpiredToken; .*expir",
            ),
            (403, "AccessDenied", "refused the credentials: 403 .*AccessDenied; .*what they may"),
            (401, "", "refused the credentials: 401 Unauthorized; check the environment"),
            (400, "InvalidRequest", "refused the request: 400 Bad Request Inv.*; check the URI"),
            (404, "NoSuchBucket", "has no bucket: 404 Not Found NoSuchBucket; create it or check"),
            (507, "XMinioStorageFull", "is full: 507 .*XMinioStorageFull; free some space"),
        ],
    )
    def test_says_what_to_do(
        self, proxy: Faults, impatient: Bucket, status: int, code: str, says: str
    ) -> None:
        proxy.add(Fault(method="PUT", status=status, body=answer(code), times=FOR_EVER))

        for write in (impatient.put, impatient.create):
            with (
                at_most(10),
                pytest.raises(StoreError, match=f"store {impatient.uri} {says}") as caught,
            ):
                write("k", b"1")
            assert not isinstance(caught.value, StoreUnreachable)
            assert not isinstance(caught.value, NotFound)


@pytest.mark.azure
def test_a_secret_that_azure_wants_in_the_url_is_in_no_error(
    azure_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")  # it would be preferred
    config = {"azure_storage_account_name": "devstoreaccount1"}
    with faults(azure_environment["AZURE_STORAGE_ENDPOINT"]) as proxy:
        config["azure_storage_endpoint"] = f"{proxy.url}/devstoreaccount1"
        config["azure_storage_sas_key"] = "sv=2021-08-06&sig=top-secret"
        store = Bucket(f"az://{CONTAINER}/p", config, Patience(first_s=0.5, silence_s=0.5))
        for fault in (
            Fault(times=FOR_EVER),
            Fault(silent=True, times=FOR_EVER),
            Fault(status=500, times=FOR_EVER),
            Fault(status=400, times=FOR_EVER),
        ):
            proxy.clear()
            proxy.add(fault)
            for call in (partial(store.put, "k", b"1"), partial(store.list, "")):
                with pytest.raises(StoreError) as caught:
                    call()
                assert any("secret" in request for request in proxy.requests)
                assert "secret" not in str(caught.value)


def test_a_missing_bucket_is_told_from_a_missing_object(s3_environment: dict[str, str]) -> None:
    store = open_store("s3://nobody-made-this-bucket/p")

    for call in (partial(store.get, "k"), partial(store.list, "")):
        with pytest.raises(StoreError, match="has no bucket: 404 Not Found NoSuchBucket; create"):
            call()
