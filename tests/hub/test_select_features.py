"""The hub function select_features: what tells of the target stays, chance and twins go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_selection import f_classif

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hub.calls import Tracked


def told(rows: int = 600) -> pd.DataFrame:
    """Return a table of which four columns tell the target, one of them twice."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({f"noise{n}": random.normal(size=rows) for n in range(6)})
    table["linear"] = random.normal(size=rows)
    table["bent"] = random.normal(size=rows)
    table["place"] = random.choice(["north", "south", "east", "west"], rows)
    table["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(
        random.integers(0, 365, rows), "D"
    )
    table["twin"] = table["linear"] * -3 + random.normal(size=rows) * 0.01
    weekend = table["when"].dt.day_of_week >= 5
    total = table["linear"] * 1.5 + (table["place"] == "north") * 3 + weekend * 3
    table["amount"] = total + 1.2 * table["bent"] ** 2 + random.normal(size=rows) * 0.3
    table["late"] = np.where(table["amount"] > table["amount"].median(), "yes", "no")
    return table


@pytest.mark.parametrize(("target", "other"), [("late", "amount"), ("amount", "late")])
def test_what_tells_stays_and_chance_and_twins_go(
    tracked: Tracked, target: str, other: str
) -> None:
    result, run = tracked("select_features", table=told(), target=target, drop=[other])
    selected = set(result["selected"])
    assert {"place"} <= selected
    assert len(selected & {"linear", "twin"}) == 1
    assert not any(name.startswith("noise") for name in selected)
    scores = run.artifact("scores").load().set_index("feature")
    gone = "twin" if "linear" in selected else "linear"
    assert "tells what" in scores.loc[gone, "reason"]
    assert list(run.artifact("selected").load().columns) == [
        name for name in told().columns if name in {*selected, target}
    ]
    assert {"votes", "correlations"} <= set(run.artifacts)


def test_the_scores_of_a_filter_are_scikit_learns(tracked: Tracked) -> None:
    table = told()[["noise0", "linear", "bent", "late"]]
    _, run = tracked("select_features", table=table, target="late", filters=["anova"], models=[])
    scores = run.artifact("scores").load().set_index("feature")["anova"]
    expected = f_classif(table[["noise0", "linear", "bent"]], table["late"])[0]
    assert scores[["noise0", "linear", "bent"]].to_list() == pytest.approx(expected.tolist())


def test_a_test_table_has_no_say(tracked: Tracked) -> None:
    table = told().drop(columns="amount")
    train, test = table.iloc[:400], table.iloc[400:]
    given = {"table": train, "target": "late", "models": []}
    result, run = tracked("select_features", **given, test=test.drop(columns="late"))
    nonsense = test.assign(**{name: 0 for name in test.columns if name.startswith("noise")})
    other, _ = tracked("select_features", **given, test=nonsense)
    assert other["selected"] == result["selected"]
    kept = run.artifact("selected_test").load()
    assert set(kept.columns) == set(result["selected"])
    assert len(kept) == 200


def test_k_bounds_how_many_stay_and_keep_holds_what_is_wanted(tracked: Tracked) -> None:
    table = told().drop(columns="amount").assign(same=1)
    result, run = tracked(
        "select_features", table=table, target="late", k=3, keep=["noise3", "same"], models=[]
    )
    assert len(result["selected"]) == 4
    assert {"noise3", "same"} <= set(result["selected"])
    scores = run.artifact("scores").load().set_index("feature")
    assert scores.loc["noise3", "reason"] == "wanted"
    assert (scores["votes"].sum()) == 3 * 4


def test_what_tells_nothing_is_not_judged_and_the_disguised_target_is_told(
    tracked: Tracked,
) -> None:
    table = told().drop(columns="amount")
    table = table.assign(
        empty=None,
        same="a",
        key=[f"k{n}" for n in range(len(table))],
        paid=table["late"].map({"yes": 30.0, "no": 0.0}),
        note=table["late"].map({"yes": "was late", "no": "in time"}),
    )
    table.loc[::5, "bent"] = np.nan
    _, run = tracked("select_features", table=table, target="late", models=["trees"])
    scores = run.artifact("scores").load().set_index("feature")
    assert scores.loc["empty", "reason"] == "all values are missing"
    assert scores.loc["same", "reason"] == "all values are the same"
    assert scores.loc["key", "reason"] == "each row has a value of its own"
    said = run.artifact("warnings").load()["warning"].to_list()
    assert [name for name in ("paid", "note") if any(repr(name) in one for one in said)] == [
        "paid",
        "note",
    ]
    assert len(said) == 2


def test_chance_alone_leaves_one_column_and_says_so(tracked: Tracked) -> None:
    random = np.random.default_rng(1)
    table = pd.DataFrame(random.normal(size=(300, 5)), columns=list("abcde"))
    table["y"] = random.integers(0, 2, 300)
    result, run = tracked("select_features", table=table, target="y", min_votes=0.9)
    assert len(result["selected"]) == 1
    assert "the best one stays" in run.artifact("warnings").load()["warning"][0]


def test_numbers_near_the_largest_count_as_missing(tracked: Tracked) -> None:
    table = told().assign(huge=lambda t: np.where(t.index % 2, 1e308, -1e308))
    result, _ = tracked("select_features", table=table, target="late", filters=["anova"])
    assert "huge" not in result["selected"]


@pytest.mark.parametrize(
    ("change", "values", "message"),
    [
        (lambda t: t, {"target": "lat"}, "did you mean 'late'"),
        (lambda t: t, {"keep": ["nois0"]}, "did you mean 'noise0'"),
        (lambda t: t, {"drop": ["late"]}, "is no feature"),
        (lambda t: t, {"filters": ["anva"]}, "known: anova"),
        (lambda t: t, {"filters": [], "models": []}, "no judge is left"),
        (lambda t: t, {"filters": ["chi2"], "models": [], "target": "amount"}, "no judge is left"),
        (lambda t: t, {"k": 0}, "k=0"),
        (lambda t: t, {"min_votes": 3}, "min_votes=3"),
        (lambda t: t.assign(late="no"), {}, "in all rows"),
        (lambda t: t.assign(late=None), {}, "in 0 of 600 rows"),
        (lambda t: t.iloc[:0], {}, "in 0 of 0 rows"),
        (lambda t: t.assign(late=[f"n{n}" for n in range(len(t))]), {}, "600 different values"),
        (lambda t: t.assign(late=[1, "yes"] * (len(t) // 2)), {}, "mixes int and str"),
        (lambda t: t[["late"]], {}, "no column is left"),
        (lambda t: t.assign(tags=[["a"]] * len(t)), {}, "holds lists"),
        (lambda t: t, {"test": pd.DataFrame({"x": [1]}), "models": []}, "the test has no column"),
    ],
)
def test_what_is_wrong_is_said(
    tracked: Tracked,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    values: dict[str, object],
    message: str,
) -> None:
    given = {"target": "late", **values}
    with pytest.raises(rayml.SpecError, match=message):
        tracked("select_features", table=change(told()), **given)
