"""What is XGBoost's own in its hooks."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rayml.autologging.boosting import Library, Rows
from rayml.autologging.boosting_hooks import BoostingHooks
from rayml.autologging.data import EXAMPLE_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rayml.autologging.boosting import Curves


class XGBoost(Library):
    """The library, of whichever version that has what is hooked."""

    name = "xgboost"
    estimators = "xgboost.sklearn"
    importance_kinds = ("gain", "weight", "cover", "total_gain", "total_cover")

    def callback(self, curves: Curves) -> object:
        """Return a callback of its own class."""
        from xgboost.callback import TrainingCallback  # noqa: PLC0415 - is imported already

        class Watch(TrainingCallback):
            def after_iteration(self, model: object, epoch: int, evals_log: Any) -> bool:  # noqa: ANN401, ARG002
                curves.add(epoch, _last(evals_log))
                return False

        return Watch()

    def look(self, data: Any) -> Any:  # noqa: ANN401
        """Return nothing: its matrices keep what they are made of."""

    def rows(self, booster: Any, data: Any, _seen: object) -> Rows:  # noqa: ANN401
        """Tell of a matrix; one of quantiles gives no example."""
        names = self.features(booster)
        types = booster.feature_types or ["float"] * len(names)
        example = None
        if not {"c", "categorical"} & set(types):
            with suppress(Exception):  # whatever kind of matrix has no slices
                example = _example(data, booster.feature_names)
        return Rows(data.num_row(), {"name": names, "type": list(types)}, example)

    def best(self, booster: Any) -> tuple[int, int] | None:  # noqa: ANN401
        """Return the iteration that early stopping has found; it counts from 0."""
        found = booster.attr("best_iteration")
        return None if found is None else (int(found), int(found))

    def iterations(self, booster: Any) -> int:  # noqa: ANN401
        """Return how many iterations a booster has."""
        return int(booster.num_boosted_rounds())

    def features(self, booster: Any) -> list[str]:  # noqa: ANN401
        """Return names; its scores call a feature without one by its place."""
        return booster.feature_names or [f"f{place}" for place in range(booster.num_features())]

    def importance(self, booster: Any, kind: str) -> Mapping[str, float] | None:  # noqa: ANN401
        """Return an importance; a linear booster has coefficients, which it calls weights."""
        import xgboost  # noqa: PLC0415 - is imported already

        try:
            scores = booster.get_score(importance_type=kind)
        except xgboost.core.XGBoostError:
            return None
        # With several targets a linear booster has a list of them.
        return {str(k): sum(map(abs, v)) if isinstance(v, list) else v for k, v in scores.items()}


def _last(log: Any) -> Iterator[tuple[str, str, float]]:  # noqa: ANN401
    for data, metrics in log.items():
        for metric, values in metrics.items():
            yield data, metric, values[-1]


def _example(data: Any, names: list[str] | None) -> Any:  # noqa: ANN401
    """Return some rows as they were given: what a matrix does not have is missing."""
    import numpy as np  # noqa: PLC0415 - XGBoost has it

    sparse = data.slice(list(range(min(EXAMPLE_ROWS, data.num_row())))).get_data().tocoo()
    rows = np.full(sparse.shape, np.nan, dtype=np.float32)
    rows[sparse.row, sparse.col] = sparse.data
    if names is None:
        return rows
    import pandas as pd  # noqa: PLC0415 - names come from its frames, or a user's list

    return pd.DataFrame(rows, columns=names)


LIBRARY = XGBoost()
_hooks = BoostingHooks(LIBRARY)
install = _hooks.install
uninstall = _hooks.uninstall
