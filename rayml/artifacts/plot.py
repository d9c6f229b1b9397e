"""Plots: a matplotlib figure as PNG and SVG, a plotly figure as its JSON."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayml.artifacts.file import load_file
from rayml.artifacts.record import ArtifactRecord, add_file, check_name, is_a, json_safe, type_name
from rayml.errors import SpecError

if TYPE_CHECKING:
    from rayml.store import Store

_DPI = 144


def save_plot(store: Store, name: str, figure: object) -> ArtifactRecord:
    """Store a figure and return its record; the figure stays open and as it was.

    Args:
        store: Where the bytes go; nothing is recorded unless all of them got there.
        name: The artifact's name.
        figure: A matplotlib Figure, Axes, or what holds one as `.figure` (as seaborn's grids
            do), or a plotly Figure.

    Raises:
        SpecError: It is none of these.
    """
    check_name(name)
    with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
        if is_a(figure, "plotly.basedatatypes.BaseFigure"):
            return _save_plotly(store, name, figure, Path(folder))
        if (drawn := _matplotlib_figure(figure)) is not None:
            return _save_matplotlib(store, name, drawn, Path(folder))
    raise SpecError(f"plot {name!r} is a {type_name(figure)}; pass a matplotlib or plotly figure")


def load_plot(store: Store, record: ArtifactRecord) -> Any:  # noqa: ANN401
    """Return a plotly Figure, or the bytes of a matplotlib figure's PNG."""
    content = load_file(store, record)
    if record.format != "plotly":
        return content
    from plotly.io import from_json  # noqa: PLC0415

    return from_json(content.decode())


def _matplotlib_figure(value: Any) -> Any:  # noqa: ANN401
    """Return the figure that the value is or belongs to, or None."""
    for _ in range(3):  # a grid's axes may be in a subfigure, which is in the figure
        if is_a(value, "matplotlib.figure.Figure"):
            return value
        value = getattr(value, "figure", None)
    return None


def _save_matplotlib(store: Store, name: str, figure: Any, folder: Path) -> ArtifactRecord:  # noqa: ANN401
    files = []
    for kind in ("png", "svg"):
        path = folder / f"plot.{kind}"
        # Without the date, the same figure is the same bytes more often.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(path, format=kind, dpi=_DPI, metadata=metadata)
        files.append(add_file(store, path, path.name))
    width, height = (round(inches * _DPI) for inches in figure.get_size_inches())
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    title = next(filter(None, titles), None)
    meta = {"width": width, "height": height, "title": json_safe(title)}
    return ArtifactRecord(name=name, kind="plot", format="matplotlib", files=files, meta=meta)


def _save_plotly(store: Store, name: str, figure: Any, folder: Path) -> ArtifactRecord:  # noqa: ANN401
    path = folder / "plot.json"
    path.write_text(figure.to_json(), "utf-8")
    layout = figure.layout
    meta = {
        "width": json_safe(layout.width),
        "height": json_safe(layout.height),
        "title": json_safe(layout.title.text),
    }
    files = [add_file(store, path, path.name)]
    return ArtifactRecord(name=name, kind="plot", format="plotly", files=files, meta=meta)
