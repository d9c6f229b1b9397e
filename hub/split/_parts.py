"""Which rows are in which part."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pandas as pd

import rayml

Parts: TypeAlias = dict[str, np.ndarray]
"""Positions of rows, in order, by the part's name: train, validation if there is one, test."""

_STRATA = 10  # classes that numbers are cut into
_DISCRETE = 20  # as many different numbers are classes as they are


def split_rows(
    by: str,
    values: pd.Series | None,
    rows: int,
    test_size: float,
    validation_size: float,
    seed: int,
    warnings: list[str],
) -> Parts:
    """Return the parts.

    Args:
        by: "random", "stratified", "time" or "group".
        values: Of each row, what it is split by; None for random.
        rows: How many there are.
        test_size: Share of the rows.
        validation_size: Share of the rows, 0 for none.
        seed: Of the draw.
        warnings: Gets what should be known of the split.

    Raises:
        SpecError: A part would be empty.
    """
    _check_sizes(test_size, validation_size)
    sizes = {"test": test_size} | ({"validation": validation_size} if validation_size else {})
    rng = np.random.default_rng(seed)
    if by == "time" and values is not None:
        return _by_time(values, sizes, warnings)
    if by == "group" and values is not None:
        return _by_group(values, sizes, rng, warnings)
    if by == "stratified" and values is not None:
        return _by_draw(_even_order(values, rng, warnings), rows, sizes)
    return _by_draw(rng.permutation(rows), rows, sizes)


def _check_sizes(test_size: float, validation_size: float) -> None:
    if not 0 < test_size < 1:
        raise rayml.SpecError(
            f"test_size={test_size} is no share of the rows; give 0.2 for a fifth"
        )
    if not 0 <= validation_size < 1 - test_size:
        raise rayml.SpecError(
            f"validation_size={validation_size} beside test_size={test_size} leaves nothing to "
            "train with; give shares whose sum is below 1"
        )


def _by_draw(order: np.ndarray, rows: int, sizes: dict[str, float]) -> Parts:
    """Return the parts as stretches of an order: test first, and train what is left."""
    found, start = {}, 0
    for name, size in sizes.items():
        stop = start + max(1, round(rows * size))
        found[name] = np.sort(order[start:stop])
        start = stop
    if start >= rows:
        raise rayml.SpecError(
            f"the table has {rows} rows, too few for {len(sizes) + 1} parts; give more"
        )
    return _in_order({"train": np.sort(order[start:]), **found})


def _in_order(parts: Parts) -> Parts:
    return {name: parts[name] for name in ("train", "validation", "test") if name in parts}


def _even_order(values: pd.Series, rng: np.random.Generator, warnings: list[str]) -> np.ndarray:
    """Return an order of the rows of which each stretch has all classes by their shares.

    The last row of each class comes last, so that there is one of it to learn from.
    """
    classes = _classes(values, warnings)
    drawn = rng.permutation(len(classes))
    codes = classes[drawn]
    place = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    counts = np.bincount(codes)
    where = (place + rng.random(len(counts))[codes]) / counts[codes]
    where[place == counts[codes] - 1] += 1
    if alone := int((counts == 1).sum()):
        shown = ", ".join(repr(v) for v in values.groupby(classes).first()[counts == 1][:5])
        warnings.append(
            f"{alone:,} classes of {values.name!r} have a single row, which is in train: {shown}."
        )
    return drawn[np.argsort(where, kind="stable")]


def _classes(values: pd.Series, warnings: list[str]) -> np.ndarray:
    """Return a number for each row's class; rows without a value are a class too."""
    if missing := int(values.isna().sum()):
        warnings.append(
            f"{missing:,} rows have no {values.name!r}; they are a class of their own."
        )
    is_number = pd.api.types.is_numeric_dtype(values.dtype)
    if is_number and values.nunique() > _DISCRETE:
        values = pd.qcut(values.rank(method="first"), _STRATA, labels=False)
        values = values.fillna(-1)
    codes, _ = pd.factorize(values, use_na_sentinel=False)
    return codes


def _by_time(times: pd.Series, sizes: dict[str, float], warnings: list[str]) -> Parts:
    """Return the latest rows as test; rows of one moment are on one side of a border."""
    known = np.flatnonzero(times.notna())
    if left_out := len(times) - len(known):
        warnings.append(f"{left_out:,} rows have no {times.name!r} and are in no part.")
    order = known[np.argsort(times.iloc[known].to_numpy(), kind="stable")]
    ranks = pd.Series(times.iloc[order].to_numpy()).rank(method="dense").to_numpy().astype(int)
    found, stop = {}, len(order)
    for left, (name, size) in enumerate(sizes.items()):
        start = _border(ranks, stop - max(1, round(len(order) * size)), stop)
        if start <= len(sizes) - 1 - left or start == stop:
            raise rayml.SpecError(
                f"column {times.name!r} has {ranks[-1]} different times, and most rows have few "
                f"of them, too few for {len(sizes) + 1} parts; split by something else"
            )
        found[name] = np.sort(order[start:stop])
        stop = start
    return _in_order({"train": np.sort(order[:stop]), **found})


def _border(ranks: np.ndarray, wanted: int, stop: int) -> int:
    """Return where a moment begins, as near as can be to where the border is wanted."""
    wanted = min(max(wanted, 0), stop - 1)
    before = int(np.searchsorted(ranks, ranks[wanted], side="left"))
    after = int(np.searchsorted(ranks, ranks[wanted], side="right"))
    if before == 0:
        return after
    return before if after >= stop or wanted - before <= after - wanted else after


def _by_group(
    groups: pd.Series, sizes: dict[str, float], rng: np.random.Generator, warnings: list[str]
) -> Parts:
    """Return parts of whole groups, in a random order, as near to their sizes as these allow."""
    codes, known = pd.factorize(groups)
    codes = codes.copy()
    alone = codes == -1
    codes[alone] = len(known) + np.arange(alone.sum())
    counts = np.bincount(codes)
    if len(counts) <= len(sizes):
        raise rayml.SpecError(
            f"column {groups.name!r} has {len(counts)} group, too few for {len(sizes) + 1} parts; "
            "split by something else"
        )
    place = np.full(len(counts), "train", dtype=object)
    free = rng.permutation(len(counts))
    for left, (name, size) in enumerate(sizes.items()):
        taken = _take(counts, free, max(1, round(len(codes) * size)), len(sizes) - left)
        place[free[taken]] = name
        free = free[~taken]
    found = {name: np.flatnonzero(place[codes] == name) for name in ("train", *sizes)}
    for name, size in sizes.items():
        if not size / 2 <= (share := len(found[name]) / len(codes)) <= size * 2:
            warnings.append(
                f"{name} has {share:.1%} of the rows, and {size:.0%} were asked for: the groups "
                f"of {groups.name!r} are few and large."
            )
    return _in_order(found)


def _take(counts: np.ndarray, free: np.ndarray, wanted: int, to_leave: int) -> np.ndarray:
    """Say which of the free groups fill a part: those that fit in, else the smallest one."""
    taken = np.zeros(len(free), dtype=bool)
    rows = 0
    for place, size in enumerate(counts[free]):
        if rows + size <= wanted and taken.sum() < len(free) - to_leave:
            taken[place] = True
            rows += size
    if not taken.any():
        taken[np.argmin(counts[free])] = True
    return taken
