"""The columns worth learning from, by the votes of filters and models."""

from __future__ import annotations

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

import rayml

from ._choice import choose, likeness, mean_ranks, votes
from ._columns import Coded, check_columns, coded, why_useless
from ._judges import CPUS, FILTERS, MODELS, OF_CLASSES_ALONE, alone, judge, some_rows
from ._plots import likeness_plot, votes_plot

# The best of so many shuffled columns is what chance can do.
_CHANCES = 50
_FEW_ROWS = 20
_MOST_CLASSES = 20  # whole numbers of more values are amounts
_MOST_LABELS = 200
_LIKE_ROWS = 20_000
_LEAK = 0.99


def select_features(  # noqa: PLR0913, PLR0917 - what can be asked of a selection, by name
    context: rayml.Context,
    table: pd.DataFrame,
    target: str,
    test: pd.DataFrame | None = None,
    k: int | None = None,
    min_votes: float = 0.5,
    keep: list[str] | None = None,
    drop: list[str] | None = None,
    filters: list[str] | None = None,
    models: list[str] | None = None,
    max_correlation: float = 0.95,
    seed: int = 0,
) -> dict[str, object]:
    """Select the columns worth learning from, by the votes of filters and models.

    Each judge votes for the columns that it scores higher than the best of fifty or more shuffled
    ones, or for its best `k`. Of columns that enough vote for, those that tell what a better one
    tells are left out. Categories, dates and missing values are coded without that a row sees its
    own target. Logs the dataset `selected`, the table with these columns and the target, and
    `selected_test` of the test; the tables `scores`, with each column's scores, votes and the
    reason, and `warnings`, which names columns that look like the target in disguise; and the
    plots `votes` and `correlations`. Returns the columns and the datasets' URIs.

    Args:
        context: What the run logs to.
        table: The rows to judge by: those for training, and none of the test.
        target: The column to predict. Words, booleans and up to 20 whole numbers are classes.
        test: Rows that get the same columns, and have no say in which.
        k: How many columns each judge votes for, and how many stay at most; no number by default.
        min_votes: The share of the judges that a column needs.
        keep: Columns that stay whatever the votes.
        drop: Columns that go, such as keys and what is only known after the target.
        filters: Of "anova", "mutual_info", "chi2" (for classes) and "correlation"; all by default,
            and none for an empty list.
        models: Of "l1", "trees" and "permutation"; all by default, and none for an empty list.
        max_correlation: Of two columns with a larger correlation, Spearman's, one stays.
        seed: Of shuffles, samples and models.

    Raises:
        SpecError: A column is missing; the target is constant, or neither classes nor numbers;
            there are too few rows; nothing is left to choose from; or there is no such judge.
    """
    keep, drop = keep or [], drop or []
    judges = _judges(filters, models)
    _check_numbers(k, min_votes, max_correlation)
    check_columns(table, [target, *keep, *drop], "the table")
    if target in keep or target in drop:
        raise rayml.SpecError(f"target {target!r} is no feature; leave it out of keep and drop")
    warnings: list[str] = []
    table = table.rename(columns=str)
    rows = table[table[target].notna()].reset_index(drop=True)
    goal = _goal(table[target], rows[target], warnings)
    columns = [name for name in table.columns if name not in (target, *drop)]
    useless = {name: why for name in columns if (why := why_useless(rows[name]))}
    judged = [name for name in columns if name not in useless]
    judges = [name for name in judges if goal.dtype.kind != "f" or name not in OF_CLASSES_ALONE]
    if not judged or not judges:
        what = "judge is left for this target" if judged else "column is left to choose from"
        raise rayml.SpecError(f"no {what}; give others")
    real, shuffled = _coded(rows[judged], goal, seed)
    scores, chance = _scores(real, shuffled, goal, judges, judged, seed)
    ballot = votes(scores, chance, k)
    found = scores.assign(votes=ballot.sum(axis=1), share=ballot.mean(axis=1))
    found["mean_rank"] = mean_ranks(scores)
    alike = likeness(real.numbers[some_rows(len(goal), _LIKE_ROWS, seed)], real.owners, judged)
    found = choose(found, alike, keep, min_votes, max_correlation, k)
    if not found["selected"].any() and not keep:
        warnings.append("No column has enough votes: the best one stays.")
        is_best = found.index == found.index[0]
        found = found.assign(selected=is_best)
        found["reason"] = found["reason"].mask(is_best, "the best of all")
    warnings += _leaks(real, goal, judged, seed)
    selected = [*found.index[found["selected"]], *(name for name in useless if name in keep)]
    context.log_plot("votes", votes_plot(found, judges))
    context.log_plot("correlations", likeness_plot(alike.loc[found.index, found.index]))
    context.log_table("scores", _with_useless(found, useless, keep))
    context.log_metrics({"columns": len(columns), "selected": len(selected)})
    if warnings:
        context.log_table("warnings", {"warning": warnings})
    said = f"{len(selected)} of {len(columns)} columns are selected: {', '.join(selected[:20])}"
    print(said, *warnings, sep="\n")
    return _log_selected(context, table, test, target, selected)


def _judges(filters: list[str] | None, models: list[str] | None) -> list[str]:
    found = []
    for kind, names, known in (("filters", filters, FILTERS), ("models", models, MODELS)):
        for name in known if names is None else names:
            if name not in known:
                raise rayml.SpecError(
                    f"{kind} has {name!r}, which is none; known: {', '.join(known)}"
                )
            found.append(name)
    return found


def _check_numbers(k: int | None, min_votes: float, max_correlation: float) -> None:
    if k is not None and k < 1:
        raise rayml.SpecError(f"k={k} leaves no column; give 1 or more")
    for name, value in (("min_votes", min_votes), ("max_correlation", max_correlation)):
        if not 0 <= value <= 1:
            raise rayml.SpecError(f"{name}={value} is no share; give a number from 0 to 1")


def _goal(column: pd.Series, known: pd.Series, warnings: list[str]) -> np.ndarray:
    """Return the target as class numbers, or as amounts.

    Raises:
        SpecError: There is too little of it, or it is of no such kind.
    """
    if len(known) < _FEW_ROWS:
        raise rayml.SpecError(
            f"target {column.name!r} has a value in {len(known)} of {len(column)} rows; give at "
            f"least {_FEW_ROWS}"
        )
    if left_out := len(column) - len(known):
        warnings.append(f"{left_out} rows without a value of target {column.name!r} do not count.")
    _check_types(known)
    labels = known.astype(str)
    distinct = len(labels.unique())
    if distinct == 1:
        raise rayml.SpecError(
            f"target {column.name!r} is {known.iloc[0]!r} in all rows; nothing can tell it"
        )
    kinds = pd.api.types
    if kinds.is_numeric_dtype(known.dtype) and not kinds.is_bool_dtype(known.dtype):
        amounts: np.ndarray = known.astype(float).to_numpy()
        if not np.isfinite(amounts).all():
            raise rayml.SpecError(f"target {column.name!r} has infinite values; clean it")
        if distinct > _MOST_CLASSES or (amounts % 1 != 0).any():
            return amounts
    if distinct > min(_MOST_LABELS, len(known) / 2):
        raise rayml.SpecError(
            f"target {column.name!r} has {distinct} different values in {len(known)} rows, which "
            "are no classes and no numbers; give another"
        )
    codes: np.ndarray = pd.factorize(labels, sort=True)[0]
    return codes


def _check_types(known: pd.Series) -> None:
    kinds = sorted({type(value).__name__ for value in known}) if known.dtype == object else []
    if len(kinds) > 1:
        raise rayml.SpecError(
            f"target {known.name!r} mixes {' and '.join(kinds)}; convert it to one of them"
        )


def _coded(rows: pd.DataFrame, goal: np.ndarray, seed: int) -> tuple[Coded, Coded]:
    """Return the columns as numbers, and those of shuffled ones: what chance looks like."""
    random = np.random.default_rng(seed)
    copies = max(1, -(-_CHANCES // rows.shape[1]))
    shuffled = {
        f"{name} {copy}": rows[name].sample(frac=1, random_state=random).reset_index(drop=True)
        for copy in range(copies)
        for name in rows.columns
    }
    # As a task each: what is fitted in here is no model of the run's.
    real, chance = Parallel(n_jobs=1)(
        delayed(coded)(one, goal, seed) for one in (rows, pd.DataFrame(shuffled))
    )
    return real, chance


def _scores(
    real: Coded, shuffled: Coded, goal: np.ndarray, judges: list[str], names: list[str], seed: int
) -> tuple[pd.DataFrame, pd.Series]:
    """Return each judge's scores of the columns, and its best one of those that are shuffled."""
    values = np.hstack([real.numbers, shuffled.numbers])
    told = Parallel(n_jobs=CPUS, prefer="threads")(
        delayed(judge)(name, values, goal, seed) for name in judges
    )
    split = len(real.owners)
    scores = {name: real.by_owner(found[:split]) for name, found in zip(judges, told, strict=True)}
    chance = {
        name: shuffled.by_owner(found[split:]).max()
        for name, found in zip(judges, told, strict=True)
    }
    return pd.DataFrame(scores, index=names), pd.Series(chance)


def _leaks(real: Coded, goal: np.ndarray, names: list[str], seed: int) -> list[str]:
    """Return a warning of each column that tells the target all alone."""
    parts = [real.numbers[:, real.owners == place] for place in range(len(names))]
    told = Parallel(n_jobs=1)(delayed(alone)(part, goal, seed) for part in parts)
    return [
        f"Column {name!r} alone tells the target ({score:.3f} of 1): is it known before it? Else "
        "name it in `drop`."
        for name, score in zip(names, told, strict=True)
        if score >= _LEAK
    ]


def _with_useless(found: pd.DataFrame, useless: dict[str, str], keep: list[str]) -> pd.DataFrame:
    more = pd.DataFrame(
        {"selected": [name in keep for name in useless], "reason": list(useless.values())},
        index=list(useless),
    )
    table = pd.concat([found, more]) if useless else found
    return table.rename_axis("feature").reset_index()


def _log_selected(
    context: rayml.Context,
    table: pd.DataFrame,
    test: pd.DataFrame | None,
    target: str,
    selected: list[str],
) -> dict[str, object]:
    columns = [name for name in table.columns if name in selected or name == target]
    logged = {"dataset": context.log_dataset("selected", table[columns]).uri}
    if test is not None:
        check_columns(test, [name for name in columns if name != target], "the test")
        there = [name for name in columns if name in test]
        logged["test"] = context.log_dataset("selected_test", test[there]).uri
    return {"selected": selected, **logged}
