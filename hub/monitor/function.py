"""Drift of live inputs, and of what a model says of them, against its training data."""

from __future__ import annotations

import time as clock
from typing import Any

import rayml

from ._judge import Judge, Rules
from ._live import Kept, find_kept
from ._reference import find_model, find_reference


def monitor(  # noqa: PLR0913 - what is compared with what, where and how often
    context: rayml.Context,
    table: rayml.Input | None = None,
    *,
    endpoint: str | None = None,
    model: rayml.Input | None = None,
    reference: rayml.Input | None = None,
    target: str | None = None,
    time: str | None = None,
    window_s: float | None = None,
    threshold: float = 0.3,
    fail: bool = False,
    every_s: float | None = None,
    for_s: float | None = None,
    trusted: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Tell whether live inputs, and what the model says of them, have drifted from training.

    What is live is a table, or the requests that a run of `serve` keeps (`keep_rows`). What it
    should be like is `reference`, or else the data that the model was trained on, which is found
    by its lineage: the model's run, and what that was given. With a model, only the columns that
    it takes are compared, and its predictions: those that are in the table as `prediction`, or
    that it makes now. Each comparison is one of `compare_datasets`, whose tables, plots and report
    are in this run, or of several windows in a child run for each.

    The verdict is `drift` if at least the share `threshold` of the columns has drifted, or the
    predictions have, else `stable`. Of the newest window it is the label `verdict`; each window is
    a row of the table `windows` and a step of the metrics `input_drift` (the share of the columns
    that have drifted), `prediction_drift` (as PSI), `missing_share` (of all values),
    `unseen_share` (of the rows, in the column where most are categories that were never seen) and
    `rows`.

    It returns the newest window's `verdict`, `why` in words and the `drifted` columns, and all of
    these of each window under `windows`.

    With `every_s` it looks at what is new since the last look, until the endpoint's run or `for_s`
    is over.

    Args:
        context: What the run logs to.
        table: Live rows; or give `endpoint`.
        endpoint: The id of a run of `serve`, or a beginning of it.
        model: The model that predicts, as `rayml://models/churn@production`; of an endpoint it is
            known.
        reference: Rows as they should be; None for what the model was trained on.
        target: A column of the reference that live rows do not have; of a model it is known.
        time: The table's column of times, for windows; None for `predicted_at`, which is in what
            `serve` keeps.
        window_s: Seconds of each window; None takes all rows of a look together.
        threshold: The share of drifted columns from which on the verdict is `drift`.
        fail: Fail the run once a window's verdict is `drift`.
        every_s: Seconds between looks at an endpoint; None looks once.
        for_s: Seconds after which it looks no more; None goes on as long as the endpoint does.
        trusted: Run the code that a pickled model brings along, for its predictions.
        seed: Of the sample of a reference with more than 100,000 rows.

    Raises:
        SpecError: There is nothing to compare, or nothing to compare it with.
        Drifted: With `fail`: the verdict is `drift`.
    """
    _check(threshold=threshold, window_s=window_s, every_s=every_s, for_s=for_s)
    if (table is None) == (endpoint is None):
        raise rayml.SpecError("give table or endpoint, and not both: it is what is compared")
    if table is not None and every_s is not None:
        raise rayml.SpecError("a table does not change; leave out every_s, or give an endpoint")
    kept = None if endpoint is None else find_kept(endpoint, context.store)
    artifact = _model(model, kept, context)
    if reference is not None:
        uri, base = reference.uri, reference.to_pandas()
    elif artifact is not None:
        uri, base = find_reference(artifact, context.store)
    else:
        raise rayml.SpecError(
            "there is nothing to compare with; give reference, or the model that was trained on it"
        )
    context.log_param("reference_data", uri)
    rules = Rules(
        target=target,
        time=time,
        window_s=window_s,
        threshold=threshold,
        fail=fail,
        trusted=trusted,
        seed=seed,
    )
    judge = Judge(context, base, artifact, rules)
    if table is not None:
        judge.look(table.to_pandas())
    elif kept is not None:
        _follow(judge, kept, every_s, for_s)
    return judge.result()


def _model(
    model: rayml.Input | None, kept: Kept | None, context: rayml.Context
) -> rayml.Artifact | None:
    if model is not None:
        return find_model(model)
    return None if kept is None else rayml.artifact(kept.model, store=context.store)


def _follow(judge: Judge, kept: Kept, every_s: float | None, for_s: float | None) -> None:
    """Look at what an endpoint keeps, once or again and again."""
    ends = clock.monotonic() + (for_s or float("inf"))
    while True:
        is_last = every_s is None or kept.is_over  # asked first: what comes later is read below
        if (rows := kept.new()) is not None:
            judge.look(rows, is_one_of_many=every_s is not None)
        rest = ends - clock.monotonic()
        if is_last or every_s is None or rest <= 0:
            break
        clock.sleep(min(every_s, rest))
    if not judge.seen:
        raise rayml.SpecError(
            f"run {kept.id} has kept no requests yet; it does so once a minute, if there are some"
        )


def _check(**amounts: float | None) -> None:
    for name, amount in amounts.items():
        if amount is not None and not 0 < amount < float("inf"):
            raise rayml.SpecError(f"{name}={amount} is no amount; give a number above 0")
