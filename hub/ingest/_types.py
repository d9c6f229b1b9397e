"""Which type each column has, and the SQL that reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import product
from typing import TYPE_CHECKING

import pyarrow as pa

import rayml

from ._read import quoted, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._read import Staged

_MOSTLY = 0.95
_NEARLY = 0.9  # of a sample, to be looked at in all rows
_SAMPLE = 2_000
_MISSING = (
    "", "na", "n/a", "#n/a", "#na", "nan", "-nan", "null", "none", "nil", "<na>", "-", "--", "?",
)  # fmt: skip
_KINDS = {
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
_ALSO = {
    "int": "int64",
    "float": "float64",
    "double": "float64",
    "str": "string",
    "text": "string",
    "boolean": "bool",
    "datetime": "timestamp",
    "datetime64": "timestamp",
}
_DECIMAL = re.compile(r"decimal\((\d{1,2}), ?(\d{1,2})\)")
_NAMES = {kind: name for name, kind in _KINDS.items()}
_AS_TEXT = (
    "INTERVAL",
    "UUID",
    "BIT",
    "ENUM",
    "TIME WITH TIME ZONE",
    "JSON",
    '"NULL"',
)  # no Parquet
_DAYS = (
    *(f"%Y{s}%m{s}%d" for s in "/."),
    *(f"%m{s}%d{s}%Y" for s in "/-."),
    *(f"%d{s}%m{s}%Y" for s in "/-."),
    *(f"%m{s}%d{s}%y" for s in "/-."),
    *(f"%d{s}%m{s}%y" for s in "/-."),
    *("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S.%f")
_FORMATS = [day + time for day, time in product(_DAYS, _TIMES)]
_LIKE_DATE = r"\d[-/.: ]\d|\d{1,2}[- ][A-Za-z]{3}|[A-Za-z]{3,9} \d{1,2}, \d{4}"
_PLAIN = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?[iI]nf(inity)?"
_POINTED = r"[+-]?[$€£¥]?\s?\d{1,3}(,?\d{3})*(\.\d+)?\s?[%$€£¥]?"
_COMMA = r"[+-]?[€]?\s?\d{1,3}(\.?\d{3})*(,\d+)?\s?[%€]?"
_ISO_DAY = r"\d{4}-\d{1,2}-\d{1,2}"
_ISO_TIME = _ISO_DAY + r"([T ]\d{1,2}(:\d{2}){1,2}(\.\d+)?)?"
_ZONE = r"\s?(Z|[+-]\d{2}(:?\d{2})?)"
_MACROS = {
    "as_whole": r"CASE WHEN regexp_full_match(m, '[+-]?\d{1,18}') THEN TRY_CAST(m AS BIGINT) END",
    "as_number": f"CASE WHEN regexp_full_match(m, '{_PLAIN}') THEN TRY_CAST(m AS DOUBLE) END",
    "digits": r"TRY_CAST(regexp_replace(m, '[^0-9.+-]', '', 'g') AS DOUBLE)"
    " / CASE WHEN contains(m, '%') THEN 100 ELSE 1 END",
    "as_pointed": f"CASE WHEN regexp_full_match(m, '{_POINTED}') THEN digits(m) END",
    "as_comma": f"CASE WHEN regexp_full_match(m, '{_COMMA}') "
    "THEN digits(replace(replace(m, '.', ''), ',', '.')) END",
    "as_flag": "CASE lower(m) WHEN 'true' THEN true WHEN 'false' THEN false END",
    "as_day": f"CASE WHEN regexp_full_match(m, '{_ISO_DAY}') THEN TRY_CAST(m AS DATE) END",
    "as_time": f"CASE WHEN regexp_full_match(m, '{_ISO_TIME}') THEN TRY_CAST(m AS TIMESTAMP) "
    f"WHEN regexp_full_match(m, '{_ISO_TIME}{_ZONE}') "
    "THEN make_timestamp(epoch_us(TRY_CAST(m AS TIMESTAMPTZ))) END",
}
_FLAGS = (
    "CASE WHEN lower(m) IN ('true', 't', 'yes', 'y', '1') THEN true "
    "WHEN lower(m) IN ('false', 'f', 'no', 'n', '0') THEN false END"
)
# Of each way to read text: the type that it gives, and in words what was found.
_WAYS = {
    "as_whole(m)": ("int64", "whole numbers in text"),
    "as_flag(m)": ("bool", "true and false in text"),
    "as_number(m)": ("float64", "numbers in text"),
    "as_pointed(m)": ("float64", "numbers with commas or signs in text"),
    "as_comma(m)": ("float64", "numbers with a decimal comma in text"),
    "as_day(m)": ("timestamp", "dates in text"),
    "as_time(m)": ("timestamp", "times in text"),
}
_CODES = r"count(*) FILTER (regexp_full_match(m, '[+-]?0\d+'))"
_NUMBERS = ("as_whole(m)", "as_number(m)", "as_pointed(m)", "as_comma(m)")


@dataclass
class Column:
    """What becomes of a column.

    Attributes:
        name: Its name.
        read: Its type in what was read.
        type: The type that it gets, as Arrow calls it.
        why: What it was found to be.
        sql: What gives its values.
        doubt: What else it may be, in words.
    """

    name: str
    read: str
    type: str
    why: str
    sql: str
    doubt: str = ""

    @property
    def known(self) -> str:
        """What gives its text where there is one, as SQL."""
        return _known(self.name, self.read)

    @property
    def is_cast(self) -> bool:
        """Whether values may not fit, and become missing."""
        return self.sql not in (quoted(self.name), self.known) and self.type != "string"

    @property
    def is_nested(self) -> bool:
        """Whether it holds lists, or columns of its own."""
        return self.read.endswith("]") or self.read.startswith(
            ("STRUCT", "MAP", "UNION", "VARIANT")
        )


@dataclass
class Plan:
    """What becomes of all columns."""

    columns: list[Column] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What may be otherwise than it was taken for."""
        return [f"{column.name!r}: {column.doubt}." for column in self.columns if column.doubt]

    def stream(self, staged: Staged, rows: int) -> pa.RecordBatchReader:
        """Return the typed table, so many rows at a time, in their order.

        Without a word on the order, the database gives parts of rows as its threads end them.
        """
        selected = ", ".join(f"{c.sql} AS {quoted(c.name)}" for c in self.columns)
        ((count,),) = staged.ask("SELECT count(*) FROM staged")

        def read(start: int, stop: int) -> pa.Table:
            these = f"rowid >= {start} AND rowid < {stop}"
            query = f"SELECT {selected} FROM staged WHERE {these} ORDER BY rowid"
            return staged.connection.sql(query).to_arrow_table()

        parts = (read(start, start + rows) for start in range(0, count, rows))
        batches = (batch for part in parts for batch in part.to_batches())
        return pa.RecordBatchReader.from_batches(read(0, 0).schema, batches)


def check_types(types: dict[str, str]) -> None:
    """Raise SpecError for a type that is none."""
    for name, kind in types.items():
        is_known = kind in _KINDS or kind in _ALSO or _DECIMAL.fullmatch(kind) or "%" in kind
        if not is_known:
            near = get_close_matches(kind, [*_KINDS, *_ALSO], n=1)
            known = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_KINDS)}"
            raise rayml.SpecError(f"types= gives {name!r} the type {kind!r}; {known}")


def plan_types(staged: Staged, types: dict[str, str], missing: list[str] | None) -> Plan:
    """Return what each column becomes: the given type, or what its values are.

    Raises:
        SpecError: A column that has a type given is not there.
    """
    for name in types:
        if name not in staged.columns:
            near = get_close_matches(name, staged.columns, n=1)
            known = ", ".join(list(staged.columns)[:30])
            way_out = f"did you mean {near[0]!r}?" if near else f"there are {known}"
            raise rayml.SpecError(
                f"types= names the column {name!r}, which is not there; {way_out}"
            )
    _make_macros(staged, _MISSING if missing is None else ["", *missing])
    looked_at = [n for n, kind in staged.columns.items() if kind == "VARCHAR" or n in types]
    sampled = _sampled(staged, looked_at)
    plan = Plan()
    for name, read in staged.columns.items():
        if name in types:
            plan.columns.append(_given(name, read, types[name], sampled[name]))
        elif read == "VARCHAR":
            plan.columns.append(_found(staged, name, sampled[name]))
        else:
            plan.columns.append(_kept(staged, name, read))
    return plan


def _make_macros(staged: Staged, missing: Iterable[str]) -> None:
    tokens = ", ".join(text(token.lower()) for token in missing)
    staged.ask(
        f"CREATE TEMP MACRO known(c) AS CASE WHEN lower(trim(c)) NOT IN ({tokens}) THEN c END"
    )
    for name, sql in _MACROS.items():
        staged.ask(f"CREATE TEMP MACRO {name}(m) AS {sql}")


def _known(name: str, read: str) -> str:
    column = quoted(name)
    return f"known({column})" if read == "VARCHAR" else f"CAST({column} AS VARCHAR)"


def _sampled(staged: Staged, names: list[str]) -> dict[str, list[str]]:
    """Return the ways that read nearly all of some values of each column."""
    if not names:
        return {}
    staged.ask(
        f"CREATE OR REPLACE TEMP TABLE sampled AS SELECT {', '.join(map(quoted, names))} "
        f"FROM staged USING SAMPLE {_SAMPLE} ROWS (reservoir, 0)"
    )
    found = {}
    for name in names:
        ways = list(_WAYS)
        like_date, known = _count(
            staged, "sampled", name, [f"count(*) FILTER (regexp_matches(m, '{_LIKE_DATE}'))"]
        )
        if known and like_date >= _NEARLY * known:
            ways += [f"try_strptime(m, '{how}')" for how in _FORMATS]
        *counts, known = _count(staged, "sampled", name, [f"count({way})" for way in ways])
        by_way = dict(zip(ways, counts, strict=True))
        found[name] = [way for way, n in by_way.items() if known and n >= _NEARLY * known]
        if known and by_way["as_number(m)"] == known:  # which the others can read as well
            found[name] = [way for way in found[name] if way in _NUMBERS[:2]]
    return found


def _count(staged: Staged, table: str, name: str, counts: list[str]) -> tuple[int, ...]:
    """Return counts over a column's texts `m`, and how many of them there are."""
    known = _known(name, staged.columns[name])
    selected = ", ".join([*counts, "count(m)"])
    ((*found,),) = staged.ask(f"SELECT {selected} FROM (SELECT trim({known}) AS m FROM {table})")
    return tuple(found)


def _found(staged: Staged, name: str, ways: list[str]) -> Column:
    """Return what a column of text is."""
    codes, *counts, known = _count(
        staged, "staged", name, [_CODES, *(f"count({w})" for w in ways)]
    )
    by_way = dict(zip(ways, counts, strict=True))
    if codes:
        by_way = {way: found for way, found in by_way.items() if way not in _NUMBERS}
    enough = {way: found for way, found in by_way.items() if known and found >= _MOSTLY * known}
    best = max(enough.values(), default=0)
    ties = [way for way, found in enough.items() if found == best]
    if not ties:
        why = "nothing" if not known else "numbers with a leading 0" if codes else "text"
        return Column(name, "VARCHAR", "string", why, f"known({quoted(name)})")
    kind, why = _WAYS.get(ties[0], ("timestamp", f"dates in text, as {_how(ties[0])}"))
    return Column(name, "VARCHAR", kind, why, _sql(name, "VARCHAR", ties[0], kind), _doubt(ties))


def _how(way: str) -> str:
    """Return the format of dates in a way to read them."""
    return way.partition("'")[2].rpartition("'")[0]


def _sql(name: str, read: str, way: str, kind: str) -> str:
    macro = re.sub(r"(?<!%)\bm\b", f"trim({_known(name, read)})", way)
    cast = {"date": "DATE", "timestamp": "TIMESTAMP"}.get(kind)
    return macro if cast is None else f"CAST({macro} AS {cast})"


def _doubt(ties: list[str]) -> str:
    formats = [way for way in ties if _how(way)]
    if len(formats) > 1 and ties[0] == formats[0]:
        return f"its dates may also be {_how(formats[1])}; give that in types= if they are"
    if ties[0] == "as_pointed(m)" and "as_comma(m)" in ties:
        return "its commas were taken to separate thousands"
    return ""


def _given(name: str, read: str, given: str, ways: list[str]) -> Column:
    """Return a column of the type that was asked for."""
    kind = _ALSO.get(given, given)
    if "%" in given:
        kind = "timestamp" if any(f"%{letter}" in given for letter in "HIMSfp") else "date"
        way = f"try_strptime(m, {text(given)})"
    elif kind in ("date", "timestamp"):
        dates = [w for w in ways if w.startswith(("as_day", "as_time", "try_strptime"))]
        way = f"coalesce(as_time(m), {', '.join(dates[:2]) or 'NULL'})"
    elif kind == "bool":
        way = _FLAGS
    elif kind == "string":
        return Column(name, read, kind, "as asked for", _known(name, read))
    else:
        way = _number(_KINDS.get(kind, kind.upper()))
    sql = _sql(name, read, way, kind)
    if kind not in ("date", "timestamp", "bool"):
        sql = f"TRY_CAST({sql} AS {_KINDS.get(kind, kind.upper())})"
    return Column(name, read, kind, "as asked for", sql)


def _number(kind: str) -> str:
    """Return what reads a number of a type; a whole one takes no fraction."""
    number = "coalesce(as_number(m), as_pointed(m), as_comma(m))"
    if "INT" not in kind:
        plain = f"CASE WHEN regexp_full_match(m, '{_PLAIN}') THEN TRY_CAST(m AS {kind}) END"
        return f"coalesce({plain}, TRY_CAST({number} AS {kind}))"
    whole = rf"CASE WHEN regexp_full_match(m, '[+-]?\d+') THEN TRY_CAST(m AS {kind}) END"
    rounded = f"CASE WHEN {number} = floor({number}) THEN TRY_CAST({number} AS {kind}) END"
    return f"coalesce({whole}, {rounded})"


def _kept(staged: Staged, name: str, read: str) -> Column:
    """Return a column as it was read, in a type that Parquet has."""
    column = quoted(name)
    if read.startswith(_AS_TEXT):
        return Column(name, read, "string", "as it was read", f"CAST({column} AS VARCHAR)")
    if read in ("HUGEINT", "UHUGEINT", "UBIGINT"):
        ((too_large,),) = staged.ask(
            f"SELECT count(*) FROM staged WHERE TRY_CAST({column} AS BIGINT) IS NULL "
            f"AND {column} IS NOT NULL"
        )
        kind = "BIGINT" if not too_large else "UBIGINT" if read == "UBIGINT" else "DOUBLE"
        return Column(name, read, _NAMES[kind], "as it was read", f"CAST({column} AS {kind})")
    return Column(name, read, _NAMES.get(read, read.lower()), "as it was read", column)
