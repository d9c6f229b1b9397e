"""Serve a classifier of tumours for a while, and ask it what it takes and what it says."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.request import Request, urlopen

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import rayml


def ask(url: str, rows: object = None) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return the endpoint's answer."""
    data = None if rows is None else json.dumps(rows).encode()
    with urlopen(Request(url, data)) as response:  # noqa: S310 - it is the one that runs here
        return json.loads(response.read())


if __name__ == "__main__":
    table, label = load_breast_cancer(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, label)
    with rayml.start_run("train") as context:
        artifact = context.log_model("model", model, input_example=table[:3])
    rayml.register_model(artifact, "tumours", alias="production")

    run: Any = rayml.submit(
        "hub://serve",
        inputs={"model": "rayml://models/tumours@production"},
        params={"follow": "production", "for_s": 3},  # without for_s: until it is cancelled
    )
    while "url" not in run.labels and not run.is_over:
        time.sleep(0.2)
    url = run.labels["url"]
    example = ask(f"{url}/schema")["example"]
    print("it takes, for example:", json.dumps(example[0])[:70], "…")
    print("it says:", ask(f"{url}/predict?probabilities=true", example))
    print("it ended with:", run.wait().result)
