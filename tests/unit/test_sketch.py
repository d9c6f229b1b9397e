"""Sketches of columns: exact of few values, close of many, and the same whole from parts."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pandas as pd
import pytest

from rayml.artifacts.sketch import Distinct, Spread

RANDOM = np.random.default_rng(3)
MANY = RANDOM.lognormal(size=100_000)
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def spread_of(values: np.ndarray) -> Spread:
    sketch = Spread.of(values)
    assert sketch is not None
    return sketch


@pytest.mark.parametrize("parts", [1, 7, 200])
def test_few_values_are_exact_in_whatever_parts_they_come(parts: int) -> None:
    values = RANDOM.integers(0, 1500, 4000)
    pieces = np.array_split(values, parts)
    assert reduce(add, map(Distinct.of, pieces)).count == len(np.unique(values))
    sketch = reduce(add, (spread_of(piece.astype(float)) for piece in pieces))
    assert sketch.quantiles(SHARES) == pytest.approx(list(np.quantile(values, SHARES)))
    assert sketch.histogram(20) == np.histogram(values, 20)[0].tolist()


@pytest.mark.parametrize("values", [MANY, np.sort(MANY), np.round(MANY, 1)])
@pytest.mark.parametrize("parts", [1, 300])
def test_many_values_are_close(values: np.ndarray, parts: int) -> None:
    pieces = np.array_split(values, parts)
    different = len(np.unique(values))
    assert reduce(add, map(Distinct.of, pieces)).count == pytest.approx(different, rel=0.1)
    sketch = reduce(add, map(spread_of, pieces))
    for share, value in zip(SHARES, sketch.quantiles(SHARES), strict=True):
        assert (values < value).mean() - 0.01 <= share <= (values <= value).mean() + 0.01
    counts, _ = np.histogram(values, 20)
    assert sum(sketch.histogram(20)) == pytest.approx(len(values), abs=20)
    assert np.abs(np.array(sketch.histogram(20)) - counts).max() < 0.02 * len(values)


def test_the_ends_are_exact() -> None:
    sketch = spread_of(MANY)
    assert (sketch.low, sketch.high) == (MANY.min(), MANY.max())


def test_text_is_counted_across_parts() -> None:
    one, other = (np.array(words, dtype=object) for words in (["a", "b"], ["b", "c", "d"]))
    assert (Distinct.of(one) + Distinct.of(other)).count == 4
    words = np.array([f"word {number}" for number in range(50_000)], dtype=object)
    assert Distinct.of(words).count == pytest.approx(50_000, rel=0.1)


def test_one_value_alone_has_one_bin() -> None:
    sketch = spread_of(np.full(10, 2.5))
    assert sketch.histogram(20) == [10]
    assert sketch.quantiles(SHARES) == [2.5] * 5


@pytest.mark.parametrize("ends", [(0.0, 5e-324), (-1e308, 1e308)])
def test_ends_that_no_bins_fit_between_have_one(ends: tuple[float, float]) -> None:
    assert spread_of(np.array(ends)).histogram(20) == [2]


def test_what_is_not_finite_has_no_place() -> None:
    assert Spread.of(np.array([np.inf, -np.inf])) is None
    assert spread_of(np.array([np.inf, 1.0, 3.0])).quantiles([0.5]) == [2.0]


def test_values_are_told_apart_as_pandas_does() -> None:
    values = pd.Series([1.5, 1.5, -0.0, 0.0, 2.0])
    assert Distinct.of(values.to_numpy()).count == values.nunique()
