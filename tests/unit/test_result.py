"""What a function returned comes back as it was, or the run says why it cannot."""

from __future__ import annotations

import datetime as dt
import math
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.errors import ArtifactCorrupt, NotFound, SpecError
from rayml.redaction import Redactor
from rayml.result import decode_result, encode_result, result_metrics
from rayml.store.base import blob_key
from rayml.store.folder import Folder
from rayml.tracker.records import Result
from tests.unit.journals import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

plain: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def send(value: object, *secrets: str) -> tuple[str, Any]:
    """Return the format that a value was stored in, and what comes back."""
    store = MemoryStore()
    result = encode_result(value, store, Redactor(secrets).redact)
    return result.format, decode_result(result, store, trusted=result.format == "pickle")


# Plain values


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 0.0, -0.0, 0.1, math.inf, -math.inf, 2**200, "", "é🚀", "\ud800",
     [], {}, [None, [False, 0, 0.0]], {"a": {"b": [1, "x"]}, "": None}],
    ids=repr,
)  # fmt: skip
def test_a_plain_value_comes_back_from_json(value: object) -> None:
    format_, back = send(value)
    assert format_ == "json"
    assert repr(back) == repr(value)


def test_nan_comes_back_from_json() -> None:
    format_, back = send({"auc": math.nan})
    assert format_ == "json"
    assert math.isnan(back["auc"])


@given(plain)
def test_whatever_is_plain_comes_back_with_its_types(value: object) -> None:
    assert repr(send(value)) == repr(("json", value))


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1, 2}, frozenset({1}), b"\xff", {1: "a"}, [(1,)], 1 + 2j, Decimal("1.10"),
     dt.date(2026, 1, 2), range(3), 1 << 20_000, {True: 1}],
    ids=lambda value: "huge" if isinstance(value, int) else repr(value),
)  # fmt: skip
def test_what_json_would_change_is_pickled(value: object) -> None:
    format_, back = send(value)
    assert format_ == "pickle"
    assert (type(back), back) == (type(value), value)


# numpy


@pytest.mark.parametrize(
    "value",
    [np.float64(0.1), np.float32("nan"), np.float16(1.5), np.longdouble(1) / 3, np.int8(-3),
     np.uint64(2**64 - 1), np.bool_(False), np.complex64(1 + 2j), np.str_("é🚀"),
     np.datetime64("2026-01-02T03"), np.timedelta64(5, "s")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_numpy_scalar_comes_back_with_its_type(value: np.generic) -> None:
    format_, back = send(value)
    assert format_ == "numpy"
    assert type(back) is type(value)
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    "value",
    [np.arange(6).reshape(2, 3), np.zeros((0, 3)), np.array([0.5, np.nan], np.float32),
     np.array(["a", "ü"]), np.array([1], ">i4"), np.array([(1, 2.0)], [("a", int), ("b", float)])],
    ids=lambda value: str(value.dtype),
)  # fmt: skip
def test_a_numpy_array_comes_back_with_its_dtype(value: np.ndarray[Any, Any]) -> None:
    format_, back = send(value)
    assert format_ == "numpy"
    np.testing.assert_array_equal(back, value, strict=True)


def test_an_array_of_objects_is_pickled() -> None:
    format_, back = send(np.array([1, "a"], dtype=object))
    assert format_ == "pickle"
    assert back.tolist() == [1, "a"]


# DataFrames

EXACT = {
    "numbers": pd.DataFrame({"a": [1, 2], "b": [0.1, math.nan]}),
    "text": pd.DataFrame({"a": ["007", None]}),
    "index": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="code")),
    "two indexes": pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, "a")])),
    "categorical": pd.DataFrame({"a": pd.Categorical(["x", "y"], ["y", "x"], ordered=True)}),
    "zone": pd.DataFrame({"a": pd.to_datetime(["2026-01-02"]).tz_localize("Europe/Berlin")}),
    "nullable": pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}),
    "dates": pd.DataFrame({"a": [dt.date(2026, 1, 2)]}),
    "decimals": pd.DataFrame({"a": [Decimal("1.10")]}),
    "numbered columns": pd.DataFrame([[1, 2]]),
    "empty": pd.DataFrame(),
}

PICKLED = {
    "mixed": pd.DataFrame({"a": [1, "x"]}),
    "lists": pd.DataFrame({"a": [[1, 2], [3]]}),
    "tuples": pd.DataFrame({"a": [(1, 2), (3, 4)]}),
    "dicts of lists": pd.DataFrame({"a": [{"x": [1]}]}),
    "complex": pd.DataFrame({"a": [1 + 2j]}),
    "same name twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "frequency": pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2026", periods=2)),
    "nan among objects": pd.DataFrame({"a": pd.Series([math.nan, "x"], dtype=object)}),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_frame_comes_back_from_parquet(name: str) -> None:
    format_, back = send(EXACT[name])
    assert format_ == "parquet"
    pd.testing.assert_frame_equal(back, EXACT[name], check_exact=True)


@pytest.mark.parametrize("name", PICKLED)
def test_a_frame_that_parquet_would_change_is_pickled(name: str) -> None:
    format_, back = send(PICKLED[name])
    assert format_ == "pickle"
    pd.testing.assert_frame_equal(back, PICKLED[name])
    assert [type(v) for v in back.iloc[:, 0]] == [type(v) for v in PICKLED[name].iloc[:, 0]]


# What cannot be stored, or should not be loaded


@pytest.mark.parametrize(
    "value",
    [threading.Lock(), (i for i in range(3)), [threading.Lock()]],
    ids=["lock", "generator", "list"],
)
def test_what_cannot_be_pickled_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match=f"the returned {type(value).__name__} cannot be stored"):
        send(value)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return type(self.path).touch, (self.path,)


def test_a_pickle_is_not_loaded_without_trust(tmp_path: Path) -> None:
    store, path = MemoryStore(), tmp_path / "it ran"
    result = encode_result(Trap(path), store, bytes)

    with pytest.raises(SpecError, match="load_result\\(trusted=True\\)"):
        decode_result(result, store, trusted=False)
    assert not path.exists()
    decode_result(result, store, trusted=True)
    assert path.exists()


def test_a_format_of_a_newer_rayml_is_named() -> None:
    with pytest.raises(SpecError, match="format 'arrow', which a newer rayml wrote; upgrade"):
        decode_result(Result(format="arrow", inline=b""), MemoryStore(), trusted=False)


def test_secrets_are_hidden_in_text_and_refused_in_the_rest() -> None:
    assert send({"url": "db://u:hunter2@h", "hunter2": 1}, "hunter2")[1] == {
        "url": "db://u:***@h",
        "***": 1,
    }
    for value in (
        ("hunter2",),
        np.array(["xhunter2"]).astype("S"),
        pd.DataFrame({"a": ["hunter2"]}),
    ):
        with pytest.raises(SpecError, match="holds the value of a secret"):
            send(value, "hunter2")


def test_a_number_that_looks_like_a_secret_does_not_break_the_result() -> None:
    assert send({"auc": 0.1234, "n": 1234}, "1234")[1] == {"auc": 0.1234, "n": 1234}


# Large values


def test_a_large_value_is_a_blob(tmp_path: Path) -> None:
    store = Folder(tmp_path / "store")
    small = encode_result("x" * 60_000, store, bytes)
    large = encode_result("x" * 70_000, store, bytes)

    assert (small.digest, large.inline) == (None, None)
    assert decode_result(large, store, trusted=False) == "x" * 70_000


def test_a_blob_that_was_changed_or_lost_is_found_out(tmp_path: Path) -> None:
    store = Folder(tmp_path / "store")
    result = encode_result("x" * 70_000, store, bytes)
    path = store.root / blob_key(result.digest or "")
    path.write_bytes(path.read_bytes().replace(b"x", b"y", 1))
    with pytest.raises(ArtifactCorrupt):
        decode_result(result, store, trusted=False)

    path.unlink()
    with pytest.raises(NotFound):
        decode_result(result, store, trusted=False)


# Metrics


@pytest.mark.parametrize(
    ("value", "metrics"),
    [
        (0.5, {"result": 0.5}),
        (True, {"result": 1.0}),
        (np.float32(0.5), {"result": 0.5}),
        ({"auc": np.float64(0.9), "n": 3, "note": "ok", "none": None}, {"auc": 0.9, "n": 3.0}),
        (
            {"test": {"loss": 1, "by": {"day": 2}}, "": 4, 5: 6},
            {"test/loss": 1.0, "test/by/day": 2.0},
        ),
        ({"list": [1, 2], "array": np.array([1.0])}, {}),
        (10**400, {}),
        (np.datetime64("2026"), {}),
        (np.complex64(1), {}),
        (None, {}),
        ("0.5", {}),
    ],
    ids=repr,
)
def test_numbers_that_were_returned_are_metrics(value: object, metrics: dict[str, float]) -> None:
    assert dict(result_metrics(value)) == metrics
