"""How many neighbours tell handwritten digits apart best? Each trial is a run of its own."""

from typing import Any

from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import rayml


def score(neighbours: int, weights: str) -> float:
    """Return how many digits are told right, on average over three parts."""
    rows, digits = load_digits(return_X_y=True)
    model = KNeighborsClassifier(neighbours, weights=weights)
    return float(cross_val_score(model, rows, digits, cv=3).mean())


if __name__ == "__main__":
    run: Any = rayml.submit(
        "hub://tune",
        params={
            "function": f"{__file__}:score",
            "space": {
                "neighbours": {"low": 1, "high": 30, "log": True},
                "weights": ["uniform", "distance"],
            },
            "trials": 6,
        },
    )
    run.wait()
    print(run.result)
    print(run.artifact("trials").load().to_string())
