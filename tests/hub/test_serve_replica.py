"""What a replica answers, for models of each kind; without Ray."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.tree import DecisionTreeClassifier

import rayml
from rayml.hub.serve._replica import Replica, Served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Serve = Callable[..., Replica]

TABLE = pd.DataFrame({"age": np.arange(40.0), "kind": pd.Categorical(["a", "b"] * 20)})
NUMBERS = TABLE[["age"]]
OLD = TABLE["age"] > 20


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Return a replica of a model that was logged."""

    def make(model: object, example: object, **options: Any) -> Replica:
        with rayml.start_run("train", store=tmp_path) as context:
            artifact = context.log_model("model", model, input_example=example, **options)
        return Replica(Served(artifact, "old", 1), 4, {}, trusted=True)

    return make


def ask(replica: Replica, *requests: object, wanted: bool = False) -> list[tuple[int, Any]]:
    """Return the answers to requests that come at once."""

    async def all_at_once() -> list[tuple[int, bytes]]:
        bodies = [json.dumps(rows).encode() for rows in requests]
        return await asyncio.gather(*[replica(body, wanted=wanted) for body in bodies])

    return [(status, json.loads(told)) for status, told in asyncio.run(all_at_once())]


class Odd:
    """A model that fails on what it does not like."""

    def predict(self, rows: pd.DataFrame) -> list[str]:
        if (rows["age"] > 100).any():
            raise ValueError("nobody is that old")
        return [f"{age:g}" for age in rows["age"]]


class TestBatches:
    def test_have_the_categories_of_all_requests(self, serve: Serve) -> None:
        model = LGBMClassifier(n_estimators=5, verbose=-1).fit(TABLE, OLD)
        rows = [{"age": 30.0, "kind": kind} for kind in ("a", "b", "never")]
        asked = pd.DataFrame(rows).astype({"kind": "category"})
        answers = ask(serve(model, TABLE[:3]), *([row] for row in rows), wanted=True)
        found = [answer["probabilities"][0] for _, answer in answers]
        np.testing.assert_allclose(found, model.predict_proba(asked))

    def test_a_request_that_the_model_fails_on_spoils_no_other(self, serve: Serve) -> None:
        replica = serve(Odd(), NUMBERS[:2], format="pickle")
        answers = ask(replica, [{"age": 1}, {"age": 2}], [{"age": 200}], [{"age": 3}])
        assert [status for status, _ in answers] == [200, 422, 200]
        assert answers[0][1]["predictions"] == ["1", "2"]
        assert "nobody is that old" in answers[1][1]["error"]
        assert answers[2][1]["predictions"] == ["3"]

    def test_are_no_longer_than_they_may_be(self, serve: Serve) -> None:
        model = LinearRegression().fit(NUMBERS, TABLE["age"] * 2)
        answers = ask(serve(model, NUMBERS[:2]), *([{"age": age}] for age in range(11)))
        found = [answer["predictions"][0] for _, answer in answers]
        np.testing.assert_allclose(found, [2 * age for age in range(11)], atol=1e-9)


class TestModels:
    def test_of_arrays_take_nested_lists(self, serve: Serve) -> None:
        model = KMeans(2, random_state=0).fit(NUMBERS.to_numpy())
        ((status, answer),) = ask(serve(model, NUMBERS[:3].to_numpy()), [[1.0], [39.0]])
        assert status == 200
        assert answer["predictions"] == model.predict([[1.0], [39.0]]).tolist()

    def test_without_classes_give_no_probabilities(self, serve: Serve) -> None:
        model = LinearRegression().fit(NUMBERS, TABLE["age"])
        ((status, answer),) = ask(serve(model, NUMBERS[:2]), [{"age": 1}], wanted=True)
        assert (status, "gives no probabilities" in answer["error"]) == (422, True)

    def test_of_several_outputs_give_each(self, serve: Serve) -> None:
        targets = np.stack([OLD, ~OLD], axis=1)
        model = MultiOutputClassifier(DecisionTreeClassifier()).fit(NUMBERS, targets)
        ((_, answer),) = ask(serve(model, NUMBERS[:2]), [{"age": 30}], wanted=True)
        assert answer["predictions"] == [[True, False]]
        assert answer["probabilities"] == {"0": [[0.0, 1.0]], "1": [[1.0, 0.0]]}
        assert answer["classes"] == [[False, True], [False, True]]

    def test_that_were_logged_without_an_example_take_any_rows(self, serve: Serve) -> None:
        model = LinearRegression().fit(NUMBERS, TABLE["age"])
        answers = ask(serve(model, None), [{"age": 3}], [{"year": 3}], [])
        assert [status for status, _ in answers] == [200, 422, 422]

    def test_that_fail_on_their_own_example_do_not_come_up(self, serve: Serve) -> None:
        class Fails(Odd):
            calls = 0

            def predict(self, rows: pd.DataFrame) -> list[str]:
                self.calls += 1
                if self.calls > 1:
                    raise ValueError("once is enough")
                return super().predict(rows)

        with pytest.raises(ValueError, match="once is enough"):
            serve(Fails(), NUMBERS[:2], format="pickle")
