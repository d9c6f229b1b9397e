"""How busy the GPUs are that a process may use, and how full: NVIDIA's and AMD's.

NVIDIA's are asked for by NVML, the library that comes with their driver, and AMD's by the files of
theirs. What a machine, a driver or a part of a GPU does not tell is left out.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import partial
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_DRM = Path("/sys/class/drm")
_NVML = "libnvidia-ml.so.1"
_UUID_BYTES = 96
_MISSING = (OSError, ValueError, AttributeError)


class Use(NamedTuple):
    """What one GPU tells of itself; NaN is what it does not.

    Attributes:
        busy: Percent of the time in which it did anything.
        used: Bytes of its memory that are taken, by whomever.
        total: Bytes that it has.
    """

    busy: float = nan
    used: float = nan
    total: float = nan


def find_gpus(
    environment: Mapping[str, str], drm: Path = _DRM, library: str = _NVML
) -> Callable[[], list[Use]]:
    """Return what reads the GPUs that a process with these variables may use.

    Args:
        environment: `CUDA_VISIBLE_DEVICES` for NVIDIA, `HIP_VISIBLE_DEVICES` or
            `ROCR_VISIBLE_DEVICES` for AMD; without it, all are the process's.
        drm: Where the kernel lists graphics cards.
        library: NVIDIA's.
    """
    readers: list[Callable[[], Use]] = []
    with suppress(*_MISSING):
        readers += _nvidia(library, visible(environment.get("CUDA_VISIBLE_DEVICES")))
    with suppress(*_MISSING):
        of_amd = environment.get("HIP_VISIBLE_DEVICES", environment.get("ROCR_VISIBLE_DEVICES"))
        readers += _amd(drm, visible(of_amd))
    return lambda: [read() for read in readers]


def gpu_measures(uses: Sequence[Use]) -> dict[str, float]:
    """Return measures by name: of all GPUs together, and of several also each one's.

    >>> gpu_measures([Use(50, 1, 4), Use(100, 2, 4)])
    {'gpu': 75.0, 'gpu_memory': 37.5, 'gpu0': 50.0, 'gpu0_memory': 25.0, 'gpu1': 100.0, \
'gpu1_memory': 50.0}
    """
    measures = {"gpu": _mean(use.busy for use in uses), "gpu_memory": _mean(map(_full, uses))}
    for place, use in enumerate(uses if len(uses) > 1 else ()):
        measures |= {f"gpu{place}": float(use.busy), f"gpu{place}_memory": _full(use)}
    return {name: value for name, value in measures.items() if value == value}  # noqa: PLR0124 - NaN is not


def _full(use: Use) -> float:
    return 100 * use.used / use.total if use.total else nan


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if value == value]  # noqa: PLR0124 - NaN is not
    return sum(known) / len(known) if known else nan


def visible(variable: str | None) -> list[str] | None:
    """Return numbers or names of the GPUs that a variable lets a process use; None for all.

    Those from the first one on that is nothing are not visible, as for the libraries themselves.

    >>> visible(None), visible(""), visible("1,GPU-12ab"), visible("0,-1,1")
    (None, [], ['1', 'GPU-12ab'], ['0'])
    """
    if variable is None:
        return None
    found: list[str] = []
    for word in map(str.strip, variable.split(",")):
        if not (word.isdecimal() or word.startswith(("GPU-", "MIG-"))):
            break
        found.append(word)
    return found


def chosen(names: Sequence[str], wanted: Sequence[str] | None) -> list[int]:
    """Return the places of the GPUs that are meant, by number or by what their name begins with.

    >>> chosen(["GPU-12ab", "GPU-34cd"], None), chosen(["GPU-12ab", "GPU-34cd"], ["GPU-34", "7"])
    ([0, 1], [1])
    """
    if wanted is None:
        return list(range(len(names)))
    found: list[int] = []
    for word in wanted:
        if word.isdecimal():
            found += [int(word)] if int(word) < len(names) else []
        else:
            found += [place for place, name in enumerate(names) if name.startswith(word)][:1]
    return found


# --- AMD ---


def _amd(drm: Path, wanted: list[str] | None) -> Iterator[Callable[[], Use]]:
    numbers = (card.name.removeprefix("card") for card in drm.glob("card*"))
    found = (drm / f"card{n}" / "device" for n in sorted(int(n) for n in numbers if n.isdecimal()))
    cards = [card for card in found if (card / "gpu_busy_percent").exists()]
    for place in chosen([_amd_name(card) for card in cards], wanted):
        yield partial(_use_of_card, cards[place])


def _use_of_card(card: Path) -> Use:
    names = ("gpu_busy_percent", "mem_info_vram_used", "mem_info_vram_total")
    return Use(*(_number(card / name) for name in names))


def _amd_name(card: Path) -> str:
    try:
        return f"GPU-{(card / 'unique_id').read_text('ascii').strip()}"
    except _MISSING:
        return ""


def _number(file: Path) -> float:
    try:
        return float(file.read_bytes())
    except _MISSING:  # a card that sleeps tells nothing
        return nan


# --- NVIDIA ---


class _Rates(ctypes.Structure):
    """What NVML calls `nvmlUtilization_t`."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    """What NVML calls `nvmlMemory_t`."""

    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


class _Nvml:
    """The few functions of NVML that are needed; 0 is what each returns if all is well."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self.call("Init_v2")

    def call(self, name: str, *args: object) -> None:
        """Call a function.

        Raises:
            OSError: It has failed, as with what a device does not have.
            AttributeError: This NVML has no such function.
        """
        if code := self._library[f"nvml{name}"](*args):
            raise OSError(f"nvml{name} gave {code}")

    def device(self, how: str, which: object) -> ctypes.c_void_p:
        """Return a device, by its number or its name."""
        device = ctypes.c_void_p()
        self.call(f"DeviceGetHandleBy{how}", which, ctypes.byref(device))
        return device

    def devices(self) -> list[ctypes.c_void_p]:
        """Return all devices, in the order of their slots."""
        count = ctypes.c_uint()
        self.call("DeviceGetCount_v2", ctypes.byref(count))
        return [self.device("Index_v2", ctypes.c_uint(place)) for place in range(count.value)]

    def name(self, device: ctypes.c_void_p) -> str:
        """Return the name that no other device has."""
        text = ctypes.create_string_buffer(_UUID_BYTES)
        self.call("DeviceGetUUID", device, text, ctypes.c_uint(_UUID_BYTES))
        return text.value.decode()

    def use(self, device: ctypes.c_void_p) -> Use:
        """Return what a device tells; a part of one does not tell how busy it is."""
        rates, memory = _Rates(gpu=0), _Memory()
        busy = used = total = nan
        with suppress(OSError):
            self.call("DeviceGetUtilizationRates", device, ctypes.byref(rates))
            busy = float(rates.gpu)
        with suppress(OSError):
            self.call("DeviceGetMemoryInfo", device, ctypes.byref(memory))
            used, total = float(memory.used), float(memory.total)
        return Use(busy, used, total)


def _nvidia(library: str, wanted: list[str] | None) -> list[Callable[[], Use]]:
    if wanted == []:
        return []  # and NVML, which may take long to start, is not asked
    nvml = _Nvml(library)
    parts = [word for word in wanted or () if word.startswith("MIG-")]
    if parts:  # CUDA lets a process have parts or wholes
        found = [nvml.device("UUID", word.encode()) for word in parts]
    else:
        all_of_them = nvml.devices()
        found = [all_of_them[n] for n in chosen(list(map(nvml.name, all_of_them)), wanted)]
    return [partial(nvml.use, device) for device in found]
