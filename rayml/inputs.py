"""What a job is given: paths, URIs, artifacts and tables, and how its code gets them."""

from __future__ import annotations

import os
import re
import tempfile
import types
from contextlib import suppress
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from glob import glob
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin
from urllib.parse import unquote, urlsplit

from rayml.artifacts import Artifact, digest_of, parse_uri
from rayml.artifacts.dataset import arrow_table, ray_dataset, ray_rows, source_of
from rayml.artifacts.file import local_folder, refer_to
from rayml.artifacts.record import type_name
from rayml.artifacts.reference import read_web
from rayml.errors import NotFound, RaymlError, SpecError, suggestion
from rayml.ranks import ALONE, Rank
from rayml.spec import InputRecord
from rayml.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    import pyarrow as pa
    from ray.data import Dataset

    from rayml.store import Store

_WEB_SCHEMES = ("http", "https")
_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", *_WEB_SCHEMES)
_TEXT_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_FORMATS = (*_TEXT_FORMATS, ".parquet", ".feather", ".arrow")
_PACKED = (".gz", ".zip")
_WILDCARD = re.compile(r"[*?[]")
# What is read in a moment, for its digest.
_READ_BYTES = 32 * 1024 * 1024
_READ_FILES = 1000

__all__ = ["Input", "InputRecord", "convert", "describe_input", "is_input_form"]


def describe_input(name: str, value: object, folder: Path) -> InputRecord:
    """Return the record of an input; only a file or folder of at most 32 MiB is read for it.

    Args:
        name: The name that the job knows it by.
        value: A path or `file://` URI, an `s3:// gs:// az:// http(s)://` URI, an artifact or its
            URI, or any object in memory. A path or a bucket's URI may be a pattern, `day-*.csv`
            or `**/*.csv`: then it is a folder with the files that fit it.
        folder: What relative paths are relative to.

    Raises:
        SpecError: There is no such file, or rayml cannot read from the URI's scheme.
    """
    if isinstance(value, Artifact):
        digest, size = value.digest, value.size
        return InputRecord(name=name, uri=value.uri, kind="artifact", digest=digest, size=size)
    if isinstance(value, Path):
        return _describe_path(name, folder / value.expanduser())
    if not isinstance(value, str):
        return InputRecord(name=name, uri=f"memory://{type_name(value)}", kind="memory")
    scheme, is_uri, _ = value.partition("://")
    if not is_uri:
        if not value:
            raise SpecError(f"input {name!r} is an empty string; give a path or a URI")
        return _describe_path(name, folder / Path(value).expanduser())
    if scheme == "file":
        return _describe_path(name, Path(unquote(urlsplit(value).path)))
    return _describe_uri(name, scheme, value)


class Input:
    """One input of a job, which is read when it is asked for, and fetched at most once."""

    def __init__(
        self,
        record: InputRecord,
        value: Any = None,  # noqa: ANN401
        find_artifact: Callable[[str], Artifact] | None = None,
        rank: Rank = ALONE,
    ) -> None:
        """Take the record, the object if it came with the call, and how to find an artifact.

        `rank` is which of a job's workers reads it.
        """
        self._rank = rank
        self.record = record
        self.value = value
        self._find_artifact = find_artifact

    def __repr__(self) -> str:
        return f"<input {self.record.name!r}: {self.uri}>"

    @property
    def uri(self) -> str:
        """An absolute path, a URI, or `memory://<type>`."""
        return self.record.uri

    @property
    def artifact(self) -> Artifact | None:
        """The logged artifact that it names, which is looked up; None for anything else.

        Raises:
            SpecError: Nobody said which store has it.
            NotFound: The store has no such run, or the run no such artifact.
        """
        if self.record.kind != "artifact":
            return None
        if isinstance(self.value, Artifact):
            return self.value
        if self._find_artifact is None:
            raise SpecError(f"input {self.record.name!r} is {self.uri}; say which store has it")
        return self._find_artifact(self.uri)

    def path(self) -> Path:
        """Return a local file or folder: the input, or this process's copy. Do not change it.

        Raises:
            SpecError: It is an object in memory.
            NotFound: There is nothing at its path or URI.
            ArtifactCorrupt: It is an artifact with other bytes than were logged.
        """
        if self.record.kind == "memory":
            raise SpecError(
                f"input {self.record.name!r} is in memory without a path; use its value"
            )
        if (artifact := self.artifact) is not None:
            return artifact.path()
        if self.record.kind == "uri":
            return self._fetched
        path = Path(self.uri)
        if not path.exists() and _WILDCARD.search(self.uri):
            return self._linked
        if not path.exists():
            raise NotFound(
                f"input {self.record.name!r}: {self.uri} is not on the machine that runs the job; "
                "put it on object storage and pass its URI"
            )
        return path

    def to_pandas(self) -> pd.DataFrame:
        """Return the input as a pandas DataFrame.

        Files are read by suffix: .csv, .tsv, .json (records), .jsonl and .ndjson, all of them also
        .gz or .zip; .parquet, or a folder of Parquet files; .feather and .arrow.

        Raises:
            SpecError: It is no table, or its suffix says nothing.
        """
        if source_of(self.value) == "pandas":
            return cast("pd.DataFrame", self.value)
        if self.record.kind in ("path", "uri") and self._format in _TEXT_FORMATS:
            return _read_text(self.path(), self._format)
        return cast("pd.DataFrame", self.to_arrow().to_pandas())

    def to_arrow(self) -> pa.Table:
        """Return the input as a pyarrow Table; text files are read as `to_pandas` reads them."""
        if self.record.kind == "memory":
            return arrow_table(self.record.name, self.value)
        if (artifact := self.artifact) is not None:
            return artifact.to_arrow()
        if self._format in _TEXT_FORMATS:
            return arrow_table(self.record.name, self.to_pandas())
        return _read_arrow(self.path(), self._format)

    def to_ray(self) -> Dataset:
        """Return the input as a Ray dataset; of Parquet, one row group at a time is held here."""
        if source_of(self.value) == "ray":
            return cast("Dataset", self.value)
        if (artifact := self.artifact) is not None:
            return artifact.to_ray()
        if self.record.kind != "memory" and self._format == ".parquet":
            return ray_dataset(_row_groups(self.path()))
        return ray_dataset([self.to_arrow()])

    def shard(self) -> pa.Table:
        """Return this rank's part of the rows, as many as any other rank's.

        They are neighbours; the few that are left over go to nobody. Of a Ray dataset only these
        are fetched.
        """
        rank = self._rank.now()
        if source_of(self.value) == "ray":
            rows = self.value.count() // rank.world_size
            return ray_rows(self.value, rank.rank * rows, (rank.rank + 1) * rows)
        table = self.to_arrow()
        rows = table.num_rows // rank.world_size
        return table.slice(rank.rank * rows, rows)

    @cached_property
    def _fetched(self) -> Path:
        folder = Path(tempfile.mkdtemp(dir=local_folder()))
        scheme = self.uri.partition("://")[0]
        if scheme in _WEB_SCHEMES:
            return _fetch_web(self.uri, folder)
        is_pattern = _WILDCARD.search(self.uri) is not None
        return (_fetch_objects if is_pattern else _fetch_object)(self.uri, folder)

    @cached_property
    def _linked(self) -> Path:
        """A folder of links to the files that fit a pattern."""
        folder = Path(tempfile.mkdtemp(dir=local_folder()))
        parent, _ = _split_pattern(self.uri)
        for path in map(Path, _matches(self.uri)):
            link = folder / path.relative_to(parent)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        return folder

    @property
    def _format(self) -> str:
        """The suffix that says how to read it, without that of a packer."""
        path = self.path()
        if path.is_dir():
            return ".parquet"
        suffixes = [suffix.lower() for suffix in path.suffixes]
        packed = suffixes[-1:] and suffixes[-1] in _PACKED
        suffix = suffixes[-2] if packed and len(suffixes) > 1 else "".join(suffixes[-1:])
        if suffix not in (_TEXT_FORMATS if packed else _FORMATS):
            raise SpecError(
                f"input {self.record.name!r}: the name {path.name!r} does not say how to read it; "
                f"use .path(), or a name that ends in one of {' '.join(_FORMATS)}"
            )
        return suffix


def convert(given: Input, annotation: object) -> Any:  # noqa: ANN401
    """Return an input in the form that a parameter's annotation asks for.

    pandas.DataFrame, pyarrow.Table, polars.DataFrame, ray.data.Dataset and pyspark.sql.DataFrame
    are read, pathlib.Path is a local copy, str the path or URI, bytes a file's content;
    rayml.Input is the input, which has all of these forms; `X | None` is as X. Under any other
    annotation, or none, what came in memory is handed over as it is, and all else is the `Input`.

    Args:
        given: The input.
        annotation: The annotation itself, or its text; None if there is none.

    Raises:
        SpecError: The input has no such form.
    """
    if (read := _FORMS.get(_annotated(annotation))) is not None:
        return read(given)
    return given.value if given.record.kind == "memory" else given


def is_input_form(annotation: object) -> bool:
    """Tell whether a parameter with this annotation takes data rather than a plain value."""
    plain = ("builtins.str", "str", "builtins.bytes", "bytes")
    name = _annotated(annotation)
    return name in _FORMS and name not in plain


def _describe_path(name: str, path: Path) -> InputRecord:
    path = path.absolute()
    if not path.exists() and _matches(str(path)):
        return InputRecord(name=name, uri=str(path), kind="path")
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, siblings, n=1)
        way_out = suggestion(path.name, near) if near else "check the path"
        raise SpecError(f"input {name!r}: there is no {str(path)!r}; {way_out}")
    size = path.stat().st_size if path.is_file() else None
    return InputRecord(name=name, uri=str(path), kind="path", size=size, digest=_digest(path))


def _digest(path: Path) -> str | None:
    """Return the digest that this would have as an artifact, by which lineage knows it."""
    # It cannot be read, or holds what is no file, or changes: the job will see.
    with suppress(RaymlError, OSError, UnicodeError):
        sizes = list(islice(_sizes(path), _READ_FILES + 1))
        if len(sizes) <= _READ_FILES and 0 < sum(sizes) <= _READ_BYTES:
            return digest_of(refer_to("input", path))
    return None


def _sizes(path: Path) -> Iterator[int]:
    """Yield the size of each file; a folder of millions is not read to its end for the first."""
    if path.is_file():
        yield path.stat().st_size
    elif path.is_dir():
        with os.scandir(path) as entries:
            for entry in entries:
                yield from _sizes(Path(entry)) if entry.is_dir() else [entry.stat().st_size]


def _describe_uri(name: str, scheme: str, uri: str) -> InputRecord:
    if scheme == "rayml":
        parse_uri(uri)
        return InputRecord(name=name, uri=uri, kind="artifact")
    if scheme not in _SCHEMES:
        known = suggestion(scheme, ("file", "rayml", *_SCHEMES))
        raise SpecError(f"input {name!r}: rayml cannot read from {scheme!r} URIs; {known}")
    if urlsplit(uri).password:
        raise SpecError(
            f"input {name!r}: its URI holds a password, which the run's record would keep; "
            "set the credentials in the environment"
        )
    return InputRecord(name=name, uri=uri, kind="uri")


def _annotated(annotation: object) -> str:
    """Return the name of the annotated type, without a `| None`."""
    if isinstance(annotation, str):
        return annotation.strip().removesuffix("| None").strip()
    if get_origin(annotation) in (Union, types.UnionType):
        named = [one for one in get_args(annotation) if one is not types.NoneType]
        annotation = named[0] if len(named) == 1 else None
    if not isinstance(annotation, type):
        return ""
    return f"{annotation.__module__}.{annotation.__qualname__}"


def _itself(given: Input) -> Input:
    return given


def _polars(given: Input) -> object:
    import polars as pl  # noqa: PLC0415

    is_polars = isinstance(given.value, pl.DataFrame)
    return given.value if is_polars else pl.from_arrow(given.to_arrow())


def _spark(given: Input) -> object:
    from pyspark.sql import SparkSession  # noqa: PLC0415

    session = SparkSession.getActiveSession()
    if session is None:
        raise SpecError(
            f"input {given.record.name!r} is to be a Spark DataFrame and the job has no session; "
            "give it engine=rayml.Spark()"
        )
    return session.createDataFrame(given.to_pandas())


def _text(given: Input) -> str:
    if given.record.kind == "memory":
        raise SpecError(
            f"input {given.record.name!r} is in memory and no path; annotate it with its own type"
        )
    return given.uri


def _bytes(given: Input) -> bytes:
    if isinstance(given.value, bytes):
        return given.value
    path = given.path()
    if path.is_dir():
        raise SpecError(
            f"input {given.record.name!r} is a folder, not bytes; annotate it with Path"
        )
    return path.read_bytes()


def _read_text(path: Path, suffix: str) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    if suffix in (".csv", ".tsv"):
        return pd.read_csv(path, sep="\t" if suffix == ".tsv" else ",")
    # pandas would else turn strings that look like numbers into them: "007" into 7.
    return pd.read_json(path, orient="records", lines=suffix != ".json", dtype=False)


def _read_arrow(path: Path, suffix: str) -> pa.Table:
    import pyarrow.parquet as pq  # noqa: PLC0415
    from pyarrow import feather  # noqa: PLC0415

    return pq.read_table(path) if suffix == ".parquet" else feather.read_table(path)


def _row_groups(path: Path) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq  # noqa: PLC0415

    for part in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        with pq.ParquetFile(part) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number)


def _fetch_object(uri: str, folder: Path) -> Path:
    parent, _, name = uri.rstrip("/").rpartition("/")
    store = open_store(parent)
    keys = store.list(f"{name}/") if store.size(name) is None else []
    for key in keys:
        _write_chunks(store, key, folder / key)
    if not keys:
        _write_chunks(store, name, folder / name)
    return folder / name


def _fetch_objects(uri: str, folder: Path) -> Path:
    """Fetch the objects that fit a pattern, by their names below the part that is none."""
    parent, pattern = _split_pattern(uri)
    store = open_store(parent)
    keys = [key for key in store.list("") if _fits(key, pattern)]
    if not keys:
        raise NotFound(f"nothing in {parent} fits {pattern!r}; check the URI")
    for key in keys:
        _write_chunks(store, key, folder / key)
    return folder


def _split_pattern(uri: str) -> tuple[str, str]:
    """Return the folder or prefix that is the same for all that fit, and the rest.

    >>> _split_pattern("s3://bucket/days/2024-*/part.csv")
    ('s3://bucket/days', '2024-*/part.csv')
    """
    found = _WILDCARD.search(uri)
    slash = uri.rfind("/", 0, found.start() if found else len(uri))
    return uri[:slash], uri[slash + 1 :]


def _fits(key: str, pattern: str) -> bool:
    """Tell whether a key fits a pattern, in which only `**` stands for several folders.

    >>> _fits("a/b.csv", "*/*.csv"), _fits("a/b.csv", "*.csv"), _fits("a/b.csv", "**/*.csv")
    (True, False, True)
    """
    if "**" in pattern:
        return fnmatchcase(key, pattern.replace("**/", "*"))
    return key.count("/") == pattern.count("/") and PurePosixPath(key).match(pattern)


def _matches(pattern: str) -> list[str]:
    """Return the files that fit a pattern, in order."""
    if not _WILDCARD.search(pattern):
        return []
    return sorted(path for path in glob(pattern, recursive=True) if Path(path).is_file())  # noqa: PTH207 - `**` of an absolute path


def _write_chunks(store: Store, key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for chunk in store.chunks(key):
            file.write(chunk)


def _fetch_web(uri: str, folder: Path) -> Path:
    path = folder / (unquote(urlsplit(uri).path).rpartition("/")[2] or "index.html")
    with path.open("wb") as file:
        for chunk in read_web(uri):
            file.write(chunk)
    return path


# By the names under which a type is written or defined: comparing names imports no library.
_FORMS: dict[str, Callable[[Input], object]] = {
    **dict.fromkeys(
        ("pandas.DataFrame", "pandas.core.frame.DataFrame", "pd.DataFrame"), Input.to_pandas
    ),
    **dict.fromkeys(("pyarrow.Table", "pyarrow.lib.Table", "pa.Table"), Input.to_arrow),
    **dict.fromkeys(
        ("polars.DataFrame", "polars.dataframe.frame.DataFrame", "pl.DataFrame"), _polars
    ),
    **dict.fromkeys(("pyspark.sql.DataFrame", "pyspark.sql.dataframe.DataFrame"), _spark),
    **dict.fromkeys(("ray.data.Dataset", "ray.data.dataset.Dataset"), Input.to_ray),
    **dict.fromkeys(("rayml.inputs.Input", "rayml.Input", "Input"), _itself),
    **dict.fromkeys(("pathlib.Path", "pathlib._local.Path", "Path"), Input.path),
    **dict.fromkeys(("builtins.str", "str"), _text),
    **dict.fromkeys(("builtins.bytes", "bytes"), _bytes),
}
