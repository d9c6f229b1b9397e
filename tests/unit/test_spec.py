"""The job as plain data: printable, and the same after a trip through JSON."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.config import Resources, Retry
from rayml.errors import SpecError
from rayml.spec import InputRecord, Spec, Target, describe_params, describe_value
from tests.unit.journals import make_spec

anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())  # lone surrogates included, as in a file name that is not UTF-8
    | st.binary()
    | st.dates(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(), inner)
    ),
    max_leaves=10,
)


def describe(value: object) -> object:
    return describe_value("p", value)


@pytest.mark.parametrize(
    "value", [None, True, 0, -3, 0.5, "", "é🚀", [1, [2]], {"a": {"b": None}}]
)
def test_plain_values_are_described_as_they_are(value: object) -> None:
    assert describe(value) == value
    assert type(describe(value)) is type(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.float64("inf"), "inf"),
        ((1, 2), [1, 2]),
        ({1: {"x": math.inf}}, {"1": {"x": "inf"}}),
        ({1}, "{1}"),
        (b"ab", "b'ab'"),
        (2**63, "9223372036854775808"),
        ("lone \udcff", "lone \\udcff"),
    ],
)
def test_what_json_has_no_form_for_is_described_by_its_text(value: object, shown: object) -> None:
    assert describe(value) == shown


def test_what_has_no_json_form_is_described_by_its_repr() -> None:
    assert describe(Retry) == "<class 'rayml.config.Retry'>"
    assert describe([np.zeros(2)]) == ["array([0., 0.])"]
    assert describe(1 << 14_400) == "0x1" + "0" * 3600


@pytest.mark.parametrize("value", ["x" * 100_000, ["ü"] * 50_000, {"a": b"y" * 90_000}])
def test_a_long_value_is_cut_and_says_how_long_it_was(value: Any) -> None:
    shown = describe(value)
    assert isinstance(shown, str)
    assert len(shown) < 4200
    size = len(msgspec.json.encode({"a": repr(value["a"])} if isinstance(value, dict) else value))
    assert shown.endswith(f"… ({size:,} bytes in all)")


@given(anything)
def test_whatever_is_described_is_strict_json(value: object) -> None:
    shown = describe(value)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert len(msgspec.json.encode(shown)) < 30_000


@pytest.mark.parametrize(
    "value",
    [np.zeros(2**30, np.uint8), [np.zeros(2**29, np.uint8)] * 2, {"a": [bytearray(257 * 2**20)]}],
    ids=["array", "list", "nested"],
)
@pytest.mark.timeout(5)
def test_a_huge_parameter_is_refused_without_a_copy(value: object) -> None:
    with pytest.raises(
        SpecError, match=r"'model' has [\d,]+ bytes and a parameter may have 268,"
    ) as e:
        describe_params({"model": value})
    assert "inputs={'model': …}" in str(e.value)


def test_a_spec_is_the_same_after_a_trip_through_json() -> None:
    spec = make_spec(
        params={"depth": 4, "rate": "nan", "é": [None, True]},
        inputs={"d": InputRecord(name="d", uri="s3://b/d", kind="uri", size=3)},
        args=["--x", "ü"],
        labels={"team": "a"},
        resources=Resources(cpus=0.5, memory="4Gi", gpus=1, gpu_type="A100", workers=2),
        secrets=["TOKEN"],
        retry=Retry(attempts=2, backoff_s=0.5, on=("oom",)),
        timeout_s=3.5,
        target=Target(kind="file", text="a.py:f", file="/a.py", function="f"),
    )

    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec) == spec
    assert msgspec.json.decode(str(spec), type=Spec) == spec


def test_a_spec_of_an_older_rayml_is_read_with_defaults() -> None:
    fields = json.loads(str(make_spec()))
    for later in ("retry", "resources", "timeout_s", "start_timeout_s", "inputs", "env"):
        del fields[later]
    assert msgspec.json.decode(json.dumps(fields), type=Spec) == make_spec()


def test_a_printed_spec_is_json_for_people() -> None:
    printed = str(make_spec(secrets=["TOKEN"]))
    assert printed.startswith('{\n  "run": "r1"')
    assert json.loads(printed)["secrets"] == ["TOKEN"]


def test_a_broken_unicode_argument_does_not_break_a_printed_spec() -> None:
    name = b"data-\xff.csv".decode(sys.getfilesystemencoding(), "surrogateescape")
    spec = make_spec(params=describe_params({"paths": {name: [name]}}))
    assert json.loads(str(spec))["params"] == {"paths": {"data-\\udcff.csv": ["data-\\udcff.csv"]}}
