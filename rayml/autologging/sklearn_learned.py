"""What an estimator that groups or transforms rows has learned, in a few numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.autologging.charts import log_charts_at_end

if TYPE_CHECKING:
    from rayml.autologging.fits import Fit
    from rayml.run_context import Context

# scikit-learn's own attributes; each is logged without the underscore at its end.
_NUMBERS = (
    "inertia_",
    "n_iter_",
    "n_components_",
    "noise_variance_",
    "reconstruction_err_",
    "kl_divergence_",
    "stress_",
    "bound_",
    "lower_bound_",
)
_OUTLIER = -1  # how clusterers and detectors of outliers label a row that is in no group


def log_learned(context: Context, fit: Fit, estimator: Any) -> None:  # noqa: ANN401
    """Log those numbers of an estimator, or of a pipeline's last; of those with targets, none."""
    from sklearn.base import is_classifier, is_regressor  # noqa: PLC0415 - is imported already

    if is_classifier(estimator) or is_regressor(estimator):
        return
    final = final_of(estimator)
    values = {name: _number(getattr(final, name, None)) for name in _NUMBERS}
    learned = {name.rstrip("_"): value for name, value in values.items() if value is not None}
    learned |= _groups(getattr(final, "labels_", None))
    context.log_metrics({f"{fit.group}/{name}": value for name, value in learned.items()})
    if fit.is_kept and getattr(final, "explained_variance_ratio_", None) is not None:
        _log_explained(context, fit, final.explained_variance_ratio_)


def final_of(estimator: Any) -> Any:  # noqa: ANN401
    """Return the last step of a pipeline; of all else, itself."""
    return estimator[-1] if hasattr(estimator, "named_steps") else estimator


def _number(value: Any) -> float | None:  # noqa: ANN401
    """Return what is one number; None of anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _groups(labels: Any) -> dict[str, int]:  # noqa: ANN401
    """Return how many clusters there are, and rows in none."""
    if labels is None:
        return {}
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    found = np.unique(labels)
    return {
        "clusters": int((found != _OUTLIER).sum()),
        "unclustered": int((np.asarray(labels) == _OUTLIER).sum()),
    }


def _log_explained(context: Context, fit: Fit, ratios: Any) -> None:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415 - scikit-learn has it

    sums = np.cumsum(ratios)
    context.log_metric(f"{fit.group}/explained_variance", sums[-1])
    table = {"component": np.arange(1, len(sums) + 1), "ratio": np.array(ratios), "sum": sums}
    chart = {"explained_variance": (lambda: table, _draw_explained)}
    log_charts_at_end(context, fit.group, chart)


def _draw_explained(axes: Any, table: dict[str, Any]) -> None:  # noqa: ANN401
    axes.bar(table["component"], table["ratio"])
    axes.plot(table["component"], table["sum"], marker="o")
    axes.set(xlabel="component", ylabel="explained variance")
