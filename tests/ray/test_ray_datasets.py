from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Never

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import ray.data

from rayml._ray.blocks import FewAtATime
from rayml.artifacts import Artifact
from rayml.artifacts import dataset as datasets
from rayml.artifacts.dataset import save_dataset
from rayml.errors import SpecError
from rayml.inputs import Input, convert, describe_input
from rayml.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = [
    pytest.mark.ray,
    # Ray Data warns of its own settings and of its own sockets.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def logged(store: Store, data: object) -> Artifact:
    record = msgspec.structs.replace(save_dataset(store, "data", data), run="7f3c")
    return Artifact(record, store)


def test_a_ray_dataset_comes_back_whole(store: Store) -> None:
    data = ray.data.range(1000).map_batches(lambda batch: batch | {"half": batch["id"] / 2})
    artifact = logged(store, data)
    assert artifact.meta["source"] == "ray"
    assert artifact.meta["rows"] == 1000
    assert artifact.meta["statistics"]["half"]["mean"] == pytest.approx(499.5 / 2)
    assert sorted(artifact.load()["id"]) == list(range(1000))
    assert sorted(row["id"] for row in artifact.to_ray().take_all()) == list(range(1000))


def test_a_ray_dataset_larger_than_a_part_is_stored_in_parts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "PART_BYTES", 4000)
    monkeypatch.setattr(datasets, "_BATCH_BYTES", 1000)
    artifact = logged(store, ray.data.range(2000, override_num_blocks=20))
    assert 1 < len(artifact.record.files) < 20
    assert artifact.to_arrow().num_rows == 2000
    assert artifact.meta["statistics"]["id"]["max"] == 1999
    assert artifact.to_ray().count() == 2000


def test_its_blocks_are_stored_in_order_by_tasks(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is written in this process, whose write_parts the tasks do not have.
    monkeypatch.delattr(datasets, "write_parts")
    monkeypatch.setattr(datasets, "PART_BYTES", 4000)
    blocks = [pa.table({"id": range(start, start + 100)}) for start in range(0, 1000, 100)]
    artifact = logged(store, ray.data.from_arrow(blocks))
    assert artifact.to_arrow()["id"].to_pylist() == list(range(1000))
    assert artifact.meta["preview"]["rows"][:2] == [[0], [1]]
    assert artifact.meta["statistics"]["id"]["distinct"] == 1000


def test_a_ray_dataset_without_rows_keeps_its_columns(store: Store) -> None:
    empty = ray.data.from_pandas(pd.DataFrame({"a": pd.Series([], dtype="int64")}))
    artifact = logged(store, empty)
    assert artifact.meta["rows"] == 0
    assert artifact.meta["schema"] == [{"name": "a", "type": "int64"}]
    assert artifact.to_arrow().num_rows == 0


def test_tensors_stay_tensors(store: Store) -> None:
    artifact = logged(store, ray.data.from_numpy(np.arange(16.0).reshape(4, 2, 2)))
    assert artifact.meta["statistics"]["data"] == {"count": 4, "nulls": 0}
    batch = artifact.to_ray().take_batch(4)["data"]
    assert batch.shape == (4, 2, 2)


def test_an_error_inside_a_ray_dataset_stores_no_record(store: Store) -> None:
    def fail(batch: object) -> Never:
        raise ValueError("boom")

    with pytest.raises(ray.exceptions.RayTaskError, match="boom"):
        save_dataset(store, "data", ray.data.range(10).map_batches(fail))


def test_a_pandas_dataset_is_read_as_ray(store: Store) -> None:
    artifact = logged(store, pd.DataFrame({"a": [1, 2], "b": ["x", None]}))
    assert artifact.to_ray().take_all() == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


def test_inputs_take_the_form_of_a_ray_dataset(store: Store, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=2)
    frame.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "folder").mkdir()
    frame.to_parquet(tmp_path / "folder/a.parquet")
    given: list[object] = [tmp_path / name for name in ("a.parquet", "a.csv", "folder")]
    given += [
        frame,
        pa.Table.from_pandas(frame),
        logged(store, frame),
        ray.data.from_pandas(frame),
    ]
    for value in given:
        data = Input(describe_input("data", value, tmp_path), value)
        assert convert(data, ray.data.Dataset).take_all() == [{"a": 1}, {"a": 2}, {"a": 3}], value
        assert convert(data, "ray.data.Dataset").count() == 3


def test_a_ray_dataset_in_memory_takes_other_forms() -> None:
    value = ray.data.range(5)
    data = Input(describe_input("data", value, Path("/")), value)
    assert data.to_ray() is value
    assert sorted(convert(data, pd.DataFrame)["id"]) == [0, 1, 2, 3, 4]
    assert convert(data, pa.Table).num_rows == 5


def test_a_column_whose_blocks_disagree_is_refused(store: Store) -> None:
    data = ray.data.from_arrow([pa.table({"a": [1]}), pa.table({"a": ["x"]})])
    with pytest.raises(SpecError, match="disagree"):
        save_dataset(store, "data", data)
    assert store.list("blobs/") != []


def test_no_more_calls_than_said_are_under_way() -> None:
    def nap() -> tuple[float, float]:
        started = time.time()
        time.sleep(0.05)
        return started, time.time()

    task = FewAtATime(nap, 2)
    calls = ray.get([task.options(num_cpus=0).remote() for _ in range(12)])
    for started, _ in calls:
        assert sum(other <= started < end for other, end in calls) <= 2
