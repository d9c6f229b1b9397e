"""The data that a model was trained on, found by its lineage: model ← run ← dataset."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

_TRAIN = "train"


def find_model(given: rayml.Input) -> rayml.Artifact:
    """Return the model that an input names.

    Raises:
        SpecError: It is no model.
    """
    if (artifact := given.artifact) is None:
        raise rayml.SpecError(
            f"model is {given.uri}, which is no model of a run; give rayml://models/NAME@ALIAS or "
            "rayml://runs/RUN/NAME"
        )
    if artifact.kind != "model":
        raise rayml.SpecError(f"{artifact.uri} is a {artifact.kind} and no model; give one")
    return artifact


def features_of(model: rayml.Artifact) -> list[str]:
    """Return the columns that a model takes; none where its signature does not say."""
    signature: dict[str, Any] = model.meta.get("signature") or {"inputs": []}
    return [entry["name"] for entry in signature["inputs"] if entry["name"] is not None]


def find_reference(model: rayml.Artifact, store: Any) -> tuple[str, pd.DataFrame]:  # noqa: ANN401
    """Return where the data is that a model was trained on, and that data.

    Of what its run was given and has logged, it is what has all columns that the model takes; of
    several, what is called after training.

    Raises:
        SpecError: There is none, or it is not what it was any more.
    """
    run = rayml.get_run(model.run_id, store=store)
    features, seen = set(features_of(model)), []
    candidates = [*_given(run, store), *_logged(run)]
    for candidate in sorted(candidates, key=lambda one: _TRAIN not in one.name):
        try:
            table = candidate.read()
        except (rayml.SpecError, rayml.NotFound):  # no table, or none that is still there
            seen.append(candidate.name)
            continue
        if features <= {str(column) for column in table.columns}:
            _check_unchanged(candidate)
            return candidate.uri, table
        seen.append(candidate.name)
    known = f", only {', '.join(seen)}" if seen else ""
    raise rayml.SpecError(
        f"run {run.id}, which made model {model.name!r}, has no table with the columns that the "
        f"model takes{known}; give reference"
    )


@dataclass(frozen=True)
class _Candidate:
    """What may be the training data.

    Attributes:
        digest: Of a file, when the run was submitted; None where nobody knows.
    """

    name: str
    uri: str
    read: Callable[[], pd.DataFrame]
    digest: str | None = None


def _given(run: rayml.Run, store: Any) -> Iterator[_Candidate]:  # noqa: ANN401
    find = partial(rayml.artifact, store=store)
    for name, record in run.inputs.items():
        if record.kind != "memory":
            given = rayml.Input(record, None, find)
            digest = record.digest if record.kind == "path" else None
            yield _Candidate(name, record.uri, given.to_pandas, digest)


def _logged(run: rayml.Run) -> Iterator[_Candidate]:
    for name, artifact in run.artifacts.items():
        if artifact.kind == "dataset":
            yield _Candidate(name, artifact.uri, artifact.to_pandas)


def _check_unchanged(candidate: _Candidate) -> None:
    path = Path(candidate.uri)
    if candidate.digest is None or not path.is_file():
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != candidate.digest:
        raise rayml.SpecError(
            f"{path}, the model's input {candidate.name!r}, has changed since the model was "
            "trained; give reference"
        )
