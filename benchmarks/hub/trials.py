"""Do trials of `auto_trainer` share the cores that a job holds?

The same trials, of forests on 20,000 flights, on one core and on two: as many as are drawn before
what others have scored tells what to try next. In the same time instead, the search would go on to
other trials on two cores, in other numbers of folds, which cost more or less: what auto_trainer.py
counts, on a table so small that most of its time is the search's own. `--small` makes few.
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

SMALL = "--small" in sys.argv
TRIALS, TURNS = (4, 1) if SMALL else (10, 3)


def main() -> None:
    rates: dict[int, list[float]] = {1: [], 2: []}
    with scratch() as folder:
        flights = late_flights(folder)
        for cores in (1, 2) * TURNS:
            rates[cores].append(rate_on(cores, flights, folder))
    report(
        "Do trials of hub://auto_trainer share the cores that a job holds?",
        [
            compare(
                f"the same {TRIALS} trials on two cores / on one",
                rates[1],
                rates[2],
                "gain",
                limit=1.7,
                unit="trials/s",
            )
        ],
        trials=TRIALS,
        rows=len(flights),
    )


def rate_on(cores: int, table: pd.DataFrame, folder: Path) -> float:
    """Return how many trials a second the search makes, from its beginning to its last one."""
    run: Any = rayml.submit(
        "hub://auto_trainer",
        inputs={"table": table},
        params={
            "target": TARGET,
            "budget_s": 300.0,
            "max_trials": TRIALS,
            "models": ["extra_trees"],
        },
        resources=rayml.Resources(cpus=cores),
        store=folder / "store",
    )
    told = run.wait().metrics
    return float(told["trials"] / told["search_s"])


if __name__ == "__main__":
    main()
