"""Rows to check a model on, in the form that it takes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pandas as pd

import rayml

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROWS = 1000
_BYTES = 256 * 1024 * 1024


def find_sample(
    artifact: rayml.Artifact,
    given: pd.DataFrame | None,
    store: Any,  # noqa: ANN401
) -> pd.DataFrame:
    """Return at most 1,000 rows of the columns that the model takes, in its order.

    Raises:
        SpecError: There are none, or a column is missing.
    """
    inputs = (artifact.meta.get("signature") or {}).get("inputs", [])
    names = [entry["name"] for entry in inputs]
    if given is not None:
        return _columns(given, names).sample(min(_ROWS, len(given)), random_state=0)
    for table in _tables(artifact, store):
        if set(names) <= set(table.columns) and names and None not in names and len(table):
            return table[names].sample(min(_ROWS, len(table)), random_state=0)
    if artifact.meta.get("input_example"):
        return _example(artifact.meta["input_example"], inputs)
    raise rayml.SpecError(
        f"model {artifact.uri} was logged without an example, and its run has no dataset with its "
        "columns; give sample= some rows"
    )


def _columns(given: pd.DataFrame, names: list[str | None]) -> pd.DataFrame:
    if not len(given):
        raise rayml.SpecError("sample has no rows; give some")
    if not names or None in names:
        return given
    if missing := [name for name in names if name not in given.columns]:
        lacks = ", ".join(map(repr, missing))
        raise rayml.SpecError(f"sample lacks {lacks}, which the model takes; add them")
    return given[names]


def _tables(artifact: rayml.Artifact, store: Any) -> Iterator[pd.DataFrame]:  # noqa: ANN401
    """Yield the datasets of the run that has logged the model, of up to 256 MiB each."""
    with suppress(rayml.RaymlError):
        run = rayml.get_run(artifact.run_id, store=store)
        found = [one for one in run.artifacts.values() if one.kind == "dataset"]
        uris = [one.uri for one in run.inputs.values() if one.kind == "artifact"]
        for uri in uris:
            with suppress(rayml.RaymlError):
                found.append(rayml.artifact(uri, store=store))
        for one in found:
            if one.kind == "dataset" and one.size < _BYTES:
                yield one.to_pandas()


def _example(values: list[Any], inputs: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the input example, whose values have been through JSON, in its types."""
    if inputs[0]["name"] is None:
        return pd.DataFrame(values)
    frame = pd.DataFrame(values, columns=[entry["name"] for entry in inputs])
    for entry in inputs:
        with suppress(TypeError, ValueError):  # a missing value among whole numbers
            frame[entry["name"]] = frame[entry["name"]].astype(entry["dtype"])
    return frame
