"""rayml trains models on Ray: submit a Python function or script, get a tracked, durable run.

    run = rayml.submit(train, params={"depth": 4})     start a run
    run.wait().metrics                                 what it logged
    rayml.context().log_metric("loss", 0.1)            inside the job
    with rayml.start_run() as context: ...             track code that was not submitted
    rayml.autolog()                                    track code that never mentions rayml
    rayml.runs(), rayml.get_run(id)                    read back; only the store is needed
    rayml.load_model("rayml://models/churn@production")    what was registered
    rayml.hub.get("describe")(table)                   reusable functions

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
    from rayml import hub
    from rayml.ancestry import Lineage, lineage
    from rayml.artifacts import Artifact
    from rayml.autologging import autolog
    from rayml.database import sql
    from rayml.engine import Dask, Horovod, Spark, Torch
    from rayml.inputs import Input
    from rayml.job import submit
    from rayml.listing import Experiment, experiments, get_run, runs
    from rayml.registered import Model, ModelVersion
    from rayml.registry import (
        artifact,
        load_model,
        model,
        models,
        register_model,
    )
    from rayml.run import Run
    from rayml.run_context import Context
    from rayml.run_context import current_context as context
    from rayml.run_list import RunList
    from rayml.tracking import start_run

__version__ = "0.1.0"

_HUB = ("hub", "marketplace")
_LAZY = {
    "Artifact": "rayml.artifacts:Artifact",
    "Context": "rayml.run_context:Context",
    "Dask": "rayml.engine:Dask",
    "Experiment": "rayml.listing:Experiment",
    "Horovod": "rayml.engine:Horovod",
    "Input": "rayml.inputs:Input",
    "Lineage": "rayml.ancestry:Lineage",
    "Model": "rayml.registered:Model",
    "ModelVersion": "rayml.registered:ModelVersion",
    "Run": "rayml.run:Run",
    "RunList": "rayml.run_list:RunList",
    "Spark": "rayml.engine:Spark",
    "Torch": "rayml.engine:Torch",
    "artifact": "rayml.registry:artifact",
    "autolog": "rayml.autologging:autolog",
    "context": "rayml.run_context:current_context",
    "experiments": "rayml.listing:experiments",
    "get_job_submission_client_cluster_info": (
        "rayml.cluster.door:get_job_submission_client_cluster_info"
    ),
    "get_run": "rayml.listing:get_run",
    "lineage": "rayml.ancestry:lineage",
    "load_model": "rayml.registry:load_model",
    "model": "rayml.registry:model",
    "models": "rayml.registry:models",
    "register_model": "rayml.registry:register_model",
    "runs": "rayml.listing:runs",
    "sql": "rayml.database:sql",
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
    "Dask",
    "Experiment",
    "Horovod",
    "Input",
    "JobCancelled",
    "JobFailed",
    "JobTimeout",
    "JournalCorrupt",
    "JournalFenced",
    "Lineage",
    "Model",
    "ModelVersion",
    "NotFound",
    "RaymlError",
    "ResizeTimeout",
    "Resources",
    "Retry",
    "Run",
    "RunList",
    "Spark",
    "SpecError",
    "StoreError",
    "StoreUnreachable",
    "Torch",
    "artifact",
    "autolog",
    "context",
    "experiments",
    "get_run",
    "hub",
    "lineage",
    "load_model",
    "model",
    "models",
    "register_model",
    "runs",
    "sql",
    "start_run",
    "submit",
]


def __getattr__(name: str) -> object:
    if name in _HUB:
        return importlib.import_module("rayml.hub")
    if name not in _LAZY:
        raise AttributeError(f"module 'rayml' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    # Ray's clients look here for what makes `ray job submit --address rayml://…` work.
    return [*__all__, "__version__", "get_job_submission_client_cluster_info"]
