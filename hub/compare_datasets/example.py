"""Have people's lives in 2007 drifted from those of 1977, country by country?"""

from __future__ import annotations

from typing import Any

import plotly.data

import rayml

if __name__ == "__main__":
    countries = plotly.data.gapminder().drop(columns=["iso_alpha", "iso_num"])
    now, then = (countries[countries["year"] == year] for year in (2007, 1977))
    run: Any = rayml.submit(
        "hub://compare_datasets",
        inputs={"table": now, "reference": then},
        params={"ignore": ["year"]},
    )
    run.wait()
    print(f"{run.metrics['drifted_share']:.0%} of the columns have drifted:")
    drift = run.artifact("drift").load()
    print(drift[["column", "verdict", "psi", "ks_p", "reason"]].to_string(index=False))
