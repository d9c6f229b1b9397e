"""Is the new model really better, for all groups, and from which probability on?"""

from typing import Any

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import rayml

table = load_breast_cancer(as_frame=True).frame
train, test = table.iloc[::2], table.iloc[1::2]
features = train.drop(columns="target")
with rayml.start_run("two models") as context:
    tree = DecisionTreeClassifier(max_depth=3, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    for name, model in {"old": tree, "new": linear}.items():
        model.fit(features, train["target"])
        context.log_model(name, model, input_example=features.head())

run: Any = rayml.submit(
    "hub://evaluate",
    inputs={
        "model": f"rayml://runs/{context.run_id}/new",
        "reference": f"rayml://runs/{context.run_id}/old",
        "table": test,
    },
    params={"target": "target", "threshold": "precision=0.99", "group_by": "mean radius"},
)
run.wait()
print(run.artifact("metrics").load().round(3).to_string(index=False))
print(run.artifact("fairness").load().round(3).to_string(index=False))
