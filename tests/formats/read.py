"""Reads all that a store holds, as plain JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

import rayml
from rayml.run import Run
from rayml.store import open_store
from rayml.tracker.edits import read_edited

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.spec import Target
    from rayml.tracker.runs import RunRecord


def read_store(uri: Path) -> dict[str, object]:
    """Return each run, by its name and as much as others may see of it, and each model."""
    store = open_store(uri)
    runs = {
        record.spec.name if record.spec.name == "newer" else record.spec.run: _run(record, uri)
        for record in read_edited(store).values()
    }
    models = {
        model.name: [
            [version.version, sorted(version.aliases), version.artifact.digest]
            for version in model.versions
        ]
        for model in rayml.models(store=store)
    }
    return {"runs": runs, "models": models}


def _run(record: RunRecord, uri: Path) -> dict[str, object]:
    run = Run(record.spec, open_store(uri))
    plain: dict[str, object] = msgspec.to_builtins(
        {
            "state": run.state,
            "attempt": run.attempt,
            "params": run.params,
            "labels": run.labels,
            "notes": run.notes,
            "is_archived": run.is_archived,
            "is_deleted": run.is_deleted,
            "problem": record.problem,
            "result": repr(run.result) if run.state == "succeeded" else None,
            "spec": {
                "experiment": run.spec.experiment,
                "parent": run.spec.parent,
                "target": _as_in_0_1(run.spec.target),
            },
            "history": {name: repr(record.points(name)) for name in sorted(record.series)},
            "artifacts": {
                name: {"kind": artifact.kind, "digest": artifact.digest}
                for name, artifact in run.artifacts.items()
            },
        }
    )
    return plain


def _as_in_0_1(target: Target) -> dict[str, str]:
    """Return a target with the fields that the first release knew."""
    fields: dict[str, str] = msgspec.structs.asdict(target)
    fields.pop("digest")
    return fields
