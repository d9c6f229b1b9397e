"""Load the model that a run of flight_delays.py logged, and predict five flights of December.

    python examples/predict_delays.py [RUN_ID]

Without an id it takes the latest run. The store alone is enough: no Ray is started.
"""

from __future__ import annotations

import sys

import pandas as pd
from flight_delays import FEATURES, load_flights

import rayml


def main() -> None:
    run = rayml.get_run(sys.argv[1] if len(sys.argv) > 1 else "latest")
    model = run.artifact("model").load()

    flights = load_flights().dropna(subset="arr_delay")
    december = flights[flights["month"] == 12].sample(5, random_state=0).sort_values("time_hour")
    probability = pd.Series(model.predict_proba(december[FEATURES])[:, 1], december.index)

    table = pd.DataFrame(
        {
            "flight": december["carrier"] + " " + december["flight"].astype(str),
            "route": december["origin"] + " → " + december["dest"],
            "day": december["time_hour"].dt.strftime("%d %b %Y"),
            "late with": probability.map("{:.0%}".format),
            "arrived": december["arr_delay"].map("{:+.0f} min".format),
        }
    )
    print(f"five flights of December, by the model of run {run.id}:\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
