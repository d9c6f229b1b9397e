"""What a search of scikit-learn has tried: a table of all, and the best ones as runs."""

from __future__ import annotations

import json
import math
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import json_safe
from rayml.autologging.calls import warn
from rayml.autologging.children import Child, record_children
from rayml.autologging.ending import Task, at_end
from rayml.autologging.fits import log_table_at_end
from rayml.autologging.params import is_secret, shown
from rayml.autologging.sklearn_folds import fold_metric
from rayml.redaction import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rayml.autologging.fits import Fit
    from rayml.run_context import Context

_RUNS = 100  # of a search; the table has all
_MEASURED = re.compile(r"(mean|std|split\d+)_(.+)")
_STAGES = ("iter", "n_resources")  # of a search that halves


def log_trials(context: Context, fit: Fit, search: Any) -> None:  # noqa: ANN401
    """Log what a search has tried, when the run ends."""
    name = f"search{fit.suffix}"
    if hasattr(search, "best_score_"):
        context.log_metric(f"{name}/best_score", search.best_score_)
    own = {
        key: value for key, value in search.get_params(deep=False).items() if key != "estimator"
    }
    context.log_params({f"{name}/{key}": value for key, value in shown(own).items()})
    if not fit.is_kept:
        return
    log_table_at_end(context, f"{name}/trials", trials_of(search))
    trials = list(_children(name, search, time.time() - fit.seconds, fit.seconds))
    if len(trials) < (count := len(search.cv_results_["params"])):
        warn(f"makes runs of {len(trials)} of a search's {count} trials, the best", context)
    at_end(context, Task(f"the runs of {name}", partial(record_children, context, trials)))


def trials_of(search: Any) -> dict[str, list[Any]]:  # noqa: ANN401
    """Return what a search has tried, as columns."""
    return {
        name: _cells(name, values)
        for name, values in search.cv_results_.items()
        if name != "params"
    }


def _cells(name: str, values: Any) -> list[Any]:  # noqa: ANN401
    """Return a column of one type; what a trial does not have is None."""
    cells = [json_safe(value) for value in values.tolist()]
    if any(is_secret(name, cell) for cell in cells):
        return [MASK.decode()] * len(cells)
    if len({type(cell) for cell in cells if cell is not None}) <= 1:
        return cells
    return [cell if cell is None or isinstance(cell, str) else json.dumps(cell) for cell in cells]


def _children(name: str, search: Any, begun: float, seconds: float) -> Iterator[Child]:  # noqa: ANN401
    """Yield the best trials in their order, as if they had begun one after the other."""
    count = len(search.cv_results_["params"])
    for place in _best(search, count):
        curves = _curves(search.cv_results_, place)
        yield Child(
            name=f"{name}/trial-{place + 1}",
            params=_params(search, place),
            curves=curves,
            started_at=begun + seconds * place / count,
            seconds=_seconds(search, place),
            failure="" if _has_score(curves) else "no fold has a score; its warnings say why",
        )


def _best(search: Any, count: int) -> list[int]:  # noqa: ANN401
    """Return the places of the trials of the best ranks; without ranks, of the first ones."""
    named = f"rank_test_{getattr(search, 'refit', '')}"
    ranked = [name for name in search.cv_results_ if name.startswith("rank_test_")]
    name = named if named in ranked else next(iter(ranked), None)
    if name is None or count <= _RUNS:
        return list(range(min(count, _RUNS)))
    ranks = search.cv_results_[name]
    return sorted(sorted(range(count), key=lambda place: ranks[place])[:_RUNS])


def _params(search: Any, place: int) -> dict[str, object]:  # noqa: ANN401
    results = search.cv_results_
    tried = {f"model/{name}": value for name, value in shown(results["params"][place]).items()}
    stages = {f"cv/{name}": int(results[name][place]) for name in _STAGES if name in results}
    return {"model/class": type(search.estimator).__qualname__, **tried, **stages}


def _curves(results: Any, place: int) -> dict[str, list[float]]:  # noqa: ANN401
    """Return what was measured of a trial, named as that of a cross-validation is."""
    curves: dict[str, list[float]] = {}
    for column, values in results.items():
        if (found := _MEASURED.fullmatch(column)) is not None:
            kind, name = found.groups()
            ending = f"-{kind}" if kind in ("mean", "std") else ""
            curves.setdefault(fold_metric("cv", name) + ending, []).append(float(values[place]))
    return curves


def _has_score(curves: Mapping[str, list[float]]) -> bool:
    scores = (values for name, values in curves.items() if name.startswith("cv/test/"))
    return any(math.isfinite(value) for values in scores for value in values)


def _seconds(search: Any, place: int) -> float:  # noqa: ANN401
    """Return how long the folds of a trial took, one after the other."""
    results = search.cv_results_
    each = (results[name][place] for name in ("mean_fit_time", "mean_score_time"))
    return float(sum(each)) * int(getattr(search, "n_splits_", 1))
