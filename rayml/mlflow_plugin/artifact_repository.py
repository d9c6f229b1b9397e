"""MLflow's artifact repository over the artifacts of a run.

MLflow knows paths, rayml artifacts, each of one or several files:

    artifact "plots/roc.png" with the file "roc.png"       plots/roc.png
    artifact "model" with the files "MLmodel", "model.pkl"  model/MLmodel, model/model.pkl
    artifact "report" with the file "report.csv"            report/report.csv

A file that MLflow logs is an artifact of its path; a folder is one artifact, a model if it holds
an MLmodel. Of two artifacts with the same path the newer one is shown.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import yaml
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from rayml.artifacts.digests import add_files
from rayml.artifacts.file import save_file
from rayml.artifacts.record import ArtifactRecord
from rayml.errors import SpecError
from rayml.mlflow_plugin.entities import is_dataset
from rayml.mlflow_plugin.logged_models import notes_of
from rayml.mlflow_plugin.recorder import flush_writers
from rayml.mlflow_plugin.refusals import translated
from rayml.mlflow_plugin.runs import find_run, log_artifact
from rayml.mlflow_uri import parse_artifact_uri
from rayml.store import fetch_blob, open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rayml.artifacts.record import FileRecord
    from rayml.store import Store
    from rayml.tracker.runs import RunRecord

_MODEL_FILE = "MLmodel"


class Shown(NamedTuple):
    """A file of an artifact, and the path by which MLflow knows it."""

    path: str
    file: FileRecord


@translated
class RaymlArtifactRepository(ArtifactRepository):  # type: ignore[misc]
    """Artifacts of one run, all of them or those below a path."""

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        """Take a URI apart; see `rayml.mlflow_uri`."""
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        location = parse_artifact_uri(artifact_uri)
        self._store = open_store(location.store)
        self._run = location.run
        self._root = location.path

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Log a file below a path."""
        path = Path(local_file)
        if not path.is_file():
            raise SpecError(f"there is no file {local_file!r}; check the path")
        name = self._full(artifact_path, path.name)
        log_artifact(self._store, self._run, save_file(self._store, name, path))

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Log what is in a folder below a path."""
        folder = Path(local_dir)
        if not folder.is_dir():
            raise SpecError(f"there is no folder {local_dir!r}; check the path")
        name = self._full(artifact_path)
        known = self._record().artifacts
        for artifact in _folders(self._store, folder, name):
            parts = [artifact] if _may_replace(known, artifact) else _apart(artifact)
            for part in parts:
                log_artifact(self._store, self._run, part)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Return what lies right below a path, which is nothing if it is a file."""
        prefix = f"{path.strip('/')}/" if path and path.strip("/") else ""
        found: dict[str, FileInfo] = {}
        for shown in self._files():
            if shown.path.startswith(prefix):
                name, slash, _ = shown.path.removeprefix(prefix).partition("/")
                size = None if slash else shown.file.size
                found[name] = FileInfo(prefix + name, bool(slash), size)
        return [found[name] for name in sorted(found)]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        wanted = remote_file_path.strip("/")
        for shown in self._files():
            if shown.path == wanted:
                fetch_blob(self._store, shown.file.digest, Path(local_path))
                return
        raise MlflowException(
            f"No such artifact: '{remote_file_path}'", error_code=RESOURCE_DOES_NOT_EXIST
        )

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Refuse: what a run has logged stays as long as the run."""
        raise SpecError(f"artifact {artifact_path!r} stays as long as its run; delete that")

    def _record(self) -> RunRecord:
        flush_writers(self._store)
        return find_run(self._store, self._run)

    def _full(self, *parts: str | None) -> str:
        return "/".join(part.strip("/") for part in (self._root, *parts) if part)

    def _files(self) -> Iterator[Shown]:
        """Yield the files below the root, relative to it; of several of one path, the newest."""
        files = artifact_files(self._record(), with_models=bool(self._root))
        prefix = f"{self._root}/" if self._root else ""
        for shown in files:
            if shown.path.startswith(prefix):
                yield Shown(shown.path.removeprefix(prefix), shown.file)


def artifact_files(record: RunRecord, *, with_models: bool = False) -> list[Shown]:
    """Return the files of a run by the paths that MLflow knows.

    Args:
        record: The run.
        with_models: Also those of logged models, which MLflow keeps apart.
    """
    models = set() if with_models else {note.artifact for note in notes_of(record)}
    files: dict[str, Shown] = {}
    for artifact in sorted(record.artifacts.values(), key=lambda found: found.created_at):
        if artifact.name not in models and not is_dataset(artifact):
            files |= {shown.path: shown for shown in shown_files(artifact)}
    return list(files.values())


def shown_files(artifact: ArtifactRecord) -> Iterator[Shown]:
    """Yield an artifact's files by the paths that MLflow knows."""
    name, files = artifact.name, artifact.files
    is_itself = len(files) == 1 and files[0].path == name.rpartition("/")[2]
    if is_itself and artifact.format != "folder":
        yield Shown(name, files[0])
        return
    for file in files:
        yield Shown(f"{name}/{file.path}", file)


def save_folder(store: Store, name: str, folder: Path) -> ArtifactRecord | None:
    """Store a folder as one artifact, a model if it holds an MLmodel; None if it is empty."""
    files = add_files(store, folder, list(_below(folder)))
    if not files:
        return None
    artifact = ArtifactRecord(name=name, kind="file", format="folder", files=files, meta={})
    description = folder / _MODEL_FILE
    if not description.is_file():
        return artifact
    meta = _model_meta(description)
    return msgspec.structs.replace(artifact, kind="model", format="mlflow", meta=meta)


def _folders(store: Store, folder: Path, name: str) -> Iterator[ArtifactRecord]:
    """Yield a folder as one artifact; without a name, each thing in it as one."""
    if name:
        if (artifact := save_folder(store, name, folder)) is not None:
            yield artifact
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if (artifact := save_folder(store, path.name, path)) is not None:
                yield artifact
        else:
            yield save_file(store, path.name, path)


def _may_replace(known: dict[str, ArtifactRecord], artifact: ArtifactRecord) -> bool:
    """Tell whether an artifact holds all that an older one of its name has held."""
    older = known.get(artifact.name)
    return older is None or {f.path for f in older.files} <= {f.path for f in artifact.files}


def _apart(artifact: ArtifactRecord) -> Iterable[ArtifactRecord]:
    for file in artifact.files:
        name = f"{artifact.name}/{file.path}"
        single = msgspec.structs.replace(file, path=name.rpartition("/")[2])
        yield ArtifactRecord(name=name, kind="file", format="file", files=[single], meta={})


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            yield path.relative_to(folder).as_posix(), path


def _model_meta(description: Path) -> dict[str, object]:
    """Return what an MLmodel file tells: which library reads the model, and by which versions."""
    try:
        told = yaml.safe_load(description.read_text("utf-8"))
        flavors = dict(told.get("flavors", {}))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, ValueError):
        flavors, told = {}, {}
    loader = flavors.get("python_function", {}).get("loader_module")
    return {
        "class": loader or next(iter(flavors), "mlflow"),
        "library": "mlflow",
        "flavors": sorted(flavors),
        "mlflow_version": told.get("mlflow_version"),
        "model_id": told.get("model_id"),
    }
