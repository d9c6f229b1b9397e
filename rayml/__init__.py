"""rayml trains models on Ray: submit a Python function or script, get a tracked, durable run.

    run = rayml.submit(train, params={"depth": 4})     start a run
    run.wait().metrics                                 what it logged
    rayml.context().log_metric("loss", 0.1)            inside the job
    with rayml.start_run() as context: ...             track code that was not submitted
    rayml.runs(), rayml.get_run(id)                    read back; only the store is needed

The words, one per idea: a *function* (what you wrote) with parameters, inputs and resources is a
*job*; each execution of it is a *run*, each try of a run an *attempt*. The *tracker* records runs
in its *journal*, which lies in the *store*, as do *artifacts*: models, datasets, plots, tables,
files.

Importing rayml loads neither Ray nor pandas; whatever needs them loads them when it is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rayml.config import Resources, Retry
from rayml.errors import (
    ArtifactCorrupt,
    CapacityError,
    ClusterError,
    ClusterUnreachable,
    JobCancelled,
    JobFailed,
    JobTimeout,
    JournalCorrupt,
    JournalFenced,
    NotFound,
    RaymlError,
    ResizeTimeout,
    SpecError,
    StoreError,
    StoreUnreachable,
)

if TYPE_CHECKING:
    from rayml.artifacts import Artifact
    from rayml.inputs import Input
    from rayml.job import submit
    from rayml.run import Run, RunList, artifact, get_run, runs
    from rayml.run_context import Context
    from rayml.run_context import current_context as context
    from rayml.tracking import start_run

__version__ = "0.1.0"

_LAZY = {
    "Artifact": "rayml.artifacts:Artifact",
    "Context": "rayml.run_context:Context",
    "Input": "rayml.inputs:Input",
    "Run": "rayml.run:Run",
    "RunList": "rayml.run:RunList",
    "artifact": "rayml.run:artifact",
    "context": "rayml.run_context:current_context",
    "get_run": "rayml.run:get_run",
    "runs": "rayml.run:runs",
    "start_run": "rayml.tracking:start_run",
    "submit": "rayml.job:submit",
}

__all__ = [
    "Artifact",
    "ArtifactCorrupt",
    "CapacityError",
    "ClusterError",
    "ClusterUnreachable",
    "Context",
    "Input",
    "JobCancelled",
    "JobFailed",
    "JobTimeout",
    "JournalCorrupt",
    "JournalFenced",
    "NotFound",
    "RaymlError",
    "ResizeTimeout",
    "Resources",
    "Retry",
    "Run",
    "RunList",
    "SpecError",
    "StoreError",
    "StoreUnreachable",
    "artifact",
    "context",
    "get_run",
    "runs",
    "start_run",
    "submit",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'rayml' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
