"""rayml as MLflow's own tracking store and artifact repository: MLflow's entry points.

    mlflow.set_tracking_uri("rayml:")           a script's runs land in the project's store
    mlflow ui --backend-store-uri rayml:        MLflow's own pages over that store

Inside a job, MLflow finds the store by itself, and the first run that a script starts is the job's
run; see `tracking_store`. Importing this package does not load MLflow, which loads it: an entry
point must not be slow, and MLflow is not whole yet when it asks for it.

    recorder.py             who writes a run: this process or another one
    entities.py             runs as MLflow shows them
    experiments.py          experiments, of which rayml knows the names
    logged_models.py        what MLflow knows of models beside their files
    tracking_store.py       MLflow's store of runs
    registry_store.py       MLflow's store of registered models
    artifact_repository.py  MLflow's artifacts
    peer.py                 another MLflow, to take runs from or to give them to
    imports.py, exports.py  runs; model_imports.py, model_exports.py: registered models
"""

from __future__ import annotations

# Whatever this registers at exit is called after what MLflow registers later: it still ends runs.
import multiprocessing.util  # noqa: F401
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayml.mlflow_plugin.artifact_repository import RaymlArtifactRepository
    from rayml.mlflow_plugin.registry_store import RaymlRegistryStore
    from rayml.mlflow_plugin.tracking_store import RaymlTrackingStore


def open_tracking_store(
    store_uri: str | None = None, artifact_uri: str | None = None
) -> RaymlTrackingStore:
    """Return the store at a `rayml:` URI; artifacts lie in it, wherever MLflow would put them."""
    from rayml.mlflow_plugin.tracking_store import (  # noqa: PLC0415 - MLflow is loading
        RaymlTrackingStore,
    )

    return RaymlTrackingStore(store_uri or "rayml:", artifact_uri)


def open_registry_store(
    store_uri: str | None = None, tracking_uri: str | None = None
) -> RaymlRegistryStore:
    """Return the registered models of the store at a `rayml:` URI."""
    from rayml.mlflow_plugin.registry_store import (  # noqa: PLC0415 - MLflow is loading
        RaymlRegistryStore,
    )

    return RaymlRegistryStore(store_uri or "rayml:", tracking_uri)


def open_artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> RaymlArtifactRepository:
    """Return the artifacts below a run's `rayml:` URI."""
    from rayml.mlflow_plugin.artifact_repository import (  # noqa: PLC0415 - MLflow is loading
        RaymlArtifactRepository,
    )

    return RaymlArtifactRepository(artifact_uri, tracking_uri, registry_uri)
