"""Do trials of `auto_trainer` share the cores that a job holds?

How many trials of forests on 3,000 flights end in the same time on one core and on two, each
scored on five folds; and how much work that is, in seconds that trials have taken: a search that
has more of them behind it gives more of them up early, which makes them cheaper. `--small` takes
less time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tables import TARGET, late_flights

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import compare, report, scratch

import rayml

if TYPE_CHECKING:
    import pandas as pd
    from timing import Figure

SMALL = "--small" in sys.argv
BUDGET_S, TURNS = (30.0, 1) if SMALL else (90.0, 2)
ROWS = 3000


def main() -> None:
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with scratch() as folder:
        flights = late_flights(folder).head(ROWS)
        for cores in (1, 2) * TURNS:
            found[cores].append(searched(cores, flights, folder))

    def row(question: str, name: str, unit: str) -> Figure:
        one, two = ([told[name] for told in found[cores]] for cores in (1, 2))
        return compare(question, one, two, "gain", limit=1.7, unit=unit)

    report(
        "Do trials of hub://auto_trainer share the cores that a job holds?",
        [
            row("trials on two cores / on one", "trials", "trials/s"),
            row("work in trials on two cores / on one", "work", "s/s"),
        ],
        budget_s=BUDGET_S,
        rows=ROWS,
        folds=[told["folds"] for cores in (1, 2) for told in found[cores]],
    )


def searched(cores: int, table: pd.DataFrame, folder: Path) -> dict[str, float]:
    """Return trials, and seconds in them, of each second of a search; and in how many folds."""
    run: Any = rayml.submit(
        "hub://auto_trainer",
        inputs={"table": table},
        params={"target": TARGET, "budget_s": BUDGET_S, "models": ["extra_trees"]},
        resources=rayml.Resources(cpus=cores),
        store=folder / "store",
    )
    told = run.wait().metrics
    work = sum(trial.metrics.get("seconds", 0.0) for trial in run.trials())
    searched_s = told["search_s"]
    return {
        "trials": told["trials"] / searched_s,
        "work": work / searched_s,
        "folds": told["folds"],
    }


if __name__ == "__main__":
    main()
