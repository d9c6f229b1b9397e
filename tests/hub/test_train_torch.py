"""Networks on tables: what they learn, what is logged of them, and what cannot be learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import ray
from sklearn.metrics import accuracy_score, log_loss, r2_score

import rayml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.hub.calls import Tracked

OWN = """
from torch import nn

def make_model(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))

def too_many(inputs, outputs):
    return nn.Linear(inputs, outputs + 1)

def no_module(inputs, outputs):
    return "network"
"""


DIES = """
import os
from pathlib import Path
from torch import nn

class Dies(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer, self.drop, self.steps = nn.Linear(inputs, outputs), nn.Dropout(), 0

    def forward(self, rows):
        self.steps += 1
        if self.steps == 8 and not Path(os.environ["MARK"]).exists():
            Path(os.environ["MARK"]).touch()
            raise RuntimeError("dies")
        return self.layer(self.drop(rows))

def make_model(inputs, outputs):
    return Dies(inputs, outputs)
"""


def mixed_table(rows: int = 1200) -> pd.DataFrame:
    """Numbers with gaps, text with gaps, times: each of them tells of `y`."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=rows), "n": rng.integers(0, 100, size=rows)})
    table["town"] = rng.choice(["Bonn", "Köln", "Ulm"], size=rows)
    table["day"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(
        rng.integers(0, 300, size=rows), "D"
    )
    table["seen"] = table.day.dt.tz_localize("UTC")
    table["member"] = rng.random(rows) > 0.5
    days = (table.day - table.day.min()).dt.days / 100
    table["y"] = 10 + table.a + (table.town == "Ulm") * 2 + days + table.member
    table.loc[::9, "a"] = np.nan
    table.loc[::11, "town"] = None
    table.loc[::13, "day"] = pd.NaT
    return table


class TestTraining:
    def test_a_mixed_table_is_learned_and_the_model_takes_its_own_columns(
        self, tracked: Tracked
    ) -> None:
        table = mixed_table()
        test = table[:300]

        result, run = tracked(
            "train_torch",
            table=table[300:],
            test=test,
            target="y",
            epochs=15,
            learning_rate=0.01,
            register_as="y",
        )

        model = rayml.load_model("rayml://models/y")  # without trust
        said = model.predict(test.drop(columns="y"))
        assert result["r2"] == pytest.approx(r2_score(test.y, said))
        assert result["r2"] > 0.6
        losses = run.history("valid/loss").value
        assert losses.min() < losses.iloc[0] * 0.7
        assert len(losses) == run.metrics["epochs"]
        assert run.history("train/learning_rate").value.iloc[0] == pytest.approx(0.01)
        assert "curves" in run.artifacts
        unseen = test.assign(town="Rom").drop(columns="y")
        assert np.isfinite(run.artifact("model").predict(unseen)).all()

    @pytest.mark.parametrize("classes", [["no", "yes"], ["low", "mid", "top"]])
    def test_classes(self, classes: list[str], tracked: Tracked) -> None:
        table = mixed_table()
        table["y"] = pd.qcut(table.y, len(classes), labels=classes).astype(str)

        result, run = tracked("train_torch", table=table, target="y", epochs=15, hidden=[32])

        model = run.artifact("model").load()
        assert model.classes_.tolist() == classes
        said = model.predict(table.drop(columns="y"))
        assert accuracy_score(table.y, said) > 0.6
        chances = model.predict_proba(table.drop(columns="y"))
        assert log_loss(table.y, chances, labels=classes) < np.log(len(classes))
        assert result["accuracy"] > 1.2 / len(classes)
        assert ("roc_auc" in result) == (len(classes) == 2)

    def test_the_same_seed_learns_the_same(self, tracked: Tracked) -> None:
        table = mixed_table(300)
        first, other, third = (
            tracked("train_torch", table=table, target="y", epochs=2, seed=seed)[0]
            for seed in (1, 1, 2)
        )
        assert first["r2"] == other["r2"]
        assert first["r2"] != third["r2"]

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_a_lower_precision_learns_too(self, precision: str, tracked: Tracked) -> None:
        _, run = tracked(
            "train_torch", table=mixed_table(400), target="y", epochs=4, precision=precision,
            learning_rate=0.01,
        )  # fmt: skip
        losses = run.history("valid/loss").value
        assert losses.iloc[-1] < losses.iloc[0]

    def test_training_ends_early_with_the_best_weights(self, tracked: Tracked) -> None:
        rng = np.random.default_rng(0)
        table = pd.DataFrame(rng.normal(size=(200, 5)), columns=list("abcde"))
        table["y"] = rng.random(200)  # there is nothing to learn

        result, run = tracked(
            "train_torch", table=table, target="y", epochs=200, patience=3, learning_rate=0.01
        )

        losses = run.history("valid/loss").value
        assert run.metrics["epochs"] == len(losses) < 200
        assert losses.idxmin() == result["best_epoch"] == len(losses) - 1 - 3

    @pytest.mark.parametrize("schedule", ["plateau", "constant", "cosine"])
    def test_the_learning_rate_follows_its_schedule(self, schedule: str, tracked: Tracked) -> None:
        table = mixed_table(300)
        _, run = tracked(
            "train_torch", table=table, target="y", epochs=6, schedule=schedule, patience=3
        )
        rates = run.history("train/learning_rate").value
        assert rates.iloc[0] == pytest.approx(0.001)
        if schedule == "cosine":
            assert rates.is_monotonic_decreasing
            assert rates.iloc[-1] < 0.0002
        elif schedule == "constant":
            assert (rates == rates.iloc[0]).all()


class TestOwnNetworks:
    @pytest.fixture
    def module(self, tmp_path: Path) -> str:
        (tmp_path / "own.py").write_text(OWN)
        return f"{tmp_path / 'own.py'}"

    def test_of_numbers_the_program_takes_the_columns_as_they_are(
        self, module: str, tracked: Tracked
    ) -> None:
        table = mixed_table()[["a", "n", "y"]]

        result, run = tracked(
            "train_torch", table=table, test=table, target="y", epochs=8,
            learning_rate=0.01, module=f"{module}:make_model",
        )  # fmt: skip

        said = run.artifact("model").predict(table[["n", "a", "y"]], trusted=True)
        assert result["r2"] == pytest.approx(r2_score(table.y, said), abs=1e-4)

    def test_of_text_it_takes_what_the_preprocessing_makes_of_it(
        self, module: str, tracked: Tracked
    ) -> None:
        table = mixed_table()
        table["y"] = table.y > table.y.median()

        result, run = tracked(
            "train_torch", table=table, test=table, target="y", epochs=8,
            learning_rate=0.01, module=f"{module}:make_model",
        )  # fmt: skip

        rows = run.artifact("preprocessing").load().transform(table)
        chances = run.artifact("model").predict(rows, trusted=True)
        np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
        assert result["accuracy"] == (chances.argmax(axis=1) == table.y).mean()
        assert result["log_loss"] == pytest.approx(log_loss(table.y, chances), abs=1e-4)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            (":too_many", "makes"),
            (":no_module", "returned a str"),
            (":make_modell", "no function 'make_modell'"),
            ("", "file.py:make_model"),
        ],
    )
    def test_what_is_no_network_is_refused(
        self, name: str, said: str, module: str, tracked: Tracked
    ) -> None:
        with pytest.raises(rayml.SpecError, match=said):
            tracked("train_torch", table=mixed_table(100), target="y", module=module + name)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "options", "said"),
        [
            (lambda rows: rows, {"target": "z"}, "no column 'z'"),
            (lambda rows: rows, {"target": "toun"}, "did you mean 'town'"),
            (lambda rows: rows.assign(y=1), {}, "the same in all rows"),
            (lambda rows: rows[:0], {}, "too few"),
            (lambda rows: rows[["y"]].assign(e=None, c=1), {}, "empty or constant"),
            (lambda rows: rows.assign(a=[np.inf, 1] * 50), {}, "infinite"),
            (lambda rows: rows.assign(m=[1, "x"] * 50), {}, "mixes int and str"),
            (lambda rows: rows.assign(m=[[1]] * 100), {}, "holds lists"),
            (lambda rows: rows.assign(y=[1, "x"] * 50), {}, "mixes types"),
            (lambda rows: rows.assign(y=rows.index.map("row {}".format)), {}, "in each row"),
            (lambda rows: rows.assign(y=rows.town), {"task": "regression"}, "no number"),
            (lambda rows: rows, {"task": "guess"}, "task is 'guess'"),
            (lambda rows: rows, {"epochs": 0}, "epochs is 0"),
            (lambda rows: rows, {"test_size": 1.5}, "test_size is 1.5"),
            (lambda rows: rows, {"schedule": "linear"}, "one of cosine"),
            (lambda rows: rows, {"precision": "int8"}, "one of auto"),
            (lambda rows: rows, {"learning_rate": 0}, "learning_rate is 0"),
        ],
    )  # fmt: skip
    def test_a_table_that_cannot_be_learned_from(
        self, change: Any, options: dict[str, Any], said: str, tracked: Tracked
    ) -> None:
        table = change(mixed_table(100))
        with pytest.raises(rayml.SpecError, match=said):
            tracked("train_torch", table=table, **{"target": "y", **options})

    def test_what_is_doubtful_is_told_and_trained_on(self, tracked: Tracked) -> None:
        table = mixed_table(400)
        table["y"] = (table.y > table.y.median()).astype(str)
        table.loc[0, "y"] = "once"
        table.loc[1, "y"] = None
        table["text"] = table.day.fillna(pd.Timestamp(0)).dt.strftime("%Y-%m-%d")
        table["id"] = [f"id-{row}" for row in range(400)]
        table["empty"] = None

        _, run = tracked("train_torch", table=table, target="y", epochs=1)

        told = " ".join(run.artifact("warnings").to_pandas().warning)
        for word in (
            "1 rows have no 'y'",
            "'text' looks like dates",
            "'id' has 399",
            "'empty' is",
        ):
            assert word in told
        assert run.artifact("model").load().classes_.tolist() == ["False", "True", "once"]

    @pytest.mark.parametrize("classes", [True, False])
    def test_columns_that_are_the_target_in_disguise_are_named(
        self, classes: bool, tracked: Tracked
    ) -> None:
        table = mixed_table(400)
        if classes:
            table["y"] = np.where(table.y > table.y.median(), "high", "low")
        codes = pd.factorize(table.y)[0] if classes else table.y
        table = table.assign(paid=codes * -9.5, log=np.exp(codes))

        _, run = tracked("train_torch", table=table, target="y", epochs=1, hidden=[4])

        told = [said for said in run.artifact("warnings").to_pandas().warning if "alone" in said]
        assert [said.split("'")[1] for said in told] == ["paid", "log"]

    def test_a_test_table_without_a_column(self, tracked: Tracked) -> None:
        table = mixed_table(100)
        with pytest.raises(rayml.SpecError, match="test table lacks 'town'"):
            tracked("train_torch", table=table, target="y", test=table.drop(columns="town"))


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray", "own_store")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
class TestJobs:
    def submit(self, **options: Any) -> Any:
        values = {"target": "y", "epochs": 4, "checkpoint_every": 1, **options.pop("params", {})}
        table = mixed_table(400)[["a", "n", "y"]]
        run: Any = rayml.submit(
            "hub://train_torch", inputs={"table": table}, params=values, **options
        )
        return run.wait()

    @pytest.mark.thorough
    def test_a_later_attempt_ends_as_the_first_would_have(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text(DIES)
        again = rayml.Retry(attempts=2, backoff_s=0.01)
        values = {"module": f"{tmp_path / 'own.py'}:make_model"}
        mark = tmp_path / "died"
        env = {"MARK": str(mark)}

        run = self.submit(params=values, env=env, retry=again)
        assert run.attempt == 2
        assert mark.exists()  # so that the next one does not die
        other = self.submit(params=values, env=env)

        assert other.attempt == 1
        assert run.metrics["r2"] == other.metrics["r2"]
        for curve in ("train/loss", "valid/loss", "train/learning_rate"):
            assert run.history(curve).value.tolist() == other.history(curve).value.tolist()

    def test_two_workers_train_one_model(self) -> None:
        run = self.submit(
            params={"epochs": 10, "learning_rate": 0.01},
            engine=rayml.Torch(workers=2, timeout_s=60),
            resources=rayml.Resources(cpus=0.5),
        )

        assert len(run.history("valid/loss")) == run.metrics["epochs"]
        said = run.artifact("model").predict(mixed_table(400))
        assert r2_score(mixed_table(400).y, said) > 0.2
