"""What a run leaves behind: models, datasets, plots, tables and files.

The bytes lie in the store under their own digest; the journal keeps an `ArtifactRecord`. Each kind
has a module that saves and loads it. None imports pandas, pyarrow or Ray before it is used.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayml.artifacts.file import copy_files, is_folder, load_file, local_copy
from rayml.artifacts.record import ArtifactRecord, FileRecord, check_name, parse_uri
from rayml.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from ray.data import Dataset

    from rayml.store import Store

__all__ = ["Artifact", "ArtifactRecord", "FileRecord", "check_name", "digest_of", "parse_uri"]


class Artifact:
    """One artifact of a run. Making it reads nothing; all that is read is checked by its digest.

    Every method that reads raises `ArtifactCorrupt` if the store holds other bytes than were
    logged, `NotFound` if it holds none, and `StoreUnreachable` if it does not answer.

    Attributes:
        record: What the journal keeps of it.
    """

    def __init__(self, record: ArtifactRecord, store: Store) -> None:
        """Take the record, and the store that holds the bytes."""
        self.record = record
        self._store = store
        self._model: Any = None

    def __reduce__(self) -> tuple[type[Artifact], tuple[ArtifactRecord, Store]]:
        return Artifact, (self.record, self._store)

    @property
    def store(self) -> Store:
        """What holds its bytes."""
        return self._store

    @property
    def name(self) -> str:
        """Its name, unique within the run."""
        return self.record.name

    @property
    def kind(self) -> str:
        """`model`, `dataset`, `plot`, `table`, `file` or `checkpoint`."""
        return self.record.kind

    @property
    def format(self) -> str:
        """How the bytes are written, such as `parquet` or `skops`."""
        return self.record.format

    @property
    def size(self) -> int:
        """Bytes, in the store or where they stay."""
        return self.record.size

    @property
    def uri(self) -> str:
        """`rayml://runs/<run>/<name>`, by which any process with the same store finds it again."""
        return self.record.uri

    @property
    def needs_trust(self) -> bool:
        """Whether `load` takes `trusted=True`, as far as is known without reading it."""
        return self.record.needs_trust

    @property
    def reference(self) -> str:
        """Where its bytes stay, a path or URI; empty if the store has them."""
        return self.record.reference

    @property
    def meta(self) -> dict[str, Any]:
        """What is known without reading the bytes, such as `schema` and `statistics`."""
        return self.record.meta

    @property
    def run_id(self) -> str:
        """The run that logged it."""
        return self.record.run

    @property
    def digest(self) -> str:
        """SHA-256 of the file; of a folder's, of their sorted lines `<path> <digest>`."""
        return digest_of(self.record)

    def load(self, trusted: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        """Return what was logged, as near as its format allows.

        A dataset or table is a pandas DataFrame, a model its library's own object, a plotly or
        altair plot the figure or chart, a matplotlib plot its PNG as bytes, a file its bytes, and
        a folder the path of a copy. A PyTorch model is its exported program, or without one its
        state dict.

        Args:
            trusted: Run the code that a pickled or exported model brings along, or a model's own
                types.

        Raises:
            SpecError: The model would run code that nobody said to trust, or a package that it
                needs is missing.
        """
        if self.kind in ("dataset", "table"):
            return self.to_pandas()
        if self.kind == "model":
            from rayml.artifacts.model import load_model  # noqa: PLC0415

            return load_model(self._store, self.record, trusted=trusted)
        if self.kind == "plot":
            from rayml.artifacts.plot import load_plot  # noqa: PLC0415

            return load_plot(self._store, self.record)
        return self.path() if is_folder(self.record) else load_file(self._store, self.record)

    def predict(self, data: object, *, trusted: bool = False) -> Any:  # noqa: ANN401
        """Return what a model says of some rows: the same call whatever library it is of.

        The first call loads the model, and later ones use it again.

        Args:
            data: A DataFrame or a numpy array. With a signature, a DataFrame's columns are found
                by name, in any order and among others.
            trusted: See `load`.

        Returns:
            A numpy array with a row for each; a tuple or dict of them if the model gives several.

        Raises:
            SpecError: It is no model, or one that cannot be loaded or predicts nothing, or the
                rows do not fit its signature.
        """
        from rayml.artifacts.model import predict  # noqa: PLC0415

        if self.kind != "model":
            raise SpecError(f"artifact {self.name!r} is a {self.kind}, no model; use load()")
        if self._model is None:
            self._model = self.load(trusted)
        return predict(self.record, self._model, data)

    def to_text(self) -> list[str]:
        """Return a plot as lines for a terminal: the course of each series, and its ends.

        Raises:
            SpecError: It is no plot, or one of plotly's, which is not installed.
        """
        from rayml.artifacts.plot import plot_text  # noqa: PLC0415

        if self.kind != "plot":
            raise SpecError(f"artifact {self.name!r} is a {self.kind}, no plot; use load()")
        try:
            return plot_text(self._store, self.record)
        except ImportError as exc:
            raise SpecError(
                f"plot {self.name!r} is one of plotly's, which is not installed; "
                "pip install 'rayml[plots]'"
            ) from exc

    def to_pandas(self) -> pd.DataFrame:
        """Return a dataset or table as pandas, with the index it was logged with."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_arrow(self) -> pa.Table:
        """Return a dataset or table as Arrow."""
        from rayml.artifacts.dataset import read_table  # noqa: PLC0415

        self._check_rows()
        return read_table(self._store, self.record)

    def to_ray(self) -> Dataset:
        """Return a dataset or table as a Ray dataset; one part at a time is held here."""
        from rayml.artifacts.dataset import ray_dataset, read_tables  # noqa: PLC0415

        self._check_rows()
        return ray_dataset(read_tables(self._store, self.record))

    def path(self) -> Path:
        """Return a local copy, checked: the file, or a folder if there are several.

        It is made once in each process and removed when the process ends. Do not change it; to
        keep it, use `download`.
        """
        return local_copy(self._store, self.record, self.digest)

    def download(self, target: str | Path) -> Path:
        """Copy the file, or folder of files, to a new path, whole or not at all.

        Raises:
            SpecError: The path exists; nothing is ever overwritten.
        """
        path = Path(target).expanduser().absolute()
        if path.exists() or path.is_symlink():
            raise SpecError(f"{str(path)!r} exists already; choose a path that does not")
        return copy_files(self._store, self.record, path)

    def _check_rows(self) -> None:
        if self.kind not in ("dataset", "table"):
            raise SpecError(f"artifact {self.name!r} is a {self.kind} without rows; use load()")

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r}: {self._summary()}; {self.uri}>"

    def _summary(self) -> str:
        size = human_bytes(self.size)
        if self.kind in ("dataset", "table"):
            return f"{self.meta['rows']} rows × {self.meta['columns']} columns, {size}"
        if self.kind == "model":
            return f"{self.meta['class']}, {self.format}, {size}"
        where = f" at {self.reference}" if self.reference else ""
        return f"{self.format}, {size}{where}"

    def _page(self) -> str:
        """Return a plot's page with the library that lies beside it, which plotly's has."""
        page = load_file(self._store, self.record, 1).decode()
        for place, file in enumerate(self.record.files):
            if file.path.endswith(".js"):
                library = load_file(self._store, self.record, place).decode()
                page = page.replace(f' src="{file.path}">', f">{library}")
        return page

    def _repr_html_(self) -> str:
        head = f"<p><b>{escape(self.name)}</b> ({self.kind}): {escape(self._summary())}</p>"
        if self.kind in ("dataset", "table"):
            return head + _preview_html(self.meta)
        if self.format == "matplotlib":
            image = base64.b64encode(load_file(self._store, self.record)).decode()
            return head + f'<img style="max-width:100%" src="data:image/png;base64,{image}">'
        if self.kind == "plot" and len(self.record.files) > 1:
            page = escape(self._page())
            # Of its own origin: whatever a page of somebody else's does, it does in there.
            frame = 'sandbox="allow-scripts" style="width:100%;height:480px;border:0"'
            return head + f'<iframe {frame} srcdoc="{page}"></iframe>'
        return head + f"<p><code>{escape(self.uri)}</code></p>"


def digest_of(record: ArtifactRecord) -> str:
    """Return an artifact's digest: see `Artifact.digest`."""
    if not is_folder(record):
        return record.files[0].digest
    lines = sorted(f"{file.path} {file.digest}\n" for file in record.files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def human_bytes(size: int) -> str:
    """Return a size for people.

    >>> human_bytes(999), human_bytes(5_636_304), human_bytes(2**40)
    ('999 B', '5.4 MiB', '1.0 TiB')
    """
    if size < 1024:
        return f"{size} B"
    value, units = size / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.1f} {units[0]}"


def _preview_html(meta: dict[str, Any]) -> str:
    types = {column["name"]: column["type"] for column in meta["schema"]}
    head = "".join(
        f"<th>{escape(name)}<br><small>{escape(types[name])}</small></th>"
        for name in meta["preview"]["columns"]
    )
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(cell))}</td>" for cell in row) + "</tr>"
        for row in meta["preview"]["rows"]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(value: object) -> str:
    return "" if value is None else str(value)
