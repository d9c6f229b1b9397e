from __future__ import annotations

import io
import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Never

import msgspec
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import polars as pl
import pyarrow as pa
import pytest
import skops.io
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.base import BaseEstimator
from sklearn.cluster import Birch
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from rayml.artifacts import Artifact, ArtifactRecord, FileRecord, check_name, parse_uri
from rayml.artifacts.dataset import save_dataset, save_tables
from rayml.artifacts.describe import Description
from rayml.artifacts.file import local_folder, save_file
from rayml.artifacts.model import save_model
from rayml.artifacts.plot import save_plot
from rayml.artifacts.record import json_safe
from rayml.artifacts.table import save_table
from rayml.errors import ArtifactCorrupt, NotFound, SpecError
from rayml.store import Store, open_store
from rayml.store.base import blob_key

if TYPE_CHECKING:
    from collections.abc import Callable

X, y = make_classification(60, 4, random_state=0)


class Doubler(BaseEstimator):  # type: ignore[misc]
    def fit(self, X: object, y: object = None) -> Doubler:
        return self

    def transform(self, X: Any) -> Any:
        return X * 2


@dataclass
class Threshold:
    value: float

    def predict(self, values: list[float]) -> list[bool]:
        return [v > self.value for v in values]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def logged(store: Store, record: ArtifactRecord) -> Artifact:
    """Send the record through the journal's JSON, as another process would read it."""
    sent = msgspec.json.encode(msgspec.structs.replace(record, run="7f3c", created_at=1.0))
    json.loads(sent, parse_constant=pytest.fail)
    return Artifact(msgspec.json.decode(sent, type=ArtifactRecord), store)


def flip_a_byte(store: Store, file: FileRecord) -> None:
    path = Path(store.uri) / blob_key(file.digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def a_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "count": [1, 2, 4, 8],
            "delay": [1.5, None, -0.5, 2.0],
            "carrier": ["UA", "AA", None, "DL"],
            "at": pd.to_datetime(["2013-01-01", "2013-01-02", "NaT", "2013-01-03"]),
            "late": [True, False, True, True],
        }
    )


# Names


@pytest.mark.parametrize(
    "name", ["model", "plots/roc curve", "été/模型", "🚀.png", "a.b-c_d", "a" * 250]
)
def test_a_name_may_be_any_plain_path(name: str) -> None:
    check_name(name)
    assert parse_uri(f"rayml://runs/7f3c/{name}") == ("7f3c", name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../x",
        "a//b",
        "a/",
        ".",
        "a\\b",
        "a\0b",
        "a\nb",
        "a" * 251,
        "\ud800",
        7,
    ],
)
def test_a_name_that_is_not_plain_is_refused(store: Store, name: str) -> None:
    with pytest.raises(SpecError, match=";"):
        save_file(store, name, b"x")
    assert store.list("blobs/") == []


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "rayml://runs/7f3c",
        "rayml://runs//m",
        "rayml://runs/7f3c/../x",
        "rayml://runs/../m",
        "s3://b/k",
    ],
)
def test_a_uri_of_something_else_is_refused(uri: str) -> None:
    with pytest.raises(SpecError):
        parse_uri(uri)


def test_a_record_from_elsewhere_cannot_lead_out_of_a_folder() -> None:
    evil = b'{"path":"../../.bashrc","digest":"00","size":1}'
    with pytest.raises(msgspec.ValidationError, match="not plain"):
        msgspec.json.decode(evil, type=FileRecord)


# Datasets


def test_a_dataframe_comes_back_as_it_was(store: Store) -> None:
    frame = a_frame().set_index("count")
    artifact = logged(store, save_dataset(store, "flights", frame))
    pd.testing.assert_frame_equal(artifact.load(), frame)
    assert artifact.uri == "rayml://runs/7f3c/flights"
    assert artifact.kind == "dataset"
    assert artifact.meta["source"] == "pandas"
    assert "4 rows × 5 columns" in repr(artifact)


@pytest.mark.parametrize(
    ("convert", "source"),
    [
        (pa.Table.from_pandas, "arrow"),
        (pl.from_pandas, "polars"),
        (lambda frame: pl.from_pandas(frame).lazy(), "polars"),
    ],
)
def test_tables_of_other_libraries_keep_their_values(
    store: Store, convert: Callable[[pd.DataFrame], object], source: str
) -> None:
    artifact = logged(store, save_dataset(store, "flights", convert(a_frame())))
    assert artifact.meta["source"] == source
    assert artifact.to_arrow().column("count").to_pylist() == [1, 2, 4, 8]
    assert artifact.to_pandas()["carrier"].tolist()[:2] == ["UA", "AA"]


def test_a_stream_is_stored_as_the_table_that_it_gives(store: Store) -> None:
    table = pa.table({"n": range(1000), "word": [f"w{n}" for n in range(1000)]})
    stream = pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches(10)))

    artifact = logged(store, save_dataset(store, "stream", stream))

    assert artifact.to_arrow() == table
    whole = logged(store, save_dataset(store, "table", table))
    assert artifact.meta["statistics"] == whole.meta["statistics"]


def test_a_stream_without_rows_is_a_table_without_rows(store: Store) -> None:
    stream = pa.RecordBatchReader.from_batches(pa.schema({"n": pa.int64()}), iter([]))

    artifact = logged(store, save_dataset(store, "stream", stream))

    assert artifact.to_arrow() == pa.table({"n": pa.array([], pa.int64())})


def test_statistics_tell_what_pandas_tells(store: Store) -> None:
    frame = a_frame()
    statistics = logged(store, save_dataset(store, "flights", frame)).meta["statistics"]
    delay = frame["delay"]
    assert statistics["delay"] == {
        "count": 3,
        "nulls": 1,
        "nan": 0,
        "min": -0.5,
        "max": 2.0,
        "mean": pytest.approx(delay.mean()),
        "std": pytest.approx(delay.std()),
        "distinct": delay.nunique(),
        "quantiles": {
            str(share): pytest.approx(delay.quantile(share))
            for share in (0.05, 0.25, 0.5, 0.75, 0.95)
        },
        "histogram": {
            "from": -0.5,
            "to": 2.0,
            "counts": np.histogram(delay.dropna(), 20)[0].tolist(),
        },
    }
    carrier = {"count": 3, "nulls": 1, "min": "AA", "max": "UA", "distinct": 3}
    assert statistics["carrier"] == carrier
    at = statistics["at"]
    assert (at["nulls"], at["min"], at["max"]) == (1, "2013-01-01T00:00:00", "2013-01-03T00:00:00")
    assert at["quantiles"]["0.5"] == "2013-01-02T00:00:00"
    assert sum(at["histogram"]["counts"]) == at["count"] == 3
    late = {"count": 4, "nulls": 0, "min": False, "max": True, "mean": 0.75, "distinct": 2}
    assert statistics["late"] == late


def test_nan_is_counted_and_infinities_are_text(store: Store) -> None:
    table = pa.table(
        {"x": [1.0, float("nan"), None, 3.0], "y": [1.0, float("inf"), 0.0, -float("inf")]}
    )
    meta = logged(store, save_dataset(store, "odd", table)).meta
    x, y = meta["statistics"]["x"], meta["statistics"]["y"]
    assert (x["count"], x["nulls"], x["nan"], x["distinct"]) == (2, 1, 1, 2)
    assert (x["min"], x["max"], x["mean"]) == (1.0, 3.0, 2.0)
    assert x["std"] == pytest.approx(math.sqrt(2))
    assert x["quantiles"]["0.5"] == 2.0
    assert (y["nulls"], y["nan"], y["min"], y["max"]) == (0, 0, "-inf", "inf")
    assert (y["mean"], y["std"], y["distinct"]) == (None, None, 4)
    assert (y["histogram"]["from"], y["histogram"]["to"]) == (0.0, 1.0)
    assert meta["preview"]["rows"][1] == [None, "inf"]


def test_a_column_of_nothing_but_nan_has_no_mean(store: Store) -> None:
    table = pa.table({"x": pa.array([float("nan")] * 2)})
    x = logged(store, save_dataset(store, "odd", table)).meta["statistics"]["x"]
    nothing = dict.fromkeys(["min", "max", "mean", "std"])
    assert x == {"count": 0, "nulls": 0, "nan": 2, **nothing}


def test_statistics_of_batches_are_those_of_the_whole() -> None:
    values = np.random.default_rng(7).normal(1e6, 3, 1000)
    values[::97] = np.nan
    whole, batches = Description(), Description()
    table = pa.table({"x": values, "t": pa.array(values.tolist()).cast(pa.string())})
    whole.add(table)
    for start in range(0, 1000, 130):
        batches.add(table.slice(start, 130))
    one, many = whole.meta("arrow"), batches.meta("arrow")
    assert one["statistics"]["x"].pop("std") == pytest.approx(many["statistics"]["x"].pop("std"))
    assert one["statistics"]["x"].pop("mean") == pytest.approx(many["statistics"]["x"].pop("mean"))
    assert one == many
    assert many["rows"] == 1000


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, 3], pa.float16()),
        pa.array([1, 2, 3], pa.uint64()),
        pa.array([2**62] * 3),
        pa.array([Decimal("1.5"), None, Decimal("2.5")]),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array([1, None, 2]).dictionary_encode(),
        pa.array(["a", None, "b"], pa.string_view()),
        pa.array([b"a", None, b"\xff"]),
        pa.array([1, None, 2], pa.duration("s")),
        pa.array([1, None, 2], pa.time32("s")),
        pa.array([1, None, 2], pa.date32()),
        pa.array([1, None, 2], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([2**60, None, 2], pa.timestamp("us")),
        pa.array([[1], None, [2, 3]]),
        pa.array([{"a": 1, "b": float("nan")}, None, {"a": 2, "b": float("inf")}]),
        pa.array([None, None, None]),
        pa.array([None, None, None], pa.float64()),
        pa.array(["x" * 10_000] * 3),
    ],
    ids=lambda column: str(column.type),
)
def test_every_type_that_parquet_holds_is_described_in_little_json(
    store: Store, column: pa.Array
) -> None:
    artifact = logged(store, save_dataset(store, "typed", pa.table({"x": column})))
    assert artifact.meta["statistics"]["x"]["nulls"] == column.null_count
    assert len(artifact.meta["preview"]["rows"]) == 3
    assert len(msgspec.json.encode(artifact.meta)) < 2000
    assert artifact.to_arrow().num_rows == 3


def test_a_dictionary_column_tells_only_the_values_it_uses(store: Store) -> None:
    column = pa.array(["a", "m", "z"]).dictionary_encode().slice(0, 2)
    statistics = logged(store, save_dataset(store, "t", pa.table({"x": column}))).meta[
        "statistics"
    ]
    assert statistics["x"] == {"count": 2, "nulls": 0, "min": "a", "max": "m", "distinct": 2}


def test_an_empty_dataframe_keeps_its_types(store: Store) -> None:
    frame = a_frame().iloc[:0]
    artifact = logged(store, save_dataset(store, "empty", frame))
    pd.testing.assert_frame_equal(artifact.load(), frame)
    assert artifact.meta["rows"] == 0
    assert artifact.meta["statistics"]["delay"]["mean"] is None


@pytest.mark.parametrize(
    "data", [pd.DataFrame(), pd.DataFrame(index=range(5)), pa.table({}), pl.DataFrame()]
)
def test_a_table_without_columns_is_refused(store: Store, data: object) -> None:
    with pytest.raises(SpecError, match="has no columns"):
        save_dataset(store, "nothing", data)


def test_a_column_of_mixed_types_is_named(store: Store) -> None:
    frame = pd.DataFrame({"fine": [1, 2], "mixed": [1, "x"]})
    with pytest.raises(SpecError, match=r"'mixed' of 'bad'.*astype"):
        save_dataset(store, "bad", frame)
    assert store.list("blobs/") == []


def test_a_column_of_python_objects_is_named(store: Store) -> None:
    with pytest.raises(SpecError, match="'what'"):
        save_dataset(store, "bad", pd.DataFrame({"what": [object(), object()]}))
    with pytest.raises(SpecError, match="'what'"):
        save_dataset(store, "bad", pl.DataFrame({"what": [object()]}))


def test_column_names_are_strings_in_parquet_and_come_back_in_pandas(store: Store) -> None:
    frame = pd.DataFrame(np.ones((2, 2)), columns=[0, 1])
    artifact = logged(store, save_dataset(store, "numbered", frame))
    assert [column["name"] for column in artifact.meta["schema"]] == ["0", "1"]
    pd.testing.assert_frame_equal(artifact.load(), frame)


@pytest.mark.parametrize("columns", [[0, "0"], ["a", "a"]])
def test_two_columns_of_one_name_are_refused(store: Store, columns: list[object]) -> None:
    with pytest.raises(SpecError, match="two columns"):
        save_dataset(store, "twice", pd.DataFrame([[1, 2]], columns=columns))
    with pytest.raises(SpecError, match="two columns"):
        save_dataset(store, "twice", pa.table([[1], [2]], names=["a", "a"]))


@pytest.mark.parametrize("empty", [0, 1, 2], ids=["all", "one_empty", "none"])
def test_each_partition_of_dask_s_is_a_part(store: Store, empty: int) -> None:
    dask_frame = pytest.importorskip("dask.dataframe")
    rows = pd.DataFrame({"k": range(90), "word": ["a", "b", None] * 30})
    frame = dask_frame.from_pandas(rows, npartitions=3)
    frame = frame[frame.k >= [0, 30, 90][empty]]
    artifact = logged(store, save_dataset(store, "spread", frame))
    kept = [90, 60, 0][empty]
    assert (artifact.meta["source"], artifact.meta["rows"]) == ("dask", kept)
    assert len(artifact.record.files) == max(1, kept // 30)
    assert artifact.load()["k"].tolist() == list(range(90 - kept, 90))
    assert artifact.meta["statistics"]["word"].get("distinct", 0) == (2 if kept else 0)


def test_a_column_of_dask_s_that_does_not_fit_is_named(store: Store) -> None:
    dask_frame = pytest.importorskip("dask.dataframe")
    mixed = pd.DataFrame({"mixed": [1, "x"]})
    with sys.modules["dask"].config.set({"dataframe.convert-string": False}):
        frame = dask_frame.from_map(lambda _: mixed, [0, 1])
        with pytest.raises(SpecError, match="column 'mixed' of 'spread' does not fit one Arrow"):
            save_dataset(store, "spread", frame)


@pytest.mark.parametrize("data", [None, [1, 2], {"a": [1]}, np.ones(3), "flights.csv"])
def test_what_is_no_table_is_refused_as_a_dataset(store: Store, data: object) -> None:
    with pytest.raises(SpecError, match="pass a pandas, Polars, Dask or Spark DataFrame"):
        save_dataset(store, "x", data)


def test_parts_are_read_as_one_table(store: Store) -> None:
    tables = [pa.table({"a": [1]}), pa.table({"a": pa.nulls(2)}), pa.table({"a": [2.5]})]
    artifact = logged(store, save_tables(store, "parts", "dataset", "ray", iter(tables)))
    assert [file.path for file in artifact.record.files][1] == "part-00001.parquet"
    assert artifact.to_arrow().column("a").to_pylist() == [1, None, None, 2.5]
    assert artifact.meta["schema"] == [{"name": "a", "type": "double"}]
    assert min(path.name for path in artifact.path().iterdir()) == "part-00000.parquet"


def test_parts_that_disagree_are_refused(store: Store) -> None:
    tables = [pa.table({"a": [1]}), pa.table({"a": ["x"]})]
    with pytest.raises(SpecError, match="disagree"):
        save_tables(store, "parts", "dataset", "ray", iter(tables))


def test_a_wide_table_has_a_short_description(store: Store) -> None:
    table = pa.table({f"c{i}": [i] for i in range(3000)})
    artifact = logged(store, save_dataset(store, "wide", table))
    assert artifact.meta["columns"] == 3000
    assert len(artifact.meta["statistics"]) == 1000
    assert len(artifact.meta["preview"]["rows"][0]) == 50
    assert artifact.to_arrow().num_columns == 3000


def test_a_flipped_byte_is_found_at_every_reader(store: Store, tmp_path: Path) -> None:
    artifact = logged(store, save_dataset(store, "flights", a_frame()))
    flip_a_byte(store, artifact.record.files[0])
    for read in (
        artifact.load,
        artifact.to_arrow,
        artifact.path,
        lambda: artifact.download(tmp_path / "x"),
    ):
        with pytest.raises(ArtifactCorrupt):
            read()
    assert not (tmp_path / "x").exists()


def test_a_blob_that_is_gone_is_not_found(store: Store) -> None:
    artifact = logged(store, save_dataset(store, "flights", a_frame()))
    store.delete(blob_key(artifact.digest))
    with pytest.raises(NotFound):
        artifact.load()


# Models


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), LogisticRegression(C=0.5)),
        make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()),
        RandomForestClassifier(5, random_state=0),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(),
    ],
    ids=["linear", "ufunc", "forest", "boosting", "neighbours"],
)
def test_estimators_of_scikit_learn_need_no_trust(store: Store, model: Any) -> None:
    model.fit(abs(X), y)
    artifact = logged(store, save_model(store, "churn", model))
    assert artifact.format == "skops"
    assert artifact.meta["untrusted_types"] == []
    np.testing.assert_array_equal(artifact.load().predict(abs(X)), model.predict(abs(X)))


def test_a_model_is_described(store: Store) -> None:
    model = LogisticRegression(C=0.5, class_weight={0: float("inf")})
    meta = logged(store, save_model(store, "churn", model)).meta
    assert meta["class"] == "sklearn.linear_model._logistic.LogisticRegression"
    assert meta["library"] == "sklearn"
    assert meta["library_version"] == sys.modules["sklearn"].__version__
    assert meta["params"]["C"] == 0.5
    assert meta["params"]["class_weight"] == {"0": "inf"}


def test_an_own_estimator_is_named_and_needs_trust(store: Store) -> None:
    artifact = logged(
        store, save_model(store, "own", make_pipeline(Doubler(), LogisticRegression()))
    )
    assert artifact.meta["untrusted_types"] == [f"{__name__}.Doubler"]
    with pytest.raises(SpecError, match=r"Doubler.*trusted=True"):
        artifact.load()
    assert isinstance(artifact.load(trusted=True).steps[0][1], Doubler)


@pytest.mark.parametrize(
    "function",
    [
        "numpy.f2py.crackfortran.myeval",
        "sklearn.datasets._base.fetch_file",
        "numpy.memmap",
        "os.system",
        "sklearn.datasets._openml.GzipFile",
        "sklearn.externals._numpydoc.docscrape.Reader",
        "lightgbm.basic.Dataset",
        "xgboost.core.DMatrix",
    ],
)
def test_a_forged_file_cannot_name_a_function_that_acts(store: Store, function: str) -> None:
    module, _, name = function.rpartition(".")
    honest = skops.io.dumps(FunctionTransformer(len))
    forged = _with_schema(honest, ("len", "builtins"), (name, module))
    artifact = logged(store, save_model(store, "forged", LogisticRegression()))
    blob = store.add(io.BytesIO(forged))
    file = FileRecord(path="model.skops", digest=blob.digest, size=blob.size)
    record = msgspec.structs.replace(artifact.record, files=[file])
    with pytest.raises(SpecError, match=name):
        Artifact(record, store).load()


def _with_schema(content: bytes, old: tuple[str, str], new: tuple[str, str]) -> bytes:
    from zipfile import ZipFile

    out = io.BytesIO()
    with ZipFile(io.BytesIO(content)) as source, ZipFile(out, "w") as target:
        schema = source.read("schema.json").decode()
        for before, after in zip(old, new, strict=True):
            schema = schema.replace(f'"{before}"', f'"{after}"', 1)
        target.writestr("schema.json", schema)
    return out.getvalue()


def test_any_other_model_needs_a_format(store: Store) -> None:
    with pytest.raises(SpecError, match="format='pickle'"):
        save_model(store, "own", Threshold(0.5))
    with pytest.raises(SpecError, match="did you mean 'pickle'"):
        save_model(store, "own", Threshold(0.5), format="pickel")
    assert store.list("blobs/") == []


def test_a_pickle_is_loaded_only_when_trusted(store: Store) -> None:
    artifact = logged(store, save_model(store, "own", Threshold(0.5), format="pickle"))
    with pytest.raises(SpecError, match="runs whatever code"):
        artifact.load()
    assert artifact.load(trusted=True).predict([1.0]) == [True]
    assert artifact.meta["params"] == {}


def test_a_class_of_main_is_pickled_with_its_code(store: Store, tmp_path: Path) -> None:
    code = (
        "import pickle, sys; from rayml.artifacts.model import save_model; import msgspec;"
        "from rayml.store import open_store\n"
        "class Mine:\n    def predict(self): return 42\n"
        "record = save_model(open_store(sys.argv[1]), 'm', Mine(), 'pickle')\n"
        "print(msgspec.json.encode(record).decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store.uri], capture_output=True, text=True, check=True
    )
    artifact = Artifact(msgspec.json.decode(done.stdout, type=ArtifactRecord), store)
    assert artifact.load(trusted=True).predict() == 42


def test_what_skops_cannot_keep_says_the_way_out(store: Store) -> None:
    with pytest.raises(SpecError, match=r"cannot be kept as skops.*format='pickle'"):
        save_model(store, "birch", Birch().fit(X))
    with pytest.raises(SpecError, match=r"cannot be kept as pickle.*log_artifact"):
        save_model(store, "file", sys.stdout, format="pickle")


def test_a_corrupt_model_is_not_loaded(store: Store) -> None:
    artifact = logged(store, save_model(store, "own", Threshold(0.5), format="pickle"))
    flip_a_byte(store, artifact.record.files[0])
    with pytest.raises(ArtifactCorrupt):
        artifact.load(trusted=True)


# Plots


def test_a_matplotlib_figure_becomes_png_and_svg(store: Store) -> None:
    figure = Figure(figsize=(4, 3))
    figure.subplots().set_title("ROC")
    artifact = logged(store, save_plot(store, "plots/roc", figure))
    assert artifact.meta == {"width": 576, "height": 432, "title": "ROC"}
    assert artifact.load().startswith(b"\x89PNG")
    assert (artifact.path() / "plot.svg").read_text().startswith("<?xml")
    assert figure.get_dpi() == Figure().get_dpi()


def test_the_numbers_of_a_matplotlib_figure_are_kept(store: Store) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.plot([1, 2, 3], [0.5, float("nan"), 2.0], label="loss")
    left.set(xlabel="epoch", title="training")
    left.plot(range(25_000), range(25_000))
    left.scatter([1, 2], [3, 4], label="best")
    right.bar(["a", "b"], [5, 7])
    right.barh([0, 1], [2, 3])
    right.imshow([[1, 2], [3, 4]])
    artifact = logged(store, save_plot(store, "many", figure))
    first, second = json.loads((artifact.path() / "data.json").read_text())["axes"]
    assert (first["title"], first["xlabel"], first["ylabel"]) == ("training", "epoch", "")
    loss, long, best = first["series"]
    assert loss == {"kind": "line", "label": "loss", "x": [1, 2, 3], "y": [0.5, None, 2.0]}
    assert (len(long["x"]), long["x"][-1]) == (8334, 24_999)
    assert (best["kind"], best["x"], best["y"]) == ("points", [1.0, 2.0], [3.0, 4.0])
    bars, flat, image = second["series"]
    assert (bars["x"], bars["y"], flat["x"], flat["y"]) == ([0.0, 1.0], [5, 7], [2, 3], [0.0, 1.0])
    assert image["values"] == [[1, 2], [3, 4]]


def test_a_figure_whose_numbers_cannot_be_had_keeps_its_pictures(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    class Secretive(Line2D):
        def get_xdata(self, orig: bool = True) -> Never:
            raise ValueError("not told")

    figure = Figure()
    figure.subplots().add_line(Secretive([1, 2], [3, 4]))
    record = save_plot(store, "odd", figure)
    assert [file.path for file in record.files] == ["plot.png", "plot.svg"]
    assert "plot 'odd' keeps its pictures alone: ValueError: not told" in caplog.text


def test_dates_and_missing_points_of_a_figure_are_kept(store: Store) -> None:
    figure = Figure()
    axes = figure.subplots()
    days = np.array(["2013-01-01", "2013-01-02"], "datetime64[ns]")
    axes.plot(days, np.ma.masked_equal([1, 9], 9))
    artifact = logged(store, save_plot(store, "dates", figure))
    line = json.loads((artifact.path() / "data.json").read_text())["axes"][0]["series"][0]
    assert line["x"][0].startswith("2013-01-01")
    assert line["y"] == [1, None]


def test_axes_subfigures_and_grids_stand_for_their_figure(store: Store) -> None:
    figure = Figure()
    axes = figure.add_subfigure(figure.add_gridspec(1, 1)[0]).subplots()

    grid = SimpleNamespace(figure=figure)
    assert {save_plot(store, "p", value).files[0].digest for value in (figure, axes, grid)} == {
        save_plot(store, "p", figure).files[0].digest
    }


def test_a_plotly_figure_comes_back(store: Store) -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, float("nan")]), {"title": "ROC", "width": 300})
    artifact = logged(store, save_plot(store, "roc", figure))
    assert artifact.meta == {"width": 300, "height": None, "title": "ROC"}
    assert artifact.load().layout.title.text == "ROC"
    assert json.loads((artifact.path() / "plot.json").read_text())["data"][0]["type"] == "scatter"
    page = (artifact.path() / "plot.html").read_text()
    # It shows without the web: its library lies beside it, once in the store.
    assert 'src="plotly.min.js"' in page
    assert "https://" not in page
    assert (artifact.path() / "plotly.min.js").stat().st_size > 10**6
    again = logged(store, save_plot(store, "roc", figure))
    assert again.digest == artifact.digest


def test_an_altair_chart_comes_back(store: Store) -> None:
    altair = pytest.importorskip("altair")
    rows = pd.DataFrame({"step": range(6000), "loss": np.arange(6000.0)})
    chart = altair.Chart(rows, title="losses", width=300).mark_line().encode(x="step", y="loss")
    artifact = logged(store, save_plot(store, "losses", chart))
    assert (artifact.format, artifact.meta["title"], artifact.meta["width"]) == (
        *("altair", "losses"),
        300,
    )
    assert (
        artifact.load().to_dict()
        == chart.from_json((artifact.path() / "plot.json").read_text()).to_dict()
    )
    assert "&quot;losses&quot;" in artifact._repr_html_()
    pytest.importorskip("vl_convert")
    assert (artifact.path() / "plot.png").read_bytes().startswith(b"\x89PNG")
    layered = logged(store, save_plot(store, "layers", chart + chart.mark_point()))
    assert len(layered.load().to_dict()["layer"]) == 2


def test_plots_of_all_libraries_are_lines_of_text(store: Store) -> None:
    altair = pytest.importorskip("altair")
    rows = pd.DataFrame({"step": [1, 2, 3], "loss": [4.0, 2.0, 0.0]})
    figure = Figure()
    axes = figure.subplots()
    axes.plot(rows["step"], rows["loss"], label="loss")
    axes.set(title="training", xlabel="step")
    drawn = {
        "matplotlib": (figure, ["training (step)", "loss  █▅▁  0 … 4 by 1 … 3"]),
        "plotly": (
            go.Figure(
                go.Scatter(x=rows["step"], y=rows["loss"], name="loss"), {"title": "training"}
            ),
            ["training", "loss  █▅▁  0 … 4 by 1 … 3"],
        ),
        "altair": (
            altair.Chart(rows, title="training").mark_line().encode(x="step", y="loss"),
            ["training", "loss by step  █▅▁  0 … 4 by 1 … 3"],
        ),
    }
    for name, (plot, lines) in drawn.items():
        assert logged(store, save_plot(store, name, plot)).to_text() == lines
    heatmap = go.Figure(go.Heatmap(z=np.array([[1, 20], [3, 4]])))
    heat = logged(store, save_plot(store, "heat", heatmap))
    assert heat.to_text() == [" 1  20", " 3   4"]
    assert logged(store, save_plot(store, "pie", go.Figure(go.Pie(values=[1])))).to_text() == []
    with pytest.raises(SpecError, match="is a file, no plot; use load"):
        logged(store, save_file(store, "notes", b"hello")).to_text()


def test_a_plot_is_shown_in_a_notebook_where_it_can_reach_nothing(store: Store) -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
    html = logged(store, save_plot(store, "roc", figure))._repr_html_()
    assert '<iframe sandbox="allow-scripts"' in html
    assert "&lt;script" in html
    assert "<script" not in html


@pytest.mark.parametrize("figure", [None, 3, "plot.png", np.ones(3), a_frame()])
def test_what_is_no_figure_is_refused(store: Store, figure: object) -> None:
    with pytest.raises(SpecError, match="matplotlib or plotly"):
        save_plot(store, "x", figure)


# Tables


@pytest.mark.parametrize(
    "rows",
    [
        [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
        {"a": [1, 2], "b": ["x", "y"]},
        {"a": np.array([1, 2]), "b": pd.Series(["x", "y"])},
        pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
        pa.table({"a": [1, 2], "b": ["x", "y"]}),
    ],
)
def test_rows_of_all_forms_are_one_table(store: Store, rows: object) -> None:
    artifact = logged(store, save_table(store, "confusion", rows))
    assert artifact.kind == "table"
    assert artifact.load().to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}
    assert artifact.meta["preview"] == {"columns": ["a", "b"], "rows": [[1, "x"], [2, "y"]]}


def test_a_key_that_a_row_lacks_is_null(store: Store) -> None:
    artifact = logged(store, save_table(store, "t", [{"a": 1}, {"b": 2}]))
    assert artifact.to_arrow().to_pydict() == {"a": [1, None], "b": [None, 2]}


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([1, 2], "list of dicts"),
        ("abc", "list of dicts"),
        (None, "list of dicts"),
        ([], "no columns"),
        ({}, "no columns"),
        ({"a": [1], "b": [1, 2]}, "unequal lengths"),
        ({"a": 1}, "'a'"),
        ({"a": "text"}, "'a'"),
        ({"a": [1, "x"]}, "'a'"),
        ({1: [1], "1": [1]}, "one name"),
    ],
)
def test_rows_of_no_form_are_refused(store: Store, rows: object, fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        save_table(store, "t", rows)
    assert store.list("blobs/") == []


# Files


def test_a_file_keeps_its_name_and_bytes(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "résumé 🚀.txt"
    source.write_bytes(b"hello")
    artifact = logged(store, save_file(store, "notes/my résumé", source))
    assert artifact.load() == b"hello"
    assert artifact.path().name == "résumé 🚀.txt"
    assert artifact.path().read_bytes() == b"hello"
    assert artifact.size == 5


def test_bytes_are_called_by_the_name(store: Store) -> None:
    artifact = logged(store, save_file(store, "a/vocabulary.txt", b"x"))
    assert artifact.path().name == "vocabulary.txt"
    assert logged(store, save_file(store, "empty", b"")).load() == b""


def test_a_folder_keeps_its_paths(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/deep.txt").write_text("deep")
    (folder / ".hidden").write_text("hidden")
    (folder / "link").symlink_to(folder / "a")
    artifact = logged(store, save_file(store, "out", str(folder)))
    assert [file.path for file in artifact.record.files] == [
        ".hidden",
        "a/b/deep.txt",
        "link/b/deep.txt",
    ]
    copy = artifact.load()
    assert (copy / "link/b/deep.txt").read_text() == "deep"
    assert len(artifact.digest) == 64


def test_a_folder_of_one_file_stays_a_folder(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "x").write_text("1")
    artifact = logged(store, save_file(store, "out", folder))
    assert (artifact.path() / "x").read_text() == "1"
    assert (artifact.download(tmp_path / "copy") / "x").read_text() == "1"


def test_a_folder_without_files_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty/inner").mkdir(parents=True)
    with pytest.raises(SpecError, match="holds no file"):
        save_file(store, "empty", tmp_path / "empty")


@pytest.mark.parametrize("target", ["../secret", "/etc/hostname", ".", "missing", "loop"])
def test_a_link_that_leads_out_or_nowhere_is_refused(
    store: Store, tmp_path: Path, target: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "secret").write_text("s")
    (folder / "fine").write_text("1")
    (folder / "loop").symlink_to(target)
    with pytest.raises(SpecError, match="loop"):
        save_file(store, "out", folder)


def test_a_pipe_in_a_folder_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out/pipe")
    with pytest.raises(SpecError, match="neither"):
        save_file(store, "out", tmp_path / "out")


@pytest.mark.parametrize("source", ["missing.txt", Path("missing"), None, 3])
def test_a_file_that_is_not_there_is_refused(store: Store, source: Any) -> None:
    with pytest.raises(SpecError):
        save_file(store, "x", source)


# Copies


def test_a_copy_is_made_once_and_is_gone_with_the_process(store: Store) -> None:
    artifact = logged(store, save_file(store, "x", b"1"))
    first = artifact.path()
    flip_a_byte(store, artifact.record.files[0])
    assert artifact.path() == first
    assert first.is_relative_to(local_folder())
    code = "from rayml.artifacts.file import local_folder; print(local_folder())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists()


def test_equal_bytes_of_two_names_are_two_files(store: Store) -> None:
    one, two = (logged(store, save_file(store, name, b"same")) for name in ("one.txt", "two.txt"))
    assert one.digest == two.digest
    assert (one.path().name, two.path().name) == ("one.txt", "two.txt")


def test_a_download_never_overwrites(store: Store, tmp_path: Path) -> None:
    artifact = logged(store, save_file(store, "x", b"new"))
    target = artifact.download(tmp_path / "made/for/it.txt")
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["it.txt"]
    with pytest.raises(SpecError, match="exists already"):
        artifact.download(target)


def test_names_as_long_as_the_file_system_allows_are_copied(store: Store, tmp_path: Path) -> None:
    source = tmp_path / ("x" * 255)
    source.write_bytes(b"1")
    artifact = logged(store, save_file(store, "long", source))
    assert artifact.path().read_bytes() == b"1"


# The artifact itself


@pytest.mark.parametrize("read", ["to_pandas", "to_arrow", "to_ray"])
def test_what_has_no_rows_is_no_table(store: Store, read: str) -> None:
    artifact = logged(store, save_file(store, "x", b"1"))
    with pytest.raises(SpecError, match="without rows"):
        getattr(artifact, read)()


def test_a_notebook_shows_it_without_running_it(store: Store) -> None:
    frame = pd.DataFrame({"<b>": ["<script>alert(1)</script>", None]})
    html = logged(store, save_dataset(store, "<i>", frame))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<i>" not in html
    assert "&lt;b&gt;<br><small>large_string" in html
    image = logged(store, save_plot(store, "p", Figure()))._repr_html_()
    assert 'src="data:image/png;base64,iVBOR' in image
    figure = logged(store, save_plot(store, "p", go.Figure()))._repr_html_()
    # A notebook has no folder of the page's, from which its library could come.
    assert "plotly.min.js&quot;" not in figure
    assert len(figure) > 10**6
    assert "rayml://" in logged(store, save_file(store, "x", b"1"))._repr_html_()


def test_an_artifact_survives_pickle(store: Store) -> None:
    artifact = logged(store, save_dataset(store, "flights", a_frame()))
    assert pickle.loads(pickle.dumps(artifact)).load().equals(artifact.load())


def test_importing_artifacts_loads_no_heavy_library() -> None:
    heavy = (
        "numpy",
        "pandas",
        "pyarrow",
        "ray",
        "polars",
        "matplotlib",
        "plotly",
        "sklearn",
        "skops",
    )
    code = f"import sys, rayml.inputs; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64("nan"), None),
        (np.int64(3), 3),
        (2**70, str(2**70)),
        (b"\xff", r"b'\xff'"),
        ("\ud800", "?"),
        ((1, {2: {3}}), [1, {"2": "{3}"}]),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    ],
)
def test_every_value_becomes_strict_json(value: object, expected: object) -> None:
    assert json_safe(value) == expected
    assert json.loads(msgspec.json.encode(json_safe(value))) == expected
