"""auto_trainer: what it finds, what it tells, and what it does with bad tables."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.metrics import roc_auc_score, root_mean_squared_error
from sklearn.model_selection import train_test_split

import rayml

if TYPE_CHECKING:
    from collections.abc import Callable

    Tracked = Callable[..., tuple[Any, rayml.Run]]

QUICK: dict[str, Any] = {"budget_s": 60, "max_trials": 2, "models": ["lightgbm", "linear"]}
ONE: dict[str, Any] = {"budget_s": 60, "max_trials": 1, "models": ["linear"]}


def mixed(rows: int = 400) -> pd.DataFrame:
    """Return a table with every kind of column, whose target two of them tell."""
    rng = np.random.default_rng(0)
    size, day = (
        rng.normal(size=rows),
        pd.to_datetime("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, rows), unit="D"),
    )
    table = pd.DataFrame(
        {
            "size": np.where(rng.random(rows) < 0.1, np.nan, size),
            "colour": rng.choice(["red", "green", "blue"], rows),
            "city": [f"city {n}" for n in rng.integers(0, 150, rows)],
            "day": day.strftime("%Y-%m-%d"),
            "seen": day,
            "flag": rng.random(rows) < 0.5,
            "same": 1,
            "nothing": np.nan,
        }
    )
    table.loc[::9, "colour"] = None
    signal = np.nan_to_num(size) + (table["colour"] == "red") * 2 + rng.normal(size=rows) / 3
    return table.assign(bought=np.where(signal > 0.7, "yes", "no"))


class TestResult:
    def test_a_binary_target_s_test_scores_are_those_of_the_model(self, tracked: Tracked) -> None:
        table = load_breast_cancer(as_frame=True).frame

        result, run = tracked("auto_trainer", table=table, target="target", **QUICK)

        test = run.artifact("test").load()
        model = run.artifact("model").load()
        shares = model.predict_proba(test.drop(columns="target"))[:, 1]
        assert run.metrics["test/roc_auc"] == pytest.approx(roc_auc_score(test["target"], shares))
        assert result["score"] == run.metrics["test/roc_auc"] > 0.95
        assert result["task"] == "binary"
        assert len(test) == 114

    def test_numbers_are_predicted_and_given_rows_tested_on(self, tracked: Tracked) -> None:
        train, test = train_test_split(load_diabetes(as_frame=True).frame, random_state=0)

        result, run = tracked("auto_trainer", table=train, test=test, target="target", **QUICK)

        said = run.artifact("model").predict(test)
        error = root_mean_squared_error(test["target"], said)
        assert run.metrics["test/rmse"] == pytest.approx(error)
        assert error < test["target"].std()
        assert result["task"] == "regression"

    def test_labels_of_several_classes_come_back_as_they_were(self, tracked: Tracked) -> None:
        iris = load_iris(as_frame=True)
        table = iris.data.assign(kind=iris.target.map(dict(enumerate(iris.target_names))))
        models = ["xgboost", "network", "hist", "forest", "extra_trees"]

        result, run = tracked(
            "auto_trainer", table=table, target="kind", models=models, budget_s=60, max_trials=5
        )

        assert {one.state for one in run.trials()} == {"succeeded"}
        said = run.artifact("model").predict(table)
        assert np.mean(said == table["kind"]) > 0.9
        assert result["task"] == "multiclass"
        assert run.metrics["test/accuracy"] > 0.8

    def test_what_is_in_real_tables_is_taken_as_it_is(self, tracked: Tracked) -> None:
        table = mixed()

        _, run = tracked("auto_trainer", table=table, target="bought", **QUICK)

        assert run.metrics["test/roc_auc"] > 0.9
        importances = run.artifact("importances").load()
        assert set(importances["column"].head(2)) == {"size", "colour"}
        plots = {name for name, artifact in run.artifacts.items() if artifact.kind == "plot"}
        assert plots >= {"search", "importance", "effects/size", "effects/colour"}
        warnings = " ".join(run.artifact("warnings").load()["warning"])
        assert "'same' is constant" in warnings
        assert "'nothing' is all missing" in warnings
        assert "'day' holds dates as text" in warnings
        new = table.head(3).assign(colour="purple", city="nowhere", day="2024-12-24", size=None)
        assert set(run.artifact("model").predict(new)) <= {"yes", "no"}

    def test_the_best_model_is_registered(self, tracked: Tracked) -> None:
        tracked(
            "auto_trainer",
            table=mixed(),
            target="bought",
            register_as="buyers",
            alias="new",
            **QUICK,
        )
        assert set(rayml.load_model("rayml://models/buyers@new").classes_) == {"yes", "no"}


class TestSearch:
    def test_each_trial_is_a_child_run_and_defaults_come_first(self, tracked: Tracked) -> None:
        table = load_breast_cancer(as_frame=True).frame

        _, run = tracked(
            "auto_trainer", table=table, target="target", budget_s=60, max_trials=5,
            models=["lightgbm", "linear"],
        )  # fmt: skip

        trials = run.trials()
        board = run.artifact("leaderboard").load()
        assert [one.name for one in trials][:2] == ["lightgbm-0", "linear-1"]
        assert len(trials) == len(board) == run.metrics["trials"] == 5
        assert trials[0].params == {"model": "lightgbm"}
        for one in trials:
            row = board[board["trial"] == one.name].iloc[0]
            assert row["valid roc_auc"] == pytest.approx(one.metrics["valid/roc_auc"])
        assert board["weight"].sum() == pytest.approx(1)
        assert run.metrics["valid/roc_auc"] >= board["valid roc_auc"].max() - 0.005

    def test_the_budget_is_kept(self, tracked: Tracked) -> None:
        rng = np.random.default_rng(0)
        table = pd.DataFrame(rng.normal(size=(20_000, 40))).assign(y=rng.normal(size=20_000))

        started = time.monotonic()
        _, run = tracked("auto_trainer", table=table, target="y", budget_s=3, models=["lightgbm"])

        assert run.metrics["search_s"] + run.metrics["final_s"] < 12
        assert time.monotonic() - started < 60

    def test_the_search_never_sees_the_test(self, tracked: Tracked) -> None:
        # Its target is noise: only who has seen the test scores above chance there.
        rng = np.random.default_rng(3)
        table = pd.DataFrame(rng.normal(size=(300, 5))).assign(y=rng.integers(0, 2, 300))

        _, run = tracked("auto_trainer", table=table, target="y", seed=1, **QUICK)

        assert 0.3 < run.metrics["test/roc_auc"] < 0.7


class TestBadInput:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"target": "bougth"}, "no column 'bougth'; did you mean 'bought'"),
            ({"drop": ["colr"]}, "no column 'colr'"),
            ({"target": "same"}, "'same' is 1 in every row"),
            ({"target": "nothing"}, "no value of target 'nothing'"),
            ({"target": "seen"}, "is a time"),
            ({"metric": "rmse"}, "none of a binary target"),
            ({"models": ["lightgb"]}, "'lightgb'"),
            ({"budget_s": 0}, "budget_s=0"),
            ({"test_size": 20}, "test_size=20"),
            ({"memory": "lots"}, "memory='lots'"),
            ({"memory": "1Mi"}, "less than one process"),
            ({"alias": "new"}, "register_as"),
            ({"task": "regression"}, "takes numbers"),
            ({"table": mixed().head(0)}, "has no rows"),
            ({"table": mixed().head(8)}, "8 rows"),
            ({"table": mixed()[["same", "nothing", "bought"]]}, "no column to learn from"),
            ({"test": mixed().drop(columns="city")}, "the test has no column 'city'"),
        ],
    )
    def test_it_is_refused_in_a_sentence(
        self, tracked: Tracked, values: dict[str, Any], said: str
    ) -> None:
        given = {"table": mixed(), "target": "bought", **QUICK, **values}
        with pytest.raises(rayml.SpecError, match=said):
            tracked("auto_trainer", **given)

    def test_periods_are_left_out_with_a_way_to_keep_them(self, tracked: Tracked) -> None:
        table = mixed()
        table["day"] = pd.period_range("2024-01-01", periods=len(table), freq="D")

        _, run = tracked("auto_trainer", table=table, target="bought", **ONE)

        assert any(
            ".dt.to_timestamp()" in text for text in run.artifact("warnings").load()["warning"]
        )

    def test_columns_that_are_the_target_in_disguise_are_named(self, tracked: Tracked) -> None:
        table = mixed()
        is_yes = table["bought"] == "yes"
        table = table.assign(paid=is_yes * 9.5, word=np.where(is_yes, "a", "b"), code=is_yes)

        _, run = tracked("auto_trainer", table=table, target="bought", **ONE)

        warnings = run.artifact("warnings").load()["warning"]
        leaks = {text.split("'")[1] for text in warnings if "alone tells" in text}
        assert leaks == {"paid", "word", "code"}

    def test_a_class_with_one_row_is_learned_and_not_tested(self, tracked: Tracked) -> None:
        table = mixed().assign(bought=lambda t: t["bought"].where(t.index != 5, "maybe"))

        _, run = tracked("auto_trainer", table=table, target="bought", **ONE)

        assert "maybe" in run.artifact("model").load().classes_
        assert "maybe" not in set(run.artifact("test").load()["bought"])
        assert "'maybe'" in " ".join(run.artifact("warnings").load()["warning"])

    def test_a_class_with_a_handful_of_rows_is_scored_where_it_is(self, tracked: Tracked) -> None:
        table = mixed().assign(bought=lambda t: np.where(t.index.isin([3, 50, 99, 200]), "x", "y"))

        _, run = tracked("auto_trainer", table=table, target="bought", **ONE)

        assert 0 <= run.metrics["valid/roc_auc"] <= 1
        assert "'x' of target 'bought' has 4 rows" in " ".join(
            run.artifact("warnings").load()["warning"]
        )

    @pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
    def test_classes_of_two_rows_each_are_learned(self, tracked: Tracked) -> None:
        table = mixed(60).assign(bought=lambda t: [f"k{n // 2}" for n in range(len(t))])

        result, _ = tracked("auto_trainer", table=table, target="bought", **ONE)

        assert result["task"] == "multiclass"

    def test_mixed_types_infinities_and_gaps_are_taken_with_a_warning(
        self, tracked: Tracked
    ) -> None:
        table = mixed().assign(odd=np.array([1, "two", None, 3.5] * 100, dtype=object), far=np.inf)
        table.loc[::2, "far"] = 1.0
        table.loc[:49, "bought"] = None

        _, run = tracked("auto_trainer", table=table, target="bought", **ONE)

        warnings = " ".join(run.artifact("warnings").load()["warning"])
        assert "'odd' mixes float and int and str" in warnings
        assert "'far' has infinities" in warnings
        assert "50 rows of the table have no target" in warnings

    @pytest.mark.parametrize("dtype", ["string", "string[pyarrow]"])
    def test_text_whose_gaps_are_pandas_own_is_taken(self, dtype: str, tracked: Tracked) -> None:
        table = mixed().astype({"colour": dtype})
        table["few"] = pd.array([1, None] * 200, dtype="Int64")
        table["maybe"] = pd.array([True, None] * 200, dtype="boolean")

        _, run = tracked("auto_trainer", table=table, target="bought", **ONE)

        assert run.metrics["test/roc_auc"] > 0.8

    def test_fifty_thousand_categories(self, tracked: Tracked) -> None:
        rng = np.random.default_rng(0)
        shop = rng.integers(0, 50_000, 100_000)
        table = pd.DataFrame({"shop": [f"shop {n}" for n in shop]})
        table["sold"] = (shop % 100) / 10 + rng.normal(size=len(shop)) / 10

        _, run = tracked(
            "auto_trainer",
            table=table,
            target="sold",
            budget_s=60,
            max_trials=1,
            models=["lightgbm"],
        )

        assert run.metrics["test/r2"] > 0.3

    def test_rows_that_do_not_fit_into_memory_are_left_out(self, tracked: Tracked) -> None:
        rng = np.random.default_rng(0)
        words = {f"word {n}": [f"w{w}" for w in rng.integers(0, 90, 20_000)] for n in range(20)}
        table = pd.DataFrame(words).assign(y=rng.normal(size=20_000))

        _, run = tracked(
            "auto_trainer", table=table, target="y", memory="430Mi", budget_s=60, max_trials=1,
            models=["lightgbm"],
        )  # fmt: skip

        found: Any = run.params["found"]
        assert found["train_rows"] < 16_000
        assert "do not fit" in " ".join(run.artifact("warnings").load()["warning"])

    def test_a_trial_that_fails_does_not_end_the_search(self, tracked: Tracked) -> None:
        # XGBoost takes no targets this large, and a linear model does.
        table = load_diabetes(as_frame=True).frame.assign(target=lambda t: t["target"] * 1e39)

        _, run = tracked(
            "auto_trainer", table=table, target="target", budget_s=60, max_trials=2,
            models=["linear", "xgboost"],
        )  # fmt: skip

        board = run.artifact("leaderboard").load().set_index("model")
        assert board.loc["linear", "state"] == "complete"
        assert board.loc["xgboost", "state"] == "failed"
        assert board.loc["xgboost", "error"]
        states = {one.name: one.state for one in run.trials()}
        assert states == {"linear-0": "succeeded", "xgboost-1": "failed"}
