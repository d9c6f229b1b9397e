"""What all folders of tests share."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.azure import CONTAINER, NotInstallable, azure_server
from tests.s3 import BUCKET, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

# MLflow tells its makers how it is used, unless it is told not to; tests reach no such place.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

# A shell lets what it starts in the background ignore Ctrl-C, and so do that one's children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code.
settings.register_profile("rayml", deadline=None)
settings.load_profile("rayml")

# The files that take longest, the longest first.
_LONG = (
    "kube/test_lifecycle.py",
    "ray/test_torch.py",
    "ray/test_spark.py",
    "ray/test_dask.py",
    "ray/test_jobs_api.py",
    "ray/test_failures.py",
    "ray/test_horovod.py",
    "cli/test_run.py",
    "mlflow/test_tracking_store.py",
    "mlflow/test_exchange.py",
    "ray/test_submit.py",
    "store/test_verification.py",
    "store/test_faults.py",
    "store/test_folders.py",
    "unit/test_tracker.py",
    "unit/test_client.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: side by side with the others they end at the same time."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(_LONG)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where this session keeps Ray's files and rayml's own, whatever else runs on this machine.

    A Ray that somebody has started here with `ray start` is found through a file in the usual
    folder, and tests that run side by side would see each other's.
    """
    tmp_path_factory.getbasetemp()  # stays where pytest keeps it, to look at afterwards
    # A short name: Ray makes sockets below it, whose paths may have 107 characters.
    with (
        tempfile.TemporaryDirectory(prefix="rt", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as env,
    ):
        env.delenv("RAY_TMPDIR", raising=False)  # Ray asks for it first
        env.setenv("TMPDIR", folder)
        env.setattr(tempfile, "tempdir", folder)
        yield folder


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that reach a running S3 server; the session's environment has them too."""
    with (
        s3_server(tmp_path_factory.mktemp("s3")) as variables,
        pytest.MonkeyPatch.context() as env,
    ):
        for name, value in variables.items():
            env.setenv(name, value)
        yield variables


@pytest.fixture
def s3_store_uri(s3_environment: dict[str, str]) -> str:
    """The URI of an empty store in a bucket."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def azure_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that reach a running Azure server; the session's environment has them too."""
    try:
        with (
            azure_server(tmp_path_factory.mktemp("azure")) as variables,
            pytest.MonkeyPatch.context() as env,
        ):
            for name, value in variables.items():
                env.setenv(name, value)
            yield variables
    except NotInstallable as exc:
        pytest.skip(str(exc))


@pytest.fixture
def azure_store_uri(azure_environment: dict[str, str]) -> str:
    """The URI of an empty store in an Azure container."""
    return f"az://{CONTAINER}/{uuid.uuid4().hex}"
