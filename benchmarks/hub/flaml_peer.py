"""FLAML's side of `auto_trainer.py`.

    python flaml_peer.py FOLDER TARGET TASK METRIC BUDGET_S CORES

It reads train.parquet and test.parquet in the folder and writes said.npy: a number for each row of
the test, or a column of probabilities for each class. It runs in an environment of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from flaml import AutoML


def main(folder: Path, target: str, task: str, metric: str, budget_s: float, cores: int) -> None:
    train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
    automl = AutoML()
    automl.fit(
        train.drop(columns=target),
        train[target],
        task="regression" if task == "regression" else "classification",
        metric=metric,
        time_budget=budget_s,
        n_jobs=cores,
        seed=0,
        verbose=0,
    )
    rows = test.drop(columns=target)
    said = automl.predict(rows) if task == "regression" else automl.predict_proba(rows)
    np.save(folder / "said.npy", said)


if __name__ == "__main__":
    where, name, what, by, seconds, count = sys.argv[1:]
    main(Path(where), name, what, by, float(seconds), int(count))
