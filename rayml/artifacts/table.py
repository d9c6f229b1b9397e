"""Tables: small results such as a confusion matrix, kept as Parquet and shown by first rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayml.artifacts.dataset import arrow_table, save_tables, source_of
from rayml.artifacts.record import ArtifactRecord, check_name, type_name
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from rayml.store import Store


def save_table(store: Store, name: str, rows: object) -> ArtifactRecord:
    """Store rows as a table and return its record; they are read back as a pandas DataFrame.

    Args:
        store: Where the bytes go; nothing is recorded unless all of them got there.
        name: The artifact's name.
        rows: A DataFrame or Arrow table, a list of dicts (a key that a row lacks is null in it),
            or a dict of equally long lists. Keys become strings.

    Raises:
        SpecError: It is none of these, has no columns, or a column of mixed types.
    """
    check_name(name)
    if (source := source_of(rows)) is not None:
        table = arrow_table(name, rows)
    else:
        source, table = "rows", _from_columns(name, _columns(name, rows))
    return save_tables(store, name, "table", source, iter([table]))


def _columns(name: str, rows: object) -> Mapping[object, object]:
    if isinstance(rows, dict):
        return rows
    if not isinstance(rows, list | tuple) or not all(isinstance(row, dict) for row in rows):
        raise SpecError(
            f"table {name!r} is a {type_name(rows)}; "
            "pass a DataFrame, a list of dicts or a dict of lists"
        )
    # Of the keys of all rows, in the order in which they first appear.
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


def _from_columns(name: str, columns: Mapping[object, object]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    arrays = {str(key): _array(name, key, values) for key, values in columns.items()}
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(arrays) < len(columns):
        raise SpecError(f"table {name!r} has two columns of one name as text; rename one of them")
    if len(set(lengths.values())) > 1:
        raise SpecError(
            f"table {name!r} has columns of unequal lengths: {lengths}; make them equal"
        )
    return pa.table(arrays)


def _array(name: str, key: object, values: object) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(values, str | bytes | dict):
        raise SpecError(f"column {key!r} of table {name!r} is a {type_name(values)}; pass a list")
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        raise SpecError(
            f"column {key!r} of table {name!r} does not fit one Arrow type: {exc}; "
            "convert its values to one type"
        ) from exc
