"""GPUs are measured by what their drivers tell; no GPU is needed to tell which ones are meant."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

import pytest

from rayml.cli.output import print_values
from rayml.gpus import Use, chosen, find_gpus, gpu_measures, visible
from tests.unit.journals import points, submitted
from tests.unit.test_runs import fold

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30


@pytest.fixture
def drm(tmp_path: Path) -> Path:
    """Four of AMD's cards as their kernel driver shows them, and what else is listed there."""
    for number, busy in ((1, 30), (2, 60), (10, 90), (3, 0)):
        device = tmp_path / f"card{number}" / "device"
        device.mkdir(parents=True)
        (device / "gpu_busy_percent").write_text(f"{busy}\n")
        (device / "mem_info_vram_used").write_text(f"{number * GIB}\n")
        (device / "mem_info_vram_total").write_text(f"{16 * GIB}\n")
        (device / "unique_id").write_text(f"{number:016x}\n")
    (tmp_path / "card0" / "device").mkdir(parents=True)  # the board's own
    (tmp_path / "card1-HDMI-A-1").mkdir()
    (tmp_path / "version").write_text("drm 1.1.0\n")
    return tmp_path


def busy(drm: Path, **variables: str) -> list[float]:
    return [use.busy for use in find_gpus(variables, drm, "libnothing.so")()]


def test_amd_s_cards_are_read_in_the_order_of_their_numbers(drm: Path) -> None:
    read = find_gpus({}, drm, "libnothing.so")
    assert [use.busy for use in read()] == [30, 60, 0, 90]
    assert read()[1] == Use(60, 2 * GIB, 16 * GIB)
    (drm / "card2" / "device" / "gpu_busy_percent").write_text("61\n")
    assert read()[1].busy == 61


def test_the_ones_that_a_process_may_use_are_read(drm: Path) -> None:
    assert busy(drm, HIP_VISIBLE_DEVICES="3,0") == [90, 30]
    assert busy(drm, ROCR_VISIBLE_DEVICES="GPU-0000000000000002") == [60]
    assert busy(drm, HIP_VISIBLE_DEVICES="") == []
    assert busy(drm, CUDA_VISIBLE_DEVICES="") == [30, 60, 0, 90]  # those are NVIDIA's


def test_what_a_card_does_not_tell_is_left_out(drm: Path) -> None:
    (drm / "card1" / "device" / "gpu_busy_percent").write_text("")
    (drm / "card1" / "device" / "mem_info_vram_total").unlink()
    (drm / "card1" / "device" / "unique_id").unlink()
    measured = gpu_measures(find_gpus({"HIP_VISIBLE_DEVICES": "0,1"}, drm, "libnothing.so")())
    assert measured == {"gpu": 60, "gpu_memory": 12.5, "gpu1": 60, "gpu1_memory": 12.5}


@pytest.mark.parametrize("library", ["libnothing.so", "libc.so.6", __file__])
def test_without_nvidia_s_library_or_with_another_there_are_none(
    library: str, tmp_path: Path
) -> None:
    assert find_gpus({}, tmp_path, library)() == []
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "MIG-1"}, tmp_path / "none", library)() == []


def test_one_gpu_has_no_number() -> None:
    assert gpu_measures([Use(50, 4, 16)]) == {"gpu": 50, "gpu_memory": 25}
    assert gpu_measures([Use(nan, 4, 16)]) == {"gpu_memory": 25}  # a part of one
    assert gpu_measures([Use(50, 0, 0)]) == {"gpu": 50}
    assert gpu_measures([]) == {}


@pytest.mark.parametrize(
    ("variable", "found"),
    [
        (None, None),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", ["2"]),
        (" 0, 3 ", ["0", "3"]),
        ("0,,1", ["0"]),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"]),
        ("MIG-c6d4f1ef", ["MIG-c6d4f1ef"]),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(
    variable: str | None, found: list[str] | None
) -> None:
    assert visible(variable) == found


def test_a_gpu_is_meant_by_its_number_or_how_its_name_begins() -> None:
    names = ["GPU-12ab", "GPU-34cd", "GPU-34ef"]
    assert chosen(names, None) == [0, 1, 2]
    assert chosen(names, ["2", "GPU-12"]) == [2, 0]
    assert chosen(names, ["3", "GPU-99"]) == []


def test_they_are_shown_in_percent(capsys: pytest.CaptureFixture[str]) -> None:
    print_values(fold(submitted(), points("system/gpu0_memory", [10, 20], [40.0, 30.0])))
    assert "  gpu0_memory  30 %, at most 40 %" in capsys.readouterr().out
