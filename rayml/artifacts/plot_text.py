"""A plot as lines of text, for terminals: each series as a row of blocks, with its least and most.

It tells the course of a curve; whoever needs more looks at the picture.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
_CELLS = 20  # of an image's rows and columns; of larger ones the size is told


def plot_lines(data: Mapping[str, Any]) -> list[str]:
    """Return what `figure_data` tells of a figure, as lines.

    >>> loss = {"kind": "line", "label": "loss", "x": [1, 2, 3], "y": [0, 2, 4]}
    >>> axes = {"title": "training", "xlabel": "epoch", "ylabel": "", "series": [loss]}
    >>> plot_lines({"axes": [axes]})
    ['training (epoch)', 'loss  ▁▅█  0 … 4 by 1 … 3']
    """
    return [line for axes in data["axes"] for line in _axes_lines(axes)]


def plotly_data(figure: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what a plotly figure shows, as `figure_data` does of a matplotlib one."""
    series = []
    for trace in figure.data:
        given = {name: _listed(trace, name) for name in ("x", "y", "z")}
        found: dict[str, Any] = {"kind": trace.type, "label": trace.name or trace.type}
        if given["z"] is not None:
            series.append({**found, "kind": "image", "values": given["z"]})
        elif given["y"] is not None:
            series.append({**found, "x": given["x"] or range(len(given["y"])), "y": given["y"]})
    layout = figure.layout
    labels = {"xlabel": layout.xaxis.title.text or "", "ylabel": layout.yaxis.title.text or ""}
    return {"axes": [{"title": layout.title.text or "", **labels, "series": series}]}


def altair_data(chart: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an altair chart's JSON shows of data that it has in it, in the same form."""
    parts = [{**chart, **layer} for layer in chart.get("layer", [{}])]
    title = chart.get("title", "")
    named = title.get("text", "") if isinstance(title, dict) else title
    axes = {"title": str(named), "xlabel": "", "ylabel": ""}
    series = [found for part in parts if (found := _altair_series(chart, part)) is not None]
    return {"axes": [{**axes, "series": series}]}


def _altair_series(chart: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any] | None:
    rows = chart.get("datasets", {}).get(part.get("data", {}).get("name"), [])
    x, y = (part.get("encoding", {}).get(axis, {}).get("field") for axis in "xy")
    if not rows or x is None or y is None:
        return None
    xs, ys = ([row.get(name) for row in rows] for name in (x, y))
    return {"kind": "points", "label": f"{y} by {x}", "x": xs, "y": ys}


def _listed(trace: Any, name: str) -> list[Any] | None:  # noqa: ANN401
    try:
        values = trace[name]
    except (KeyError, ValueError):  # this kind of trace has none
        return None
    if isinstance(values, dict):
        return _decoded(values)
    return None if values is None else [getattr(v, "tolist", lambda v=v: v)() for v in values]


def _decoded(packed: Mapping[str, str]) -> list[Any]:
    """Return the numbers that plotly has packed into base64."""
    import numpy as np  # noqa: PLC0415 - only then

    values = np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])
    shape = [int(size) for size in packed.get("shape", "-1").split(",")]
    unpacked: list[Any] = values.reshape(shape).tolist()
    return unpacked


def _axes_lines(axes: Mapping[str, Any]) -> Iterator[str]:
    labels = " by ".join(filter(None, [axes["ylabel"], axes["xlabel"]]))
    if head := " ".join(filter(None, [axes["title"], f"({labels})" if labels else ""])):
        yield head
    width = max((len(str(one["label"])) for one in axes["series"]), default=0)
    for one in axes["series"]:
        if one["kind"] == "image":
            yield from _image_lines(one["values"])
        else:
            yield f"{one['label']:<{width}}  {_course(one['x'], one['y'])}"


def _image_lines(values: Sequence[Any]) -> Iterator[str]:
    rows = [row if isinstance(row, list) else [row] for row in values]
    if not rows or len(rows) > _CELLS or len(rows[0]) > _CELLS:
        yield f"{len(rows)} × {len(rows[0]) if rows else 0} values"
        return
    cells = [[_short(cell) for cell in row] for row in rows]
    width = max(len(cell) for row in cells for cell in row)
    yield from ("  ".join(f"{cell:>{width}}" for cell in row) for row in cells)


def _course(x: Sequence[Any], y: Sequence[Any]) -> str:
    pairs = [(at, float(value)) for at, value in zip(x, y, strict=False) if _is_number(value)]
    if not pairs:
        return f"{len(y)} values"
    if all(_is_number(at) for at, _ in pairs):
        pairs.sort()
    values = [value for _, value in pairs]
    low, high = min(values), max(values)
    ends = _short(pairs[0][0]), _short(pairs[-1][0])
    bounds = f"{_short(low)} … {_short(high)} by {' … '.join(ends)}"
    return f"{_blocks(values, low, high)}  {bounds}"


def _blocks(values: Sequence[float], low: float, high: float) -> str:
    """Return a block for each stretch of values, as high as their mean."""
    columns = min(_WIDTH, len(values))
    text = ""
    for column in range(columns):
        start, end = (len(values) * place // columns for place in (column, column + 1))
        mean = math.fsum(values[start:end]) / (end - start)
        share = (mean - low) / (high - low) if high > low else 0.0
        text += _BLOCKS[min(len(_BLOCKS) - 1, round(share * (len(_BLOCKS) - 1)))]
    return text


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _short(value: object) -> str:
    return f"{value:.4g}" if _is_number(value) else str(value)
