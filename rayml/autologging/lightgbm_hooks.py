"""What is LightGBM's own in its hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.autologging.boosting import Library, Rows
from rayml.autologging.boosting_hooks import BoostingHooks
from rayml.autologging.data import example_of, is_known, schema_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.autologging.boosting import Curves


class LightGBM(Library):
    """The library, of whichever version that has what is hooked."""

    name = "lightgbm"
    estimators = "lightgbm.sklearn"
    importance_kinds = ("gain", "split")

    def callback(self, curves: Curves) -> object:
        """Return a callback, which comes before all that may end the training."""
        return _Watch(curves)

    def look(self, data: Any) -> Any:  # noqa: ANN401
        """Return a few rows and their schema: what a data set is made of is let go in training."""
        table = getattr(data, "data", None)
        if table is None or not is_known(table):
            return None
        return example_of(table), schema_of(table)

    def rows(self, booster: Any, data: Any, seen: Any) -> Rows:  # noqa: ANN401
        """Tell of a data set."""
        names = self.features(booster)
        example, schema = seen or (None, {"type": ["float"] * len(names)})
        return Rows(data.num_data(), {"name": names, "type": schema["type"]}, example)

    def best(self, booster: Any) -> tuple[int, int] | None:  # noqa: ANN401
        """Return the iteration that early stopping has found; it counts from 1."""
        found = booster.best_iteration
        return (found, found - 1) if found > 0 else None

    def iterations(self, booster: Any) -> int:  # noqa: ANN401
        """Return how many iterations a booster has."""
        return int(booster.current_iteration())

    def features(self, booster: Any) -> list[str]:  # noqa: ANN401
        """Return names."""
        return list(booster.feature_name())

    def importance(self, booster: Any, kind: str) -> Mapping[str, float] | None:  # noqa: ANN401
        """Return an importance of every feature."""
        values = booster.feature_importance(importance_type=kind)
        return dict(zip(self.features(booster), map(float, values), strict=True))


class _Watch:
    order = 0
    before_iteration = False

    def __init__(self, curves: Curves) -> None:
        self._curves = curves

    def __call__(self, environment: Any) -> None:  # noqa: ANN401
        scores = [entry[:3] for entry in environment.evaluation_result_list or ()]
        self._curves.add(environment.iteration, scores)


LIBRARY = LightGBM()
_hooks = BoostingHooks(LIBRARY)
install = _hooks.install
uninstall = _hooks.uninstall
