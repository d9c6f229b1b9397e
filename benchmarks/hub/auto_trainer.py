"""Does `auto_trainer` find better models than FLAML and than defaults?

On each of eleven real tables a third of the rows is kept back, and the same rest is given to
`hub://auto_trainer` and to FLAML, with the same seconds and two cores each, and to LightGBM's and
HistGradientBoosting's defaults. They are ranked by their score on what was kept back: roc_auc, of
more classes log_loss, of numbers rmse. FLAML has an environment of its own, which this script
makes with uv. `--small` takes two tables and a few seconds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, roc_auc_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from tables import PACKAGES, TABLES, TARGET
from uv import find_uv_bin

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import alone, compare, report, scratch

import rayml

SMALL = "--small" in sys.argv
SPLIT = 7  # another one than was looked at while the search was made
BUDGET_S = 8.0 if SMALL else 22.0
CORES = 2
HERE = Path(__file__).parent
ENVIRONMENTS = Path(__file__).parents[1] / ".bench" / "environments"
FLAML = ("flaml==2.8.0", "lightgbm", "xgboost-cpu", "scikit-learn", "pandas", "pyarrow")
METRICS = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}


def main() -> None:
    packages, python = installed()
    names = list(TABLES)[:2] if SMALL else list(TABLES)
    scores: dict[str, dict[str, float]] = {}
    with scratch() as folder:
        for name in names:
            scores[name] = scores_on(TABLES[name](packages), folder, python)
            print(name, scores[name], file=sys.stderr)
    ranks = pd.DataFrame([ranked(name, one) for name, one in scores.items()]).mean()
    below = [name for name, one in scores.items() if ranked(name, one)["is_below"]]
    report(
        "auto_trainer against FLAML and defaults",
        [
            compare(
                f"mean rank on {len(names)} tables / FLAML",
                [float(ranks["flaml"])],
                [float(ranks["rayml"])],
                limit=1.0,
                unit="rank",
            ),
            alone("below LightGBM's defaults", [len(below)], limit=0, unit="tables"),
        ],
        ranks=ranks.drop("is_below").to_dict(),
        scores=scores,
        below=below,
        budget_s=BUDGET_S,
        split=SPLIT,
    )


def installed() -> tuple[Path, Path]:
    """Return the folder of the packages that ship tables, and FLAML's Python; made if need be."""
    uv, data, own = find_uv_bin(), ENVIRONMENTS / "tables", ENVIRONMENTS / "flaml"
    python = own / "bin" / "python"
    for step in (
        ["pip", "install", "--quiet", "--no-deps", "--target", str(data), *PACKAGES],
        ["venv", "--quiet", "--allow-existing", "--python", sys.executable, str(own)],
        ["pip", "install", "--quiet", "--python", str(python), *FLAML],
    ):
        subprocess.run([uv, *step], check=True)
    return data, python


def scores_on(table: pd.DataFrame, folder: Path, python: Path) -> dict[str, float]:
    """Return each one's score on rows that none of them has seen."""
    words = table.select_dtypes(["object", "string"]).columns.difference([TARGET])
    table = table.astype(dict.fromkeys(words, "category"))
    labels = table[TARGET]
    if not pd.api.types.is_numeric_dtype(labels):
        table[TARGET] = labels.astype("category").cat.codes.astype(int)
    classes = table[TARGET].nunique()
    task = "binary" if classes == 2 else "multiclass" if classes <= 10 else "regression"
    keep = table[TARGET] if task != "regression" else None
    train, test = train_test_split(table, test_size=1 / 3, random_state=SPLIT, stratify=keep)
    train, test = train.reset_index(drop=True), test.reset_index(drop=True)
    kinds: dict[str, Any] = {
        "lightgbm": LGBMRegressor if task == "regression" else LGBMClassifier,
        "hist": HistGradientBoostingRegressor
        if task == "regression"
        else HistGradientBoostingClassifier,
    }
    settings = {"lightgbm": {"verbosity": -1}, "hist": {"random_state": 0}}
    said = {name: by_default(kind(**settings[name]), train, test) for name, kind in kinds.items()}
    said["flaml"] = by_flaml(train, test, task, folder, python)
    scores = {name: score(task, test[TARGET], one) for name, one in said.items()}
    return {"rayml": by_rayml(train, test, task, folder), **scores}


def by_default(model: Any, train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    # Of hundreds of categories, scikit-learn takes the codes.
    many = [
        name for name in train.select_dtypes("category") if len(train[name].cat.categories) > 200
    ]
    train, test = (t.assign(**{str(n): t[n].cat.codes for n in many}) for t in (train, test))
    if isinstance(model, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        model.set_params(categorical_features="from_dtype")
    model.fit(train.drop(columns=TARGET), train[TARGET])
    say = getattr(model, "predict_proba", model.predict)
    return np.asarray(say(test.drop(columns=TARGET)))


def by_flaml(
    train: pd.DataFrame, test: pd.DataFrame, task: str, folder: Path, python: Path
) -> np.ndarray:
    train.to_parquet(folder / "train.parquet")
    test.to_parquet(folder / "test.parquet")
    words = [TARGET, task, METRICS[task], str(BUDGET_S), str(CORES)]
    subprocess.run([python, HERE / "flaml_peer.py", folder, *words], check=True)
    said: np.ndarray = np.load(folder / "said.npy")
    return said


def by_rayml(train: pd.DataFrame, test: pd.DataFrame, task: str, folder: Path) -> float:
    run: Any = rayml.submit(
        "hub://auto_trainer",
        inputs={"table": train, "test": test},
        params={"target": TARGET, "task": task, "budget_s": BUDGET_S},
        resources=rayml.Resources(cpus=CORES),
        store=folder / "store",
    )
    return float(run.wait().metrics[f"test/{METRICS[task]}"])


def score(task: str, truth: pd.Series, said: np.ndarray) -> float:
    if task == "binary":
        return float(roc_auc_score(truth, said[:, 1]))
    if task == "multiclass":
        return float(log_loss(truth, said))
    return float(root_mean_squared_error(truth, said))


def ranked(name: str, scores: dict[str, float]) -> dict[str, float]:
    """Return each one's place on a table, and whether rayml is below LightGBM's defaults."""
    more_is_better = name in (
        "breast_cancer",
        "orange_juice",
        "caravan",
        "default",
        "late_flights",
    )
    places: dict[str, float] = pd.Series(scores).rank(ascending=not more_is_better).to_dict()  # type: ignore[assignment]
    return {**places, "is_below": float(places["rayml"] > places["lightgbm"])}


if __name__ == "__main__":
    main()
