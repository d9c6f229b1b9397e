"""How what is measured of a cross-validation by scikit-learn is named."""

from __future__ import annotations


def fold_metric(group: str, name: str) -> str:
    """Return the name of a metric of folds, as those of boosters are named.

    >>> fold_metric("cv", "test_f1"), fold_metric("cv", "fit_time")
    ('cv/test/f1', 'cv/fit_time')
    """
    data, _, metric = name.partition("_")
    return f"{group}/{data}/{metric}" if data in ("test", "train") else f"{group}/{name}"
