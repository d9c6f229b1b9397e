"""The verdict on windows of live rows, each compared with the same reference."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import rayml

from ._live import ADDED, Window, windows
from ._reference import features_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_PREDICTION = "prediction"
_IS_PREDICTION = re.compile(r"prediction(_\d+)?")
_SAMPLE = 100_000
_DRIFTED = ("drifted", "retyped", "gone")
_SHOWN = 5
_METRICS = ("input_drift", "prediction_drift", "missing_share", "unseen_share", "rows")
_RESULT = ("verdict", "why", "drifted")
_TIMES = ("begin", "end")


class Drifted(rayml.RaymlError):
    """Live rows have drifted further than was allowed."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How rows are judged: see the parameters of `monitor`."""

    target: str | None
    time: str | None
    window_s: float | None
    threshold: float
    fail: bool
    trusted: bool
    seed: int


class Judge:
    """Compares windows of live rows with a reference, and logs what it finds.

    Attributes:
        seen: A row for each window.
    """

    def __init__(
        self,
        context: rayml.Context,
        reference: pd.DataFrame,
        model: rayml.Artifact | None,
        rules: Rules,
    ) -> None:
        self._context, self._rules = context, rules
        self._predictor = _Predictor(model, trusted=rules.trusted)
        self._features = [] if model is None else features_of(model)
        if not (rules.target is None or self._features or rules.target in reference.columns):
            raise rayml.SpecError(
                f"target={rules.target!r} is no column of the reference; leave it out, or give "
                f"one of {', '.join(map(str, reference.columns[:_SHOWN]))}"
            )
        self._reference = self._prepared(_sampled(reference, rules.seed))
        self.seen: list[dict[str, Any]] = []

    def look(self, rows: pd.DataFrame, *, is_one_of_many: bool = False) -> None:
        """Compare rows, window by window.

        Args:
            rows: What is new.
            is_one_of_many: Others follow, so that each comparison has a run of its own.

        Raises:
            Drifted: One of them has drifted, and the rules say to fail.
        """
        found = [*windows(rows, self._rules.time, self._rules.window_s)]
        is_alone = len(found) == 1 and not is_one_of_many
        told = [self._judge(window, is_alone=is_alone) for window in found]
        if self._rules.fail and (drifted := [t for t in told if t["verdict"] == "drift"]):
            raise Drifted(
                f"{drifted[0]['window']}: {drifted[0]['why']}, where less than "
                f"{self._rules.threshold:.0%} of the columns may drift"
            )

    def result(self) -> dict[str, Any]:
        """Return what is known of the newest window, and of each."""
        newest = self.seen[-1]
        told = [{n: v for n, v in one.items() if n not in _TIMES} for one in self.seen]
        return {name: newest[name] for name in _RESULT} | {"windows": told}

    def _judge(self, window: Window, *, is_alone: bool) -> dict[str, Any]:
        number = len(self.seen) + 1
        live = self._prepared(window.rows)
        with self._run(number, is_alone=is_alone) as run:
            compare = rayml.hub.get("compare_datasets")
            found = compare(table=live, reference=self._reference)
        told = self._told(window, found) | {"run": run.run_id}
        self.seen.append(told)
        values = {name: told[name] for name in _METRICS if told[name] is not None}
        self._context.log_metrics(values, step=number)
        self._context.log_label("verdict", told["verdict"])
        self._context.log_table("windows", pd.DataFrame(self.seen).drop(columns="drifted"))
        print(f"{told['window']}: {told['verdict']} ({told['why']})")
        return told

    def _run(self, number: int, *, is_alone: bool) -> AbstractContextManager[rayml.Context]:
        """Return the run that a comparison belongs to: this one, or a part of it."""
        if is_alone:
            return nullcontext(self._context)
        return rayml.start_run(
            f"window {number}", parent=self._context.run_id, store=self._context.store
        )

    def _told(self, window: Window, found: dict[str, Any]) -> dict[str, Any]:
        columns: dict[str, dict[str, Any]] = found["columns"]
        predictions = {
            name: column
            for name, column in columns.items()
            if _IS_PREDICTION.fullmatch(name) and name not in self._features
        }
        inputs = {n: c for n, c in columns.items() if n not in predictions}
        drifted = [name for name in found["drifted"] if name in inputs]
        compared = [n for n, c in inputs.items() if c["verdict"] not in ("new", "skipped")]
        share = len(drifted) / len(compared) if compared else 0.0
        measures = [c["measure"] for c in predictions.values() if c["measure"] is not None]
        said = any(c["verdict"] in _DRIFTED for c in predictions.values())
        missing = [c.get("missing_table", 0.0) for c in inputs.values()]
        why = f"{len(drifted)} of {len(compared)} columns have drifted"
        if drifted:
            more = ", …" if len(drifted) > _SHOWN else ""
            why += f": {', '.join(drifted[:_SHOWN])}{more}"
        return {
            "window": str(window),
            "begin": window.begin,
            "end": window.end,
            "rows": len(window.rows),
            "verdict": "drift" if share >= self._rules.threshold or said else "stable",
            "why": f"{why}, and so have the predictions" if said else why,
            "input_drift": share,
            "prediction_drift": max(measures, default=None),
            "missing_share": float(np.mean(missing)) if missing else 0.0,
            "unseen_share": max((c.get("new_share", 0.0) for c in inputs.values()), default=0.0),
            "drifted": drifted,
        }

    def _prepared(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the columns that are compared, with predictions."""
        rows = rows.rename(columns=str)
        said = [n for n in rows.columns if _IS_PREDICTION.fullmatch(n) and n not in self._features]
        if self._features:
            kept = rows[[name for name in self._features if name in rows.columns]]
        else:
            left_out = {*ADDED, *said, self._rules.target, self._rules.time}
            kept = rows[[name for name in rows.columns if name not in left_out]]
        predictions = rows[said] if said else self._predictor.predict(kept)
        return kept if predictions is None else pd.concat([kept, predictions], axis=1)


class _Predictor:
    """What the model says of rows that nobody has predicted yet; nothing where it cannot."""

    def __init__(self, model: rayml.Artifact | None, *, trusted: bool) -> None:
        self._model, self._trusted = model, trusted
        if model is not None and model.needs_trust and not trusted:
            print(f"model {model.name!r} brings code along; trusted=True compares predictions too")
            self._model = None

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame | None:
        """Return the predictions as columns, or None."""
        if self._model is None:
            return None
        try:
            said = np.asarray(self._model.predict(rows, trusted=self._trusted))
        except Exception as exc:  # noqa: BLE001 - any model's own code, on rows that may be anything
            print(f"predictions are not compared: the model fails on the rows: {exc}")
            return None
        if said.ndim == 1:
            return pd.DataFrame({_PREDICTION: said}, index=rows.index)
        if said.ndim != 2:
            return None
        names = [f"{_PREDICTION}_{number}" for number in range(said.shape[1])]
        return pd.DataFrame(said, columns=names, index=rows.index)


def _sampled(reference: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return at most so many rows: drift that those do not show is too small to matter."""
    if len(reference) <= _SAMPLE:
        return reference
    print(f"{_SAMPLE:,} of the reference's {len(reference):,} rows are compared, a random sample")
    return reference.sample(_SAMPLE, random_state=seed)
