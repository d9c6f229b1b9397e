"""Which blobs are named, by what: each with words that say what would be lost with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rayml.artifacts import ArtifactRecord
    from rayml.tracker.changes import CatalogState
    from rayml.tracker.records import Submission
    from rayml.tracker.runs import RunRecord


def blobs_of_run(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield the blobs that a run names: artifacts, long parameters, result, diff and packages."""
    for artifact in run.artifacts.values():
        for digest in _blobs_of(artifact):
            yield digest, f"{artifact.kind} {artifact.name!r}"
    for name, digest in [*run.spec.long_params.items(), *run.long_params.items()]:
        yield digest, f"param {name!r}"
    if run.result is not None and run.result.digest is not None:
        yield run.result.digest, "the result"
    if run.diff:
        yield run.diff, "what differed from its commit"
    for rank in run.ranks:
        if rank.packages:
            yield rank.packages, "the list of its packages"


def blobs_of_submission(submission: Submission) -> Iterator[tuple[str, str]]:
    """Yield the blobs that a submission names: its function and values, and its code."""
    yield submission.payload, "the submitted function"
    if submission.code is not None:
        yield submission.code, "the submitted code"
    if submission.diff:
        yield submission.diff, "what differed from its commit"
    for name, digest in submission.spec.long_params.items():
        yield digest, f"param {name!r}"


def blobs_of_versions(state: CatalogState) -> Iterator[tuple[str, str]]:
    """Yield the blobs that registered models name."""
    for name, model in state.models.items():
        for number, version in model.versions.items():
            for digest in _blobs_of(version.artifact):
                yield digest, f"model {name!r} version {number}"


def _blobs_of(artifact: ArtifactRecord) -> Iterator[str]:
    if not artifact.reference:
        yield from (file.digest for file in artifact.files)
