"""Plots, as data and picture: matplotlib's, plotly's and altair's."""

from __future__ import annotations

import json
import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayml.artifacts.file import load_file
from rayml.artifacts.plot_data import figure_data
from rayml.artifacts.plot_text import altair_data, plot_lines, plotly_data
from rayml.artifacts.record import (
    ArtifactRecord,
    FileRecord,
    add_file,
    check_name,
    first_line,
    is_a,
    json_safe,
    type_name,
)
from rayml.errors import SpecError

if TYPE_CHECKING:
    from rayml.store import Store

_logger = logging.getLogger("rayml")
_DPI = 144


def save_plot(store: Store, name: str, figure: object) -> ArtifactRecord:
    """Store a figure and return its record; the figure stays open and as it was.

    Args:
        store: Where the bytes go; nothing is recorded unless all of them got there.
        name: The artifact's name.
        figure: A matplotlib Figure, Axes, or what holds one as `.figure` (as seaborn's grids
            do), a plotly Figure, or an altair chart.

    Raises:
        SpecError: It is none of these.
    """
    check_name(name)
    with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
        if is_a(figure, "plotly.basedatatypes.BaseFigure"):
            return _save_plotly(store, name, figure, Path(folder))
        if is_a(figure, "altair.TopLevelMixin"):
            return _save_altair(store, name, figure, Path(folder))
        if (drawn := _matplotlib_figure(figure)) is not None:
            return _save_matplotlib(store, name, drawn, Path(folder))
    raise SpecError(
        f"plot {name!r} is a {type_name(figure)}; "
        "pass a matplotlib or plotly figure, or an altair chart"
    )


def load_plot(store: Store, record: ArtifactRecord) -> Any:  # noqa: ANN401
    """Return a plotly Figure, an altair chart, or the bytes of a matplotlib figure's PNG."""
    content = load_file(store, record)
    if record.format == "plotly":
        from plotly.io import from_json  # noqa: PLC0415

        return from_json(content.decode())
    if record.format == "altair":
        from altair import Chart  # noqa: PLC0415

        return Chart.from_json(content.decode())
    return content


def plot_text(store: Store, record: ArtifactRecord) -> list[str]:
    """Return a plot as lines for a terminal; of one that is a picture alone, none.

    Raises:
        ImportError: It is a plotly figure, and plotly is not installed.
    """
    if record.format == "plotly":
        return plot_lines(plotly_data(load_plot(store, record)))
    if record.format == "altair":
        return plot_lines(altair_data(json.loads(load_file(store, record))))
    places = [place for place, file in enumerate(record.files) if file.path == "data.json"]
    return plot_lines(json.loads(load_file(store, record, places[0]))) if places else []


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
    try:
        files.append(_add_text(store, folder, "data.json", json.dumps(figure_data(figure))))
    except (AttributeError, TypeError, ValueError) as exc:  # of artists that others have made
        _logger.warning("plot %r keeps its pictures alone: %s", name, first_line(exc))
    width, height = (round(inches * _DPI) for inches in figure.get_size_inches())
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    title = next(filter(None, titles), None)
    meta = {"width": width, "height": height, "title": json_safe(title)}
    return ArtifactRecord(name=name, kind="plot", format="matplotlib", files=files, meta=meta)


def _save_plotly(store: Store, name: str, figure: Any, folder: Path) -> ArtifactRecord:  # noqa: ANN401
    layout = figure.layout
    meta = {
        "width": json_safe(layout.width),
        "height": json_safe(layout.height),
        "title": json_safe(layout.title.text),
    }
    page = figure.to_html(include_plotlyjs="directory", div_id="plot")
    files = _add_both(store, folder, figure.to_json(), page)
    files.append(_add_library(store))
    return ArtifactRecord(name=name, kind="plot", format="plotly", files=files, meta=meta)


def _save_altair(store: Store, name: str, chart: Any, folder: Path) -> ArtifactRecord:  # noqa: ANN401
    """Store a chart: its page loads its library from the web, and its picture needs vl-convert."""
    import altair as alt  # noqa: PLC0415 - whoever has a chart has loaded it

    draws = find_spec("vl_convert") is not None
    with alt.data_transformers.disable_max_rows():
        text, page = chart.to_json(), chart.to_html()
        if draws:
            chart.save(folder / "plot.png", ppi=_DPI)
    told = json.loads(text)
    title = told.get("title")
    meta = {
        "width": json_safe(told.get("width")),
        "height": json_safe(told.get("height")),
        "title": json_safe(title.get("text") if isinstance(title, dict) else title),
    }
    files = _add_both(store, folder, text, page)
    if draws:
        files.append(add_file(store, folder / "plot.png", "plot.png"))
    return ArtifactRecord(name=name, kind="plot", format="altair", files=files, meta=meta)


def _add_library(store: Store) -> FileRecord:
    """Store the library that a page of plotly's needs, beside it: once in a store, by content."""
    import plotly  # noqa: PLC0415 - whoever has a figure has loaded it

    path = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return add_file(store, path, path.name)


def _add_both(store: Store, folder: Path, text: str, page: str) -> list[FileRecord]:
    """Store what a plot is, and a page that shows it."""
    return [
        _add_text(store, folder, "plot.json", text),
        _add_text(store, folder, "plot.html", page),
    ]


def _add_text(store: Store, folder: Path, name: str, text: str) -> FileRecord:
    path = folder / name
    path.write_text(text, "utf-8")
    return add_file(store, path, name)
