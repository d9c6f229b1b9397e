"""One job, two engines: Dask prepares the flights, and PyTorch trains on the same workers.

    rayml run examples/flight_network.py:prepare --engine dask --workers 2

What Dask has computed stays in the workers' memory: no file lies between the two. The training is
a run of its own, a child of the one that prepares, which it borrows the workers from.
"""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import torch
from nyc import read_table
from torch.nn import BCEWithLogitsLoss, Linear, ReLU, Sequential
from torch.nn.parallel import DistributedDataParallel

import rayml

FEATURES = ["hour", "distance", "month_sin", "month_cos", "dep_delay"]


def prepare(context: rayml.Context, epochs: int = 5, rows: int | None = None) -> dict[str, float]:
    """Scale the features of all flights, then train a network that tells who arrives late.

    Args:
        context: What the run logs to.
        epochs: How often the network sees all flights.
        rows: Of each month; all of them by default.
    """
    flights = dd.from_map(read_month, list(range(1, 13)), rows=rows)
    means, spreads = (
        part.to_dict() for part in dd.compute(flights[FEATURES].mean(), flights[FEATURES].std())
    )
    scaled = flights.map_partitions(scale, means, spreads)
    context.log_params({"means": means, "spreads": spreads})
    run: Any = rayml.submit(
        fit,
        params={"epochs": epochs},
        inputs={"flights": scaled},
        engine=rayml.Torch(),
        borrow=True,
    )
    return dict(run.wait().metrics)


def fit(flights: rayml.Input, *, context: rayml.Context, epochs: int) -> None:
    """Train on each worker with its own share of the rows; the last tenth judges."""
    table = flights.shard()
    columns = [torch.tensor(table[name].to_numpy().copy()) for name in [*FEATURES, "late"]]
    data = torch.stack(columns, dim=1).float()
    data = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))]
    known, kept = data[: -len(data) // 10], data[-len(data) // 10 :]
    torch.manual_seed(0)
    model = DistributedDataParallel(Sequential(Linear(len(FEATURES), 16), ReLU(), Linear(16, 1)))
    optimizer, loss_of = torch.optim.Adam(model.parameters(), lr=0.01), BCEWithLogitsLoss()
    context.log_metric("rows", len(data), reduce="sum")
    for epoch in range(epochs):
        for start in range(0, len(known), 512):
            batch = known[start : start + 512]
            loss = loss_of(model(batch[:, :-1]).flatten(), batch[:, -1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            judged = loss_of(model(kept[:, :-1]).flatten(), kept[:, -1])
        context.log_metric("test/log_loss", judged.item(), step=epoch)


def scale(part: pd.DataFrame, means: dict[str, float], spreads: dict[str, float]) -> pd.DataFrame:
    """Return a part's features with a mean of 0 and a spread of 1, and what is to be told."""
    scaled = {name: (part[name] - means[name]) / spreads[name] for name in FEATURES}
    return pd.DataFrame(scaled).assign(late=part.late)


def read_month(month: int, rows: int | None = None) -> pd.DataFrame:
    """Return one month's flights that have arrived: what is known at take-off, and if late."""
    flights = read_table("flights.csv.zip")
    found = flights[flights.month == month].dropna(subset=["dep_delay", "arr_delay"])[:rows]
    turn = 2 * np.pi * month / 12
    return pd.DataFrame(
        {
            "hour": found.sched_dep_time // 100 + found.sched_dep_time % 100 / 60,
            "distance": found.distance.astype(float),
            "month_sin": np.sin(turn),
            "month_cos": np.cos(turn),
            "dep_delay": found.dep_delay.clip(-30, 120),
            "late": (found.arr_delay > 15).astype(float),
        }
    ).reset_index(drop=True)
