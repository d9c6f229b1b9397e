"""Do trials of `auto_trainer` share the cores that a job holds?

How many trials end in a second on one core and on two, when both try the same number of forests on
3,000 flights, on five folds each. Of two searches that had the same time, the one that has tried
more has drawn other models, and has given more of them up: they would do other work.
`--small` takes less time.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tables import TARGET, late_flights

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import compare, report, scratch, take_turns

import rayml

if TYPE_CHECKING:
    import pandas as pd
    from timing import Figure

SMALL = "--small" in sys.argv
ROWS = 3000
TRIALS, TURNS = (15, 1) if SMALL else (80, 3)
# Time is not what ends a search here; how many folds are worth their time follows from it.
BUDGET_S = 600.0


def main() -> None:
    with scratch() as folder:
        table = late_flights(folder).head(ROWS)
        on_one, on_two = (partial(searched, cores, table, folder) for cores in (1, 2))
        found = take_turns(on_one, on_two, n=TURNS, warm_ups=0)

    def row(question: str, name: str, unit: str) -> Figure:
        one, two = ([told[name] for told in turns] for turns in found)
        return compare(question, one, two, "gain", limit=1.7, unit=unit)

    report(
        "Do trials of hub://auto_trainer share the cores that a job holds?",
        [
            row("trials on two cores / on one", "trials", "trials/s"),
            row("work in trials on two cores / on one", "work", "s/s"),
        ],
        trials=TRIALS,
        rows=ROWS,
        folds=[told["folds"] for turns in found for told in turns],
        seconds_in_trials=[told["total"] for turns in found for told in turns],
    )


def searched(cores: int, table: pd.DataFrame, folder: Path) -> dict[str, float]:
    """Return trials, and seconds in them, of each second of a search; and in how many folds."""
    run: Any = rayml.submit(
        "hub://auto_trainer",
        inputs={"table": table},
        params={
            "target": TARGET,
            "budget_s": BUDGET_S,
            "max_trials": TRIALS,
            "models": ["extra_trees"],
        },
        resources=rayml.Resources(cpus=cores),
        store=folder / "store",
    )
    told = run.wait().metrics
    work = sum(trial.metrics.get("seconds", 0.0) for trial in run.trials())
    searched_s = told["search_s"]
    return {
        "trials": told["trials"] / searched_s,
        "work": work / searched_s,
        "total": work,
        "folds": told["folds"],
    }


if __name__ == "__main__":
    main()
