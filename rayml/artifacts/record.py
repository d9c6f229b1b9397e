"""What the journal keeps of an artifact: names, digests, sizes, a description; no bytes."""

from __future__ import annotations

import math
import sys
from datetime import date, datetime, time
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.store import Store

_SCHEME = "rayml://runs/"
_NAME_CHARACTERS = 250
_TEXT_CHARACTERS = 200


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One stored file of an artifact.

    Attributes:
        path: Where it lies inside the artifact, joined by slashes; it cannot lead out of a folder.
        digest: SHA-256 of its bytes, in lower-case hex.
        size: Bytes.
    """

    path: str
    digest: str
    size: int

    def __post_init__(self) -> None:
        _check_segments("file", self.path)


class ArtifactRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One artifact of a run, described. Its files were stored before, or stay elsewhere.

    Attributes:
        name: Unique within the run; slashes make folders.
        kind: `model`, `dataset`, `plot`, `table`, `file` or `checkpoint`.
        format: How the bytes are to be read, such as `parquet`, `skops` or `folder`.
        files: At least one.
        meta: What can be known without reading the bytes; strict JSON.
        run: The id of the run that logged it.
        created_at: Seconds since the epoch.
        reference: Where the bytes stay, a path or URI; empty if the store has them.
    """

    name: str
    kind: str
    format: str
    files: list[FileRecord]
    meta: dict[str, object]
    run: str = ""
    created_at: float = 0.0
    reference: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def needs_trust(self) -> bool:
        """Whether loading it runs code that it brings along, as far as its record tells."""
        runs_code = self.meta.get("untrusted_types") or self.meta.get("exported")
        return self.format in ("pickle", "mlflow") or bool(runs_code)

    @property
    def uri(self) -> str:
        """Its address, which `parse_uri` takes apart."""
        return f"{_SCHEME}{self.run}/{self.name}"


def check_name(name: str) -> None:
    """Accept plain segments joined by slashes, in any language, of at most 250 characters.

    Raises:
        SpecError: It is empty, too long, absolute, or has a segment that is not a plain name.
    """
    if not isinstance(name, str):
        raise SpecError(f"artifact name {name!r} is not a string; pass the name, then the object")
    if len(name) > _NAME_CHARACTERS:
        raise SpecError(
            f"artifact name {name[:40]!r}… has {len(name)} characters; "
            f"use at most {_NAME_CHARACTERS}"
        )
    _check_segments("artifact", name)


def parse_uri(uri: str) -> tuple[str, str]:
    """Return the run and the name of an artifact.

    >>> parse_uri("rayml://runs/7f3c/plots/roc curve")
    ('7f3c', 'plots/roc curve')

    Raises:
        SpecError: It is not the URI of an artifact.
    """
    run, slash, name = uri.removeprefix(_SCHEME).partition("/")
    if not uri.startswith(_SCHEME) or not run or not slash:
        raise SpecError(f"{uri!r} is not the URI of an artifact; write {_SCHEME}<run>/<name>")
    _check_segments("run", run)
    check_name(name)
    return run, name


def add_file(store: Store, path: Path, name: str) -> FileRecord:
    """Store a file's bytes and return its record under `name`; the bytes are read once."""
    _check_segments("file", name)
    try:
        source = path.open("rb")
    except OSError as exc:
        raise SpecError(f"file {str(path)!r} cannot be read: {exc.strerror}; mend it") from exc
    with source:
        blob = store.add(source)
    return FileRecord(path=name, digest=blob.digest, size=blob.size)


def is_a(value: object, type_name: str) -> bool:
    """Whether the value is of a type such as `pandas.DataFrame`, without importing its library.

    A library that nobody has imported has no objects.

    >>> is_a(1, "builtins.int"), is_a(1, "pandas.DataFrame")
    (True, False)
    """
    module, _, name = type_name.rpartition(".")
    loaded = sys.modules.get(module)
    return loaded is not None and name in vars(loaded) and isinstance(value, vars(loaded)[name])


def type_name(value: object) -> str:
    """Return the name of the value's type as errors and lineage show it.

    >>> type_name(1), type_name(SpecError("x"))
    ('int', 'rayml.errors.SpecError')
    """
    kind = type(value)
    plain = kind.__module__ == "builtins"
    return kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"


def first_line(error: BaseException) -> str:
    r"""Return what an error says, without the stack that some libraries write below it.

    >>> first_line(ValueError("no such column\n  at tree.cc:1")), first_line(KeyError())
    ('ValueError: no such column', 'KeyError')
    """
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def json_safe(value: object) -> object:
    """Return the value as strict JSON: NaN is None, infinities and all that JSON lacks are text.

    >>> json_safe({"a": [float("nan"), float("-inf"), 1, True], 2: None})
    {'a': [None, '-inf', 1, True], '2': None}
    """
    if is_a(value, "numpy.generic"):
        value = value.item()  # type: ignore[attr-defined]
    match value:
        case None | bool():
            return value
        case int() | float():
            return _json_number(value)
        case list() | tuple():
            return [json_safe(item) for item in value]
        case dict():
            return {_short(str(key)): json_safe(item) for key, item in value.items()}
        case datetime() | date() | time():
            return value.isoformat()
    return _short(repr(value) if isinstance(value, bytes) else str(value))


def _json_number(value: float) -> float | str | None:
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if math.isnan(value):
        return None
    return float(value) if math.isfinite(value) else str(float(value))


def _short(text: str) -> str:
    cut = text if len(text) <= _TEXT_CHARACTERS else text[: _TEXT_CHARACTERS - 1] + "…"
    return cut.encode("utf-8", "replace").decode()


def _check_segments(what: str, name: str) -> None:
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise SpecError(f"{what} name {name!r} is not plain; join plain names with single slashes")
    if "\\" in name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise SpecError(
            f"{what} name {name!r} has a backslash or a control character; use letters instead"
        )
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise SpecError(f"{what} name {name!r} is not Unicode; rename it")
