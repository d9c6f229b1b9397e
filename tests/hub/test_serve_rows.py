"""What `serve` takes from a client, and what it says to one who sends something else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rayml.hub.serve._rows import Refused, Signature

DTYPES = {
    "age": "int64",
    "income": "float64",
    "member": "bool",
    "town": "str",
    "since": "datetime64[us]",
    "kind": "category",
}
ROW: dict[str, Any] = {
    "age": 41,
    "income": 12.5,
    "member": True,
    "town": "Bern",
    "since": "2026-01-31T12:00:00",
    "kind": "a",
}


def signature(dtypes: dict[str, str] | None = None, left_out: int = 0) -> Signature:
    inputs = [
        {"name": name, "dtype": dtype, "shape": [None]}
        for name, dtype in (DTYPES if dtypes is None else dtypes).items()
    ]
    return Signature({"signature": {"inputs": inputs, "outputs": [], "left_out": left_out}})


def of_array(*shape: int | None, dtype: str = "float64") -> Signature:
    entry = {"name": None, "dtype": dtype, "shape": [None, *shape]}
    return Signature({"signature": {"inputs": [entry], "outputs": [], "left_out": 0}})


def read(data: object, known: Signature | None = None) -> Any:
    return (known or signature()).read(json.dumps(data).encode())


def refusal(data: object, known: Signature | None = None) -> str:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    with pytest.raises(Refused) as caught:
        (known or signature()).read(body)
    assert 400 <= caught.value.status < 500
    assert "\n" not in caught.value.reason
    return caught.value.reason


class TestColumns:
    def test_records_columns_and_one_record_are_the_same_rows(self) -> None:
        records = read([ROW])
        pd.testing.assert_frame_equal(
            read({name: [value] for name, value in ROW.items()}), records
        )
        pd.testing.assert_frame_equal(read(ROW), records)
        assert {name: str(dtype) for name, dtype in records.dtypes.items()} == DTYPES
        assert records.iloc[0]["since"] == pd.Timestamp("2026-01-31 12:00")

    def test_columns_come_in_the_model_s_order(self) -> None:
        frame = read([dict(reversed(ROW.items()))])
        assert list(frame.columns) == list(DTYPES)

    def test_null_is_a_missing_value_where_there_can_be_one(self) -> None:
        frame = read([ROW | {"income": None, "town": None, "since": None, "kind": None}])
        assert frame.iloc[0][["income", "town", "since", "kind"]].isna().all()

    def test_times_with_a_zone_are_those_of_the_model_s(self) -> None:
        known = signature({"at": "datetime64[us, UTC]"})
        frame = read({"at": ["2026-01-31T12:00:00+02:00", "2026-01-31", None]}, known)
        assert frame["at"][0] == pd.Timestamp("2026-01-31T10:00:00Z")
        assert frame["at"][1:].isna().tolist() == [False, True]

    def test_whole_numbers_may_be_written_as_floats_and_the_other_way_round(self) -> None:
        frame = read([ROW | {"age": 3.0, "income": 7}])
        assert (frame["age"][0], frame["income"][0]) == (3, 7.0)

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("age", "41", 'column "age" takes whole numbers, and row 1 has text, "41"'),
            ("age", 41.5, 'column "age" takes whole numbers, and row 1 has a number, 41.5'),
            ("age", None, 'column "age" takes whole numbers, and row 1 has null'),
            ("age", True, 'column "age" takes whole numbers, and row 1 has true or false, true'),
            ("age", 2**63, 'column "age" takes whole numbers, and this is none'),
            ("income", "12.5", 'column "income" takes numbers, and row 1 has text'),
            ("income", [1], 'column "income" takes numbers, and row 1 has a list'),
            ("member", 1, 'column "member" takes true or false, and row 1 has a number, 1'),
            ("town", 7, 'column "town" takes text, and row 1 has a number, 7'),
            ("town", {"a": 1}, 'column "town" takes text, and row 1 has an object'),
            ("since", "tomorrow", 'takes times in ISO 8601, and row 1 has text, "tomorrow"'),
            ("since", "2026-01-31T12:00:00Z", "row 1 has a time zone, which the model's times"),
            ("since", 5, 'column "since" takes times in ISO 8601, and row 1 has a number'),
            ("kind", [], 'column "kind" takes a category, and row 1 has a list'),
        ],
    )
    def test_a_wrong_type_is_told_with_column_row_and_value(
        self, name: str, value: object, words: str
    ) -> None:
        assert words in refusal([ROW, ROW | {name: value}])

    @pytest.mark.parametrize(
        ("dtype", "value"),
        [
            ("date32[day][pyarrow]", 1.5),
            ("timedelta64[ns]", "long"),
            ("period[D]", "never"),
            ("complex128", "i"),
            ("datetime64[ns]", "9999-12-31"),
            ("int8", 1000),
            ("int64", 10**400),
            ("float64", 10**400),
            ("Int64", 2**70),
        ],
    )
    def test_what_no_value_of_a_type_can_be_is_refused(self, dtype: str, value: object) -> None:
        assert 'column "x" takes' in refusal([{"x": value}], signature({"x": dtype}))

    def test_values_of_a_type_that_pandas_cannot_name_go_through(self) -> None:
        frame = read([{"x": 1.5}], signature({"x": "decimal128(4, 2)[pyarrow]"}))
        assert frame["x"].tolist() == [1.5]

    def test_a_missing_column_is_named_with_what_may_be_meant_for_it(self) -> None:
        wrong = {("agee" if name == "age" else name): value for name, value in ROW.items()}
        assert "row 0 lacks \"age\", which the model takes; is 'agee' meant for it?" in refusal(
            [wrong]
        )
        assert 'row 1 lacks "town"' in refusal(
            [ROW, {n: v for n, v in ROW.items() if n != "town"}]
        )

    def test_an_unknown_column_is_refused(self) -> None:
        assert 'has "size", which the model does not know' in refusal([ROW | {"size": 1}])

    def test_what_is_left_out_of_a_long_signature_goes_through(self) -> None:
        frame = read([{"age": 1, "more": 2}, {"age": 2}], signature({"age": "int64"}, left_out=1))
        assert list(frame.columns) == ["age", "more"]

    @pytest.mark.parametrize(
        "data", [[], {}, {"age": [], "income": []}, [[]], [7], 7, "rows", None]
    )
    def test_no_rows_are_refused(self, data: object) -> None:
        refusal(data)

    def test_columns_of_different_lengths_are_refused(self) -> None:
        columns = {name: [value] for name, value in ROW.items()} | {"town": ["Bern", "Basel"]}
        assert 'column "age" has 1 values and "town" has 2' in refusal(columns)
        assert 'column "age" is a number, 41 and others are lists' in refusal(
            {"town": ["a"], **ROW} | {"town": ["a"]}
        )

    @pytest.mark.parametrize(
        "body",
        [b"", b"  ", b"{", b"\xff\xfe", b"age=1", b"[" * 100_000, b'[{"age": NaN}]', b"\x00" * 10],
    )
    def test_garbage_is_no_json(self, body: bytes) -> None:
        assert "body is" in refusal(body)

    def test_nan_is_told_how_to_write_it(self) -> None:
        assert "write null" in refusal(b'[{"age": NaN}]')


class TestArrays:
    def test_nested_lists_become_an_array_of_the_model_s_type(self) -> None:
        rows = read([[1, 2, 3], [4, 5, None]], of_array(3))
        np.testing.assert_array_equal(rows, [[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]])
        assert read([[[1], [2]]], of_array(2, 1, dtype="int64")).shape == (1, 2, 1)
        assert read(["a", "b"], of_array(dtype="str")).tolist() == ["a", "b"]

    @pytest.mark.parametrize(
        "data",
        [
            [1, 2, 3],
            [[1, 2]],
            [[1, 2, 3], [1, 2]],
            [["1", "2", "3"]],
            [[1, 2, True]],
            {"a": [1]},
            [[]],
            [[[1]] * 3],
        ],
    )
    def test_another_shape_or_type_is_refused(self, data: object) -> None:
        refusal(data, of_array(3))


class TestWithoutSignature:
    def test_rows_come_as_they_are(self) -> None:
        unknown = Signature({})
        assert read([{"a": 1}, {"a": 2}], unknown)["a"].tolist() == [1, 2]
        assert read({"a": [1, 2]}, unknown)["a"].tolist() == [1, 2]
        assert read([[1, 2], [3, 4]], unknown).tolist() == [[1, 2], [3, 4]]
        assert read(["a"], unknown).tolist() == ["a"]
        refusal([], unknown)
        refusal([[1], [1, 2]], unknown)
        assert "no array" in refusal([10**400], unknown)
        deep: Any = 1
        for _ in range(100):
            deep = [deep]
        assert "no array" in refusal(deep, unknown)
