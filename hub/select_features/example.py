"""Of thirty measures of a tumour and ten of chance: which are worth learning from?"""

from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer

import rayml

table = load_breast_cancer(as_frame=True).frame
random = np.random.default_rng(0)
for number in range(10):
    table[f"noise {number}"] = random.normal(size=len(table))

run: Any = rayml.submit(
    "hub://select_features", inputs={"table": table}, params={"target": "target", "k": 8}
)
run.wait()
scores = run.artifact("scores").load()
shown = scores[["feature", "votes", "mean_rank", "reason"]].head(12)
print(shown.to_string(index=False))
print(run.result["selected"])
