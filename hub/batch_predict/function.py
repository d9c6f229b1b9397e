"""Predictions of a model for all rows of a table, which may be larger than memory."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Literal

import rayml

from ._drift import compare
from ._model import Job, open_model
from ._rows import open_source
from ._scores import score
from ._workers import Tally, predict_all, workers


def batch_predict(  # noqa: PLR0913, PLR0917 - what can be asked of it, by name
    context: rayml.Context,
    model: rayml.Input,
    table: rayml.Input,
    reference: rayml.Input | None = None,
    target: str | None = None,
    keep: list[str] | None = None,
    failed: Literal["apart", "raise"] = "apart",
    batch_size: int = 10_000,
    seed: int = 0,
    trusted: bool = False,  # noqa: FBT001, FBT002 - parameters of a job have names
) -> dict[str, float]:
    """Predict every row of a table larger than memory, on all CPUs that the job holds.

    Each worker loads the model once and reads the table part by part. The dataset `predictions`
    has the table's columns, `prediction`, and of a classifier `probability_<class>`; rows keep
    their order. Before the work starts, the columns and types are compared with those that the
    model was trained on, and the first rows are tried. Metrics are `rows`, `failed_rows`,
    `rows_per_s`, `workers`, with a target the scores `accuracy`, `balanced_accuracy`, `f1`,
    `log_loss` and `roc_auc` (two classes), or `mae`, `rmse` and `r2`. Rows that the model fails on
    are the dataset `failed_rows`, each with its `error`.

    Args:
        context: What the run logs to.
        model: A registered model's URI, the artifact of a model, or a fitted model.
        table: Parquet, CSV or TSV: a file, a folder, a dataset artifact, an s3:// or gs:// URI.
            They are read as a stream; JSON and others, and DataFrames, as a whole. Columns that
            the model does not take are passed through.
        reference: Rows to compare the table with, such as those that the model was trained on:
            how far it has drifted is logged by `compare_datasets`.
        target: The column with the truth, for scores; rows without it are not scored.
        keep: The table's columns that `predictions` has; all of them by default.
        failed: Rows that the model fails on: `apart` leaves them out of `predictions`, and ends
            the run if they are most of some thousand; `raise` ends it at the first one.
        batch_size: Rows that the model gets at once.
        seed: Of the rows that are drawn for the comparison with `reference`.
        trusted: Run the code that a pickle or an exported PyTorch program brings along.

    Raises:
        SpecError: The model takes columns that the table lacks, or of other types; it cannot be
            loaded or fails on all rows; or the table has no rows.
    """
    if batch_size < 1:
        raise rayml.SpecError(f"batch_size is {batch_size}; give at least one row")
    width, cpus = workers()
    opened = open_model(context, model, trusted)
    with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
        source = open_source(table, opened.takes, batch_size, width, Path(folder))
        job = Job.plan(opened, source, keep, target, batch_size)
        tally = Tally.start(failed)
        begun = time.perf_counter()
        predictions = predict_all(context, source, job, tally, width, cpus)
        seconds = time.perf_counter() - begun
        rows = predictions.meta["rows"]
        failures, warnings = tally.log(context, rows)
        if reference is not None:
            warnings += compare(source, reference, batch_size, width, seed)
    found = {"rows": rows, "failed_rows": failures, "rows_per_s": rows / seconds, "workers": width}
    if target is not None:
        found |= score(predictions, target, opened.classes)
    context.log_metrics(found)
    if warnings:
        print(*warnings, sep="\n")
        context.log_table("warnings", [{"warning": said} for said in warnings])
    return found
