"""How far the table has drifted from the rows that it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import rayml

from ._workers import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._rows import Source

_DRAWN = 100_000


def compare(
    source: Source, reference: rayml.Input, batch_size: int, width: int, seed: int
) -> list[str]:
    """Compare some 100,000 rows, drawn from all over the table; return what is to be known."""
    share = min(1.0, _DRAWN / source.rows)

    def draw(work: Any) -> Iterator[pa.Table]:  # noqa: ANN401
        for place in work["place"].tolist():
            random = np.random.default_rng([seed, place])
            for rows in source.read(place, batch_size):
                yield rows.filter(pa.array(random.random(rows.num_rows) < share))

    width = min(width, len(source.parts))
    drawn = parts_of(source).map_batches(draw, batch_size=1, num_cpus=0, concurrency=width)
    table = pa.concat_tables(drawn.iter_batches(batch_size=None, batch_format="pyarrow"))
    told = rayml.hub.get("compare_datasets")(reference=reference, table=table.to_pandas())
    warnings: list[str] = told["warnings"]
    return warnings
