"""An endpoint as its clients see it: one for the file, on a real Ray."""

from __future__ import annotations

import http.client
import json
import threading
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pandas as pd
import psutil
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

import rayml
from tests.ray.conftest import fair_share, ray_address  # noqa: F401 - fixtures
from tests.ray.eventually import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

ROWS = pd.DataFrame({"age": [20, 30, 60, 70], "income": [1.0, 2.0, 8.0, 9.0]})
LABELS = ["no", "no", "yes", "yes"]
ROW = {"age": 65, "income": 8.5}
TOKEN = "a-long-token"


@dataclass
class Client:
    """Who sends requests, with the token unless told otherwise."""

    url: str
    headers: dict[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {TOKEN}"})

    def ask(
        self, path: str, body: object = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Return status and answer."""
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        how = method or ("GET" if data is None else "POST")
        try:
            connection.request(how, path, data, self.headers | headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        is_json = "json" in response.headers.get("content-type", "")
        return response.status, json.loads(text) if is_json else text

    def predict(self, rows: object) -> Any:
        """Return what the model says."""
        status, answer = self.ask("/predict", rows)
        assert status == 200, answer
        return answer


@dataclass(frozen=True)
class Served:
    run: rayml.Run
    client: Client
    model: rayml.Model


def add_version(store: Path, model: object, **options: Any) -> None:
    with rayml.start_run("train", store=store) as context:
        artifact = context.log_model("model", model, **options)
    rayml.register_model(artifact, "buyers")


def begin(store: Path, **params: object) -> tuple[rayml.Run, Client]:
    """Return a run that serves, and its client."""
    run: Any = rayml.submit(
        "hub://serve",
        inputs={"model": "rayml://models/buyers@production"},
        params={"token": "SERVE_TOKEN", **params},
        secrets={"SERVE_TOKEN": TOKEN},
        store=store,
    )
    eventually(lambda: "url" in run.labels or run.is_over, 120)
    assert "url" in run.labels, run.logs()
    return run, Client(run.labels["url"])


@pytest.fixture(scope="module")
def served(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:  # noqa: F811
    """An endpoint that follows `production`: 1 and 2 are good, 3 cannot be loaded."""
    store = tmp_path_factory.mktemp("serve") / "store"
    fitted = LogisticRegression().fit(ROWS, LABELS)
    add_version(store, fitted, input_example=ROWS)
    add_version(store, DummyClassifier().fit(ROWS, ["never"] * 4), input_example=ROWS)
    add_version(store, {"no": "model"}, format="pickle")
    model = rayml.model("buyers", store=store)
    model.set_alias("production", 1)
    run, client = begin(
        store, follow="production", poll_s=600, max_mib=1, keep_rows=1000, batch_size=8
    )
    yield Served(run, client, model)
    run.cancel()
    with pytest.raises(rayml.JobCancelled):
        run.wait(60)


def applications() -> list[str]:
    """Return what Ray Serve has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        from ray import serve

        return list(serve.status().applications)


class TestPredictions:
    def test_are_the_model_s_own(self, served: Served) -> None:
        answer = served.client.predict([ROW, {"age": 20, "income": 1}])
        assert answer == {"model": "buyers", "version": 1, "predictions": ["yes", "no"]}
        assert served.client.predict({"age": [65], "income": [8.5]})["predictions"] == ["yes"]

    def test_have_probabilities_if_they_are_asked_for(self, served: Served) -> None:
        status, answer = served.client.ask("/predict?probabilities=true", [ROW])
        assert status == 200
        known = served.model.version(1).load().predict_proba(pd.DataFrame([ROW]))
        assert answer["classes"] == ["no", "yes"]
        assert answer["probabilities"] == pytest.approx(known)

    def test_of_clients_at_once_are_not_mixed_up(self, served: Served) -> None:
        wrong: list[object] = []

        def ask(number: int) -> None:
            rows = [
                ROW if (number >> place) & 1 else {"age": 20, "income": 1} for place in range(3)
            ]
            expected = ["yes" if (number >> place) & 1 else "no" for place in range(3)]
            said = [served.client.predict(rows)["predictions"] for _ in range(10)]
            wrong.extend(answer for answer in said if answer != expected)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            (b"", 400, "empty"),
            (b"\xff\x00garbage", 400, "not JSON"),
            (b'[{"age": NaN, "income": 1}]', 400, "write null"),
            ([], 422, "no rows"),
            ([{"age": 1}], 422, 'lacks "income"'),
            ([ROW | {"size": 1}], 422, 'has "size"'),
            ([ROW | {"age": "old"}], 422, 'column "age" takes whole numbers'),
            ([ROW | {"income": None}], 422, "the model fails on these rows"),
            (b" " * (2 * 1024 * 1024), 413, "larger than 1 MiB"),
        ],
    )
    def test_say_why_in_one_sentence(
        self, served: Served, body: object, status: int, words: str
    ) -> None:
        answered, answer = served.client.ask("/predict", body)
        assert (answered, list(answer)) == (status, ["error"])
        assert words in answer["error"].replace("model buyers@1 fails", "the model fails")
        assert served.client.predict([ROW])["predictions"] == ["yes"]

    def test_100_mb_are_told_so_and_not_kept(self, served: Served) -> None:
        status, answer = served.client.ask("/predict", b"[" + b"1," * (50 * 1024 * 1024) + b"1]")
        assert (status, "larger than 1 MiB" in answer["error"]) == (413, True)

    @pytest.mark.parametrize(
        ("path", "method", "status"),
        [("/predict", "GET", 405), ("/schema", "DELETE", 405), ("/nowhere", "GET", 404)],
    )
    def test_other_paths_and_methods_are_named(
        self, served: Served, path: str, method: str, status: int
    ) -> None:
        answered, answer = served.client.ask(path, method=method)
        assert (answered, list(answer)) == (status, ["error"])

    def test_compressed_bodies_and_odd_questions_are_refused(self, served: Served) -> None:
        assert served.client.ask("/predict", b"x", **{"content-encoding": "gzip"})[0] == 415
        assert served.client.ask("/predict?probabilities=perhaps", [ROW])[0] == 422

    def test_who_has_no_token_gets_nothing_but_health(self, served: Served) -> None:
        stranger = Client(served.client.url, {"authorization": "Bearer another"})
        for path in ("/", "/metrics", "/openapi.json"):
            assert stranger.ask(path)[0] == 401
        assert stranger.ask("/predict", [ROW])[0] == 401
        assert stranger.ask("/reload", b"")[0] == 401
        assert stranger.ask("/health")[0] == 200


class TestDescription:
    def test_schema_has_an_example_that_can_be_sent(self, served: Served) -> None:
        status, schema = served.client.ask("/")
        assert status == 200
        assert [(column["name"], column["dtype"]) for column in schema["inputs"]] == [
            ("age", "int64"),
            ("income", "float64"),
        ]
        example = schema["example"]
        assert served.client.predict(example)["predictions"] == LABELS[: len(example)]

    def test_openapi_names_columns_and_answers(self, served: Served) -> None:
        document = served.client.ask("/openapi.json")[1]
        post = document["paths"]["/predict"]["post"]
        records = post["requestBody"]["content"]["application/json"]["schema"]["oneOf"][0]
        assert set(records["items"]["properties"]) == {"age", "income"}
        assert {"200", "413", "422"} <= set(post["responses"])

    def test_metrics_count_requests_errors_and_time(self, served: Served) -> None:
        def value(line: str) -> float:
            text = served.client.ask("/metrics")[1]
            return sum(float(x.split()[-1]) for x in text.splitlines() if x.startswith(line))

        good, bad = (
            value('rayml_serve_requests_total{code="200"}'),
            value("rayml_serve_errors_total"),
        )
        served.client.predict([ROW])
        served.client.ask("/predict", [])
        assert value('rayml_serve_requests_total{code="200"}') == good + 1
        assert value("rayml_serve_errors_total") == bad + 1
        assert value("rayml_serve_request_seconds_count") > 0
        assert value('rayml_serve_version{model="buyers"') == 1

    def test_the_run_tells_where_and_which(self, served: Served) -> None:
        assert served.run.state == "running"
        # What a run has logged comes a moment later; another test may just have moved the alias.
        eventually(lambda: served.run.labels["version"] == "buyers@1", 30)
        assert served.run.inputs["model"].uri == served.model.version(1).artifact.uri


class TestRolling:
    def test_no_request_fails_while_the_alias_moves(self, served: Served) -> None:
        answers, stop = list[tuple[int, Any]](), threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answers.append(served.client.ask("/predict", [ROW]))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        served.model.set_alias("production", 2)
        assert served.client.ask("/reload", b"") == (
            200,
            {"model": "buyers", "version": 2, "changed": True},
        )
        time.sleep(2)  # until the old version's replicas have gone
        served.model.set_alias("production", 1)
        assert served.client.ask("/reload", b"")[0] == 200
        stop.set()
        for thread in threads:
            thread.join()
        assert [answer for status, answer in answers if status != 200] == []
        said = {(answer["version"], *answer["predictions"]) for _, answer in answers}
        assert said == {(1, "yes"), (2, "never")}

    def test_a_version_that_cannot_be_loaded_leaves_the_old_one(self, served: Served) -> None:
        served.model.set_alias("production", 3)
        try:
            status, answer = served.client.ask("/reload", b"")
            assert (status, "buyers@1 stays" in answer["error"]) == (502, True)
            assert "trusted" in answer["error"]
            assert served.client.predict([ROW])["version"] == 1
            assert served.client.ask("/health")[0] == 200
            assert 'rolls_total{outcome="failed"} 1.0' in served.client.ask("/metrics")[1]
            eventually(lambda: "buyers@1 stays" in str(served.run.logs()))
        finally:
            served.model.set_alias("production", 1)

        def last() -> str:
            return str(served.run.artifact("versions").load()["outcome"].iloc[-1])

        eventually(lambda: last().startswith("failed: "))

    def test_an_alias_that_names_nothing_leaves_the_old_one(self, served: Served) -> None:
        served.model.unset_alias("production")
        try:
            status, answer = served.client.ask("/reload", b"")
            assert (status, "buyers@1 stays" in answer["error"]) == (503, True)
            assert served.client.predict([ROW])["version"] == 1
        finally:
            served.model.set_alias("production", 1)

    def test_a_replica_that_is_killed_costs_no_request(self, served: Served) -> None:
        def replicas() -> list[psutil.Process]:
            title = f"ray::ServeReplica:rayml-{served.run.id}-"  # others may serve beside it
            found = psutil.process_iter(["cmdline"])
            return [p for p in found if title in " ".join(p.info["cmdline"] or ())]

        before = replicas()
        assert before
        for process in before:
            process.kill()
        assert served.client.predict([ROW])["predictions"] == ["yes"]
        eventually(lambda: served.client.ask("/health")[0] == 200)


class TestEnd:
    def test_after_its_time_it_has_succeeded_and_left_nothing(self, served: Served) -> None:
        store = served.run.store
        run, client = begin(store, token=None, for_s=3, keep_rows=10)  # type: ignore[arg-type]
        client.headers = {}
        for age in range(20):
            client.predict([{"age": age, "income": 1}])
        run.wait(60)
        result: Any = run.result
        counts = result["requests_total"], result["errors_total"]
        assert (counts, result["version"]) == ((20, 0), "buyers@1")
        kept = run.artifact("requests/000001").load()
        assert list(kept.columns) == ["age", "income", "prediction", "predicted_at", "version"]
        assert len(kept) == 10
        assert run.metrics["latency_ms/p50"] > 0
        with pytest.raises(ConnectionRefusedError):
            client.ask("/health")
        assert not [app for app in applications() if run.id in app]
        assert served.client.predict([ROW])["predictions"] == ["yes"]  # the other goes on


class TestMistakes:
    def refused(self, store: Any, words: str, **params: object) -> None:
        run: Any = rayml.submit(
            "hub://serve",
            inputs={"model": params.pop("model", "rayml://models/buyers@1")},
            params=params,
            store=store,
        )
        with pytest.raises(rayml.JobFailed, match=words):
            run.wait(60)

    def test_are_told_before_anything_starts(self, served: Served) -> None:
        store = served.run.store
        self.refused(store, "no version or alias 'prod'", follow="prod")
        self.refused(store, "replicas=0 is too few", replicas=0)
        self.refused(store, "names no environment variable", token="NOT_THERE")
        self.refused(store, "brings code along", model="rayml://models/buyers@3")
        self.refused(store, "no model of a run", model=__file__)
        port = urlsplit(served.client.url).port
        self.refused(store, "nothing can listen", port=port)
