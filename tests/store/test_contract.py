"""The contract of stores, on each kind: a folder, a real S3 server, a real Azure server."""

from __future__ import annotations

import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from rayml.store import open_store
from rayml.testing import StoreContract
from tests.azure import CONTAINER

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store


class TestFolder(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(tmp_path / "store")


@pytest.mark.s3
class TestS3(StoreContract):
    @pytest.fixture
    def store(self, s3_store_uri: str) -> Store:
        return open_store(s3_store_uri)


@pytest.mark.azure
class TestAzure(StoreContract):
    @pytest.fixture
    def store(self, azure_store_uri: str) -> Store:
        return open_store(azure_store_uri)


@pytest.mark.azure
def test_the_azure_emulator_is_reached_by_its_own_variables(
    azure_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in azure_environment:
        monkeypatch.delenv(name)
    server = azure_environment["AZURE_STORAGE_ENDPOINT"].rpartition("/")[0]
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", server)  # where it is not on port 10000

    store = open_store(f"az://{CONTAINER}/{uuid.uuid4().hex}")
    store.put("k", b"1")

    assert store.get("k") == b"1"


def run_contract(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rayml.testing", *words],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )


@pytest.mark.s3
def test_a_user_can_try_a_server_from_the_command_line(s3_store_uri: str) -> None:
    done = run_contract(s3_store_uri, "-k", "Objects or create")

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_without_a_uri_the_command_says_what_it_takes() -> None:
    done = run_contract()

    assert done.returncode == 2
    assert "python -m rayml.testing s3://bucket/prefix" in done.stderr


def test_without_pytest_the_module_says_that_it_is_needed() -> None:
    code = "import sys; sys.modules['pytest'] = None; import rayml; import rayml.testing"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=60
    )

    assert "rayml.testing needs pytest, which is not installed; pip install" in done.stderr
