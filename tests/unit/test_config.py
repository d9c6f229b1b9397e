"""What a job may ask for, and which setting wins."""

from __future__ import annotations

import dataclasses
import math
import pickle
import string
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.config import Resources, Retry, default_store, parse_memory, project_root, setting
from rayml.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
# Below this every whole number of bytes is exact.
EXACT_BYTES = 2**53


class TestParseMemory:
    @given(st.data(), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
    def test_whole_quantities_are_exact(self, data: st.DataObject, unit: str, gap: str) -> None:
        number = data.draw(st.integers(1, EXACT_BYTES // UNITS[unit]))

        assert parse_memory(f"{number}{gap}{unit}") == number * UNITS[unit]

    @given(st.integers(1, EXACT_BYTES))
    def test_an_integer_is_bytes(self, size: int) -> None:
        assert parse_memory(size) == parse_memory(str(size)) == size

    @given(st.decimals("0.001", "1000", places=3), st.sampled_from(sorted(set(UNITS) - {""})))
    def test_fractions_are_right_to_the_byte(self, number: Any, unit: str) -> None:
        assert abs(parse_memory(f"{number}{unit}") - number * UNITS[unit]) <= 1

    @given(st.text(string.ascii_letters, min_size=1).filter(lambda unit: unit not in UNITS))
    def test_other_units_are_refused(self, unit: str) -> None:
        with pytest.raises(SpecError, match="is not a quantity; write bytes as an integer"):
            parse_memory(f"1{unit}")

    @given(st.text(max_size=20))
    def test_any_text_is_a_size_or_a_spec_error(self, text: str) -> None:
        with suppress(SpecError):
            assert parse_memory(text) > 0

    @pytest.mark.parametrize(
        "quantity", ["banana", "", "-1Gi", "1e3", "4 G i", "4gb", "inf", "nan", True, -1, 0, "0Gi"]
    )
    def test_nonsense_is_refused_with_the_value_seen(self, quantity: str | int) -> None:
        with pytest.raises(SpecError) as caught:
            parse_memory(quantity)

        assert f"memory={quantity!r}" in str(caught.value)


class TestResources:
    def test_the_defaults_are_one_cpu(self) -> None:
        resources = Resources()

        assert (resources.cpus, resources.gpus, resources.workers) == (1, 0, 1)
        assert resources.memory_bytes is None

    def test_memory_is_given_in_bytes(self) -> None:
        assert Resources(memory="1.5Gi").memory_bytes == 1610612736
        assert Resources(memory=1024).memory_bytes == 1024

    @pytest.mark.parametrize("name", ["cpus", "gpus"])
    @pytest.mark.parametrize("value", [-1, -0.5, math.nan, math.inf, "2", None, True])
    def test_an_impossible_amount_is_refused(self, name: str, value: Any) -> None:
        with pytest.raises(SpecError, match=f"^{name}=.* is not an amount; give a number from 0"):
            Resources(**{name: value})

    @pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True])
    def test_an_impossible_number_of_workers_is_refused(self, value: Any) -> None:
        with pytest.raises(SpecError, match=r"^workers=.* is not a count"):
            Resources(workers=value)

    def test_memory_is_checked_at_once(self) -> None:
        with pytest.raises(SpecError, match="memory='banana'"):
            Resources(memory="banana")

    @pytest.mark.parametrize("amount", [0, 0.5, 10_000])
    def test_large_and_small_demands_are_no_mistake_here(self, amount: float) -> None:
        assert Resources(cpus=amount, gpus=amount).cpus == amount

    def test_it_is_a_plain_value(self) -> None:
        resources = Resources(cpus=2, memory="4Gi", gpu_type="A100")

        assert pickle.loads(pickle.dumps(resources)) == resources
        assert dataclasses.replace(resources, cpus=1) != resources
        with pytest.raises(dataclasses.FrozenInstanceError):
            resources.cpus = 3  # type: ignore[misc]


class TestRetry:
    def test_the_defaults_try_three_times_after_any_failure(self) -> None:
        retry = Retry()

        assert (retry.attempts, retry.backoff_s) == (3, 10)
        assert retry.on == ("node_lost", "oom", "error")

    @pytest.mark.parametrize("attempts", [0, -1, 1.0, "3", None, True])
    def test_an_impossible_number_of_attempts_is_refused(self, attempts: Any) -> None:
        with pytest.raises(SpecError, match=r"^attempts=.* is not a count"):
            Retry(attempts=attempts)

    @pytest.mark.parametrize("backoff_s", [-1, math.nan, math.inf, "10"])
    def test_an_impossible_pause_is_refused(self, backoff_s: Any) -> None:
        with pytest.raises(SpecError, match=r"^backoff_s=.* is not an amount"):
            Retry(backoff_s=backoff_s)

    def test_a_misspelt_failure_gets_the_nearest(self) -> None:
        with pytest.raises(SpecError, match="did you mean 'node_lost'"):
            Retry(on=("node_los",))  # type: ignore[arg-type]

    def test_trying_once_after_nothing_is_allowed(self) -> None:
        assert Retry(attempts=1, backoff_s=0, on=()).on == ()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, in a folder of which the test runs."""
    monkeypatch.delenv("RAYML_STORE", raising=False)
    (tmp_path / ".git").mkdir()
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    return tmp_path


class TestSetting:
    def test_nothing_set_is_none(self, project: Path) -> None:
        assert setting("store") is None

    def test_the_first_that_is_set_wins(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (project / "pyproject.toml").write_text('[tool.rayml]\nstore = "shared"\ncluster = "c"\n')
        (project / "rayml.toml").write_text('store = "own"\n')
        assert setting("store") == "own"
        assert setting("cluster") == "c"

        monkeypatch.setenv("RAYML_STORE", "environment")
        assert setting("store") == "environment"
        assert setting("store", "argument") == "argument"

    def test_pyproject_alone_is_read(self, project: Path) -> None:
        (project / "pyproject.toml").write_text('[tool.rayml]\nstore = "s3://runs"\n')

        assert setting("store") == "s3://runs"

    def test_an_empty_variable_is_not_set(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (project / "rayml.toml").write_text('store = "own"\n')
        monkeypatch.setenv("RAYML_STORE", "")

        assert setting("store") == "own"

    def test_a_value_that_is_no_text_is_refused(self, project: Path) -> None:
        (project / "rayml.toml").write_text("store = 3\n")

        with pytest.raises(SpecError, match="setting 'store' is 3 in the project's file"):
            setting("store")

    @pytest.mark.parametrize("content", [b"store = ", b"store = '\xff'"])
    def test_a_broken_file_is_named(self, project: Path, content: bytes) -> None:
        (project / "rayml.toml").write_bytes(content)

        with pytest.raises(SpecError, match=r"rayml\.toml is not valid TOML: .*; mend it"):
            setting("store")


class TestProjectRoot:
    @pytest.mark.parametrize("marker", ["pyproject.toml", ".git"])
    def test_it_is_the_nearest_folder_with_a_marker(self, tmp_path: Path, marker: str) -> None:
        inner = tmp_path / "outer" / "inner"
        (inner / "src" / "deep").mkdir(parents=True)
        (tmp_path / "outer" / marker).touch()
        (inner / marker).touch()

        assert project_root(inner / "src" / "deep") == inner

    def test_the_default_store_lies_in_it(self, project: Path) -> None:
        assert default_store() == str(project / ".rayml")
