"""What `monitor` finds, and against what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import rayml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hub.calls import Tracked

rng = np.random.default_rng(0)


def rows(count: int, *, shift: float = 0.0, town: str = "Bern") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": rng.normal(40 + shift, 10, count).round(),
            "income": rng.normal(5, 1, count),
            "town": rng.choice([town, "Basel"], count),
        }
    )


@pytest.fixture
def model(tmp_path: Path, tracked: Tracked) -> rayml.Artifact:
    """A model of age and income that was trained on a file, in the test's store."""
    table = rows(2000).assign(late=lambda t: t["age"] > 40)
    path = tmp_path / "train.csv"
    table.to_csv(path, index=False)
    with rayml.start_run("train", inputs={"table": path}) as context:
        features = table[["age", "income"]]
        fitted = LogisticRegression().fit(features, table["late"])
        return context.log_model("model", fitted, input_example=features[:3])


class TestVerdict:
    def test_rows_like_the_reference_are_stable(self, tracked: Tracked) -> None:
        result, run = tracked("monitor", table=rows(1000), reference=rows(1000))
        assert (result["verdict"], result["drifted"]) == ("stable", [])
        assert run.labels["verdict"] == "stable"
        assert run.metrics["input_drift"] == 0
        assert "drift.html" in run.artifacts

    def test_it_is_drift_from_the_threshold_on(self, tracked: Tracked) -> None:
        pair = {"table": rows(1000, shift=15), "reference": rows(1000)}
        result, run = tracked("monitor", **pair)
        assert (result["verdict"], result["drifted"]) == ("drift", ["age"])
        assert run.metrics["input_drift"] == pytest.approx(1 / 3)
        assert tracked("monitor", **pair, threshold=0.5)[0]["verdict"] == "stable"

    def test_missing_and_unseen_values_are_told(self, tracked: Tracked) -> None:
        live = rows(1000, town="Chur")
        live.loc[:299, "income"] = np.nan
        _, run = tracked("monitor", table=live, reference=rows(1000))
        assert run.metrics["missing_share"] == pytest.approx(0.1)
        assert run.metrics["unseen_share"] == pytest.approx((live["town"] == "Chur").mean())

    def test_with_fail_the_run_fails(self, tracked: Tracked) -> None:
        with pytest.raises(rayml.RaymlError, match="1 of 3 columns have drifted: age"):
            tracked("monitor", table=rows(500, shift=20), reference=rows(500), fail=True)
        assert rayml.get_run("latest").state == "failed"

    def test_the_target_is_not_missed(self, tracked: Tracked) -> None:
        reference = rows(500).assign(late=True)
        result, _ = tracked("monitor", table=rows(500), reference=reference, target="late")
        assert result["drifted"] == []


class TestModel:
    def test_its_training_data_is_found_by_its_lineage(
        self, tracked: Tracked, model: rayml.Artifact
    ) -> None:
        result, run = tracked("monitor", table=rows(1000), model=model)
        assert result["verdict"] == "stable"
        assert str(run.params["reference_data"]).endswith("train.csv")
        drift = run.artifact("drift").load()
        assert set(drift["column"]) == {"age", "income", "prediction"}

    def test_its_predictions_may_drift(self, tracked: Tracked, model: rayml.Artifact) -> None:
        live = rows(1000).assign(prediction=True)
        result, run = tracked("monitor", table=live, model=model)
        assert (result["verdict"], result["drifted"]) == ("drift", [])
        assert "so have the predictions" in result["why"]
        assert run.metrics["prediction_drift"] > 0.2

    def test_data_that_has_changed_since_is_refused(
        self, tracked: Tracked, model: rayml.Artifact, tmp_path: Path
    ) -> None:
        rows(10).assign(late=True).to_csv(tmp_path / "train.csv", index=False)
        with pytest.raises(rayml.SpecError, match="has changed since the model was trained"):
            tracked("monitor", table=rows(100), model=model)

    def test_a_model_of_unknown_data_needs_a_reference(self, tracked: Tracked) -> None:
        features = rows(50)[["age", "income"]]
        with rayml.start_run("train") as context:
            fitted = LogisticRegression().fit(features, features["age"] > 40)
            lone = context.log_model("model", fitted, input_example=features[:3])
        with pytest.raises(rayml.SpecError, match="has no table with the columns"):
            tracked("monitor", table=rows(100), model=lone)
        result, _ = tracked("monitor", table=rows(500), model=lone, reference=rows(500))
        assert result["verdict"] == "stable"


class TestWindows:
    def test_each_is_a_child_run_and_a_step(self, tracked: Tracked) -> None:
        days = pd.date_range("2026-01-01", periods=3, freq="D").repeat(400)
        live = pd.concat([rows(800), rows(400, shift=15)], ignore_index=True).assign(at=days)
        result, run = tracked(
            "monitor", table=live, reference=rows(1000), time="at", window_s=86_400
        )
        verdicts = [window["verdict"] for window in result["windows"]]
        assert (result["verdict"], verdicts) == ("drift", ["stable", "stable", "drift"])
        assert run.history("input_drift")["value"].tolist() == pytest.approx([0, 0, 1 / 3])
        assert [child.name for child in run.trials()] == ["window 1", "window 2", "window 3"]
        assert run.artifact("windows").load()["verdict"].tolist() == verdicts

    def test_an_endpoint_s_requests_are_read_once_each(
        self, tracked: Tracked, model: rayml.Artifact
    ) -> None:
        with rayml.start_run("serve", inputs={"model": model}, params={"keep_rows": 9}) as context:
            for number, shift in enumerate((0, 15), 1):
                kept = rows(500, shift=shift)[["age", "income"]].assign(
                    prediction=lambda t: t["age"] > 40,
                    predicted_at=pd.Timestamp("2026-01-01"),
                    version=1,
                )
                context.log_dataset(f"requests/{number:06d}", kept)
        result, _ = tracked("monitor", endpoint=context.run_id, every_s=1)
        assert [window["rows"] for window in result["windows"]] == [1000]
        assert result["verdict"] == "drift"


class TestMistakes:
    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({}, "give table or endpoint"),
            ({"table": rows(9), "endpoint": "x"}, "not both"),
            ({"table": rows(9)}, "nothing to compare with"),
            ({"table": rows(9), "model": __file__}, "no model of a run"),
            ({"table": rows(9), "every_s": 5}, "a table does not change"),
            ({"table": rows(9), "reference": rows(9), "threshold": 0}, "threshold=0 is no amount"),
            ({"table": rows(9)[:0], "reference": rows(9)}, "0 rows"),
            ({"table": rows(9), "reference": rows(9)[:0]}, "0 rows"),
            ({"table": rows(9), "reference": rows(9), "time": "agee"}, "is it age"),
            ({"table": rows(9), "reference": rows(9), "time": "town"}, "holds no times"),
            ({"table": rows(9), "reference": rows(9), "target": "late"}, "no column"),
            ({"endpoint": "nothing"}, "no run"),
        ],
    )
    def test_are_told(self, tracked: Tracked, values: dict[str, Any], words: str) -> None:
        with pytest.raises(rayml.RaymlError, match=words):
            tracked("monitor", **values)

    def test_a_run_that_keeps_nothing_is_no_endpoint(
        self, tracked: Tracked, model: rayml.Artifact
    ) -> None:
        with pytest.raises(rayml.SpecError, match="is none of hub://serve"):
            tracked("monitor", endpoint=model.run_id)
        with rayml.start_run("serve", inputs={"model": model}, params={"keep_rows": 0}) as context:
            pass
        with pytest.raises(rayml.SpecError, match="keeps no requests"):
            tracked("monitor", endpoint=context.run_id)
