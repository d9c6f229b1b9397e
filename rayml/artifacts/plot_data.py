"""What a matplotlib figure shows, as numbers: they outlive the picture's size and colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rayml.artifacts.record import is_a, json_safe

if TYPE_CHECKING:
    from collections.abc import Iterator

_POINTS = 10_000  # of one series; of longer ones every second, third …


def figure_data(figure: Any) -> dict[str, object]:  # noqa: ANN401
    """Return what a figure's axes show, as strict JSON.

    Each has a title, labels and series: lines, points and bars by `x` and `y`, images by `values`.
    What else there is, such as texts and polygons, is in the picture alone.
    """
    return {"axes": [_axes(axes) for axes in figure.axes]}


def _axes(axes: Any) -> dict[str, object]:  # noqa: ANN401
    return {
        "title": axes.get_title(),
        "xlabel": axes.get_xlabel(),
        "ylabel": axes.get_ylabel(),
        "series": [*_lines(axes), *_points(axes), *_bars(axes), *_images(axes)],
    }


def _lines(axes: Any) -> Iterator[dict[str, object]]:  # noqa: ANN401
    for line in axes.get_lines():
        yield _series("line", line, line.get_xdata(), line.get_ydata())


def _points(axes: Any) -> Iterator[dict[str, object]]:  # noqa: ANN401
    for found in axes.collections:
        if is_a(found, "matplotlib.collections.PathCollection"):
            yield _series("points", found, *found.get_offsets().T)


def _bars(axes: Any) -> Iterator[dict[str, object]]:  # noqa: ANN401
    for bars in axes.containers:
        if is_a(bars, "matplotlib.container.BarContainer"):
            is_flat = getattr(bars, "orientation", None) == "horizontal"
            ends = [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in bars]
            if not is_flat:
                ends = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in bars]
            places, sizes = [end[0] for end in ends], [end[1] for end in ends]
            x, y = (sizes, places) if is_flat else (places, sizes)
            yield _series("bars", bars, x, y)


def _images(axes: Any) -> Iterator[dict[str, object]]:  # noqa: ANN401
    for image in axes.get_images():
        values = image.get_array()
        if values is not None and values.size <= _POINTS:
            yield {"kind": "image", "label": image.get_label(), "values": _plain(values)}


def _series(kind: str, artist: Any, x: Any, y: Any) -> dict[str, object]:  # noqa: ANN401
    every = max(1, -(-len(x) // _POINTS))
    label = artist.get_label()
    return {"kind": kind, "label": label, "x": _plain(x[::every]), "y": _plain(y[::every])}


def _plain(values: Any) -> object:  # noqa: ANN401
    import numpy as np  # noqa: PLC0415 - matplotlib has it

    found: Any = np.ma.asarray(values)
    if found.dtype.kind == "M":  # of nanoseconds Python has no times
        found = found.astype(str)
    return json_safe(found.tolist())  # None of what is masked
