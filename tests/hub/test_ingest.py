"""`ingest`: what is read of files and databases, and what is told of it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import sqlite3
import tarfile
import threading
import zipfile
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

import rayml
from rayml.store import open_store
from tests.hub.calls import warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.hub.calls import Tracked

TEXT = "id,amount,day\n1,1.5,2024-01-01\n2,,2024-01-02\n3,3.5,2024-01-03\n"
TABLE = pd.DataFrame(
    {
        "id": [1, 2, 3],
        "amount": [1.5, np.nan, 3.5],
        "day": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"]),
    }
)


def loaded(run: rayml.Run) -> pd.DataFrame:
    return run.artifact("table").to_pandas()


def told(run: rayml.Run, column: str) -> Any:
    return run.artifact("columns").load().set_index("column").loc[column].to_dict()


def write_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE orders (id INTEGER, amount REAL, day TEXT)")
        rows = [(1, 1.5, "2024-01-01"), (2, None, "2024-01-02"), (3, 3.5, "2024-01-03")]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)


def write_duckdb(path: Path) -> None:
    with duckdb.connect(path) as connection:
        connection.register("given", pa.Table.from_pandas(TABLE))
        connection.execute("CREATE TABLE orders AS SELECT * FROM given").fetchall()


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../orders.csv", TEXT)
        archive.writestr("readme.md", "words")


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("/folder/orders.csv")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT.encode()))


RECORDS = json.loads(TABLE.assign(day=TABLE["day"].astype(str)).to_json(orient="records"))
WRITERS: dict[str, Callable[[Path], object]] = {
    "orders.csv": lambda path: path.write_text(TEXT),
    "orders.CSV": lambda path: path.write_text(TEXT),
    "orders.tsv": lambda path: path.write_text(TEXT.replace(",", "\t")),
    "semicolons.csv": lambda path: path.write_text(TEXT.replace(",", ";").replace(".", ",")),
    "crlf.csv": lambda path: path.write_bytes(TEXT.replace("\n", "\r\n").encode()),
    "bom.csv": lambda path: path.write_text(TEXT, "utf-8-sig"),
    "utf16.csv": lambda path: path.write_text(TEXT, "utf-16"),
    "orders.csv.gz": lambda path: path.write_bytes(gzip.compress(TEXT.encode())),
    "orders.csv.bz2": lambda path: path.write_bytes(bz2.compress(TEXT.encode())),
    "orders.zip": write_zip,
    "orders.tar.gz": write_tar,
    "orders.json": lambda path: path.write_text(json.dumps(RECORDS, indent=1)),
    "orders.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, RECORDS))),
    "orders.parquet": TABLE.to_parquet,
    "orders.feather": lambda path: feather.write_feather(TABLE, path),
    "orders.xlsx": lambda path: path.write_bytes(excel(TABLE)),
    "orders.sqlite": write_sqlite,
    "orders.db": write_sqlite,
    "orders.duckdb": write_duckdb,
}


def excel(table: pd.DataFrame) -> bytes:
    """Return the least that is a sheet of Excel's."""
    cells = [list(table.columns), *table.astype({"day": str}).to_numpy().tolist()]
    rows = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in cells)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    types = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    files = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{types}.sheet.main+xml"/><Override '
        f'PartName="/xl/worksheets/sheet1.xml" ContentType="{types}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets><sheet '
        'name="orders" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
        "</Relationships>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData>'
        "</worksheet>",
    }
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
    return "<c/>" if value != value else f"<c><v>{value}</v></c>"  # noqa: PLR0124 - NaN


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_are_the_same_typed_table_in_whatever_file(
    name: str, tmp_path: Path, tracked: Tracked
) -> None:
    WRITERS[name](tmp_path / name)

    result, run = tracked("ingest", source=tmp_path / name)

    pd.testing.assert_frame_equal(loaded(run), TABLE, check_dtype=False)
    kinds = {field.name: str(field.type) for field in run.artifact("table").to_arrow().schema}
    assert (kinds["id"], kinds["amount"]) == ("int64", "double")
    assert kinds["day"].startswith("timestamp")
    assert result["table"] == run.artifact("table").uri
    assert (run.metrics["rows"], run.metrics["columns"], run.metrics["files"]) == (3, 3, 1)
    assert told(run, "amount")["missing"] == 1
    assert run.artifact("missing").kind == "plot"
    assert "Quality" in run.artifact("report.html").load().decode()


def test_many_rows_keep_their_order(tmp_path: Path, tracked: Tracked) -> None:
    rows = 300_000
    numbers = np.arange(rows)
    frame = pd.DataFrame({"{row}": numbers, "day": "2024-01-31", "share": numbers / rows})
    frame.assign(word=frame["{row}"].map("w{}".format)).to_csv(tmp_path / "many.csv", index=False)

    _, run = tracked("ingest", source=tmp_path / "many.csv")

    np.testing.assert_array_equal(loaded(run)["{row}"], numbers)
    np.testing.assert_array_equal(loaded(run)["share"], numbers / rows)


def test_a_folder_and_a_pattern_are_the_rows_of_all_files(
    tmp_path: Path, tracked: Tracked
) -> None:
    data = tmp_path / "data"
    (data / "more").mkdir(parents=True)
    (data / "a.csv").write_text("x,y\n1,a\n")
    (data / "b.csv").write_text("y,x,z\nb,2.5,9\n")
    (data / "more" / "c.csv").write_text("x\n3\n")
    (data / "notes.md").write_text("words")
    (data / "_SUCCESS").write_text("")

    _, folder = tracked("ingest", source=data)
    _, pattern = tracked("ingest", source=f"{data}/*.csv")
    _, deep = tracked("ingest", source=f"{data}/**/c.csv")

    table = loaded(folder)
    assert list(table) == ["x", "y", "z"]
    assert table["x"].tolist() == [1, 2.5, 3]
    assert table["z"].isna().tolist() == [True, False, True]
    assert "1 other files are not read, such as 'notes.md'" in warnings_of(folder)
    assert loaded(pattern)["x"].tolist() == [1, 2.5]
    assert loaded(deep)["x"].tolist() == [3]


@pytest.mark.parametrize("name", ["part.parquet", "part.csv"])
def test_folders_that_tell_a_value_are_a_column(
    name: str, tmp_path: Path, tracked: Tracked
) -> None:
    for number in (1, 2):
        folder = tmp_path / "data" / f"when=2024-01-0{number}" / f"id={number + 10}"
        folder.mkdir(parents=True)
        WRITERS["orders" + name[4:]](folder / name)

    _, run = tracked("ingest", source=tmp_path / "data")

    expected = pd.to_datetime(["2024-01-01"] * 3 + ["2024-01-02"] * 3)
    assert loaded(run)["when"].tolist() == expected.tolist()
    assert loaded(run)["id"].tolist() == [1, 2, 3] * 2  # the files' own


def test_files_whose_columns_have_other_types_get_one_that_holds_both(
    tmp_path: Path, tracked: Tracked
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(pa.table({"a": [1, 2], "b": [1, 2]}), data / "one.parquet")
    pq.write_table(pa.table({"a": [0.5], "b": ["word"]}), data / "two.parquet")

    _, run = tracked("ingest", source=data)

    assert loaded(run)["a"].tolist() == [1.0, 2.0, 0.5]
    assert loaded(run)["b"].tolist() == ["1", "2", "word"]


def write_column(path: Path, values: list[str]) -> Path:
    file = path / "values.csv"
    quoted = ('"' + value.replace('"', '""') + '"' for value in values)
    file.write_text("value\n" + "\n".join(quoted) + "\n")
    return file


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "-2", "+3"], "int64", [1, -2, 3]),
        (["1", "2.5", "1e3"], "float64", [1, 2.5, 1000]),
        (["1,234.50", "$5", "-7"], "float64", [1234.5, 5, -7]),
        (["1.234,50", "3,5", "7"], "float64", [1234.5, 3.5, 7]),
        (["12%", "5.5%", "0%"], "float64", [0.12, 0.055, 0]),
        (["true", "False", "TRUE"], "bool", [True, False, True]),
        (["007", "008", "123"], "string", ["007", "008", "123"]),
        (["a", "1", "2.5"], "string", ["a", "1", "2.5"]),
        (["99999999999999999999", "1", "2"], "float64", [1e20, 1, 2]),
        (["2024-01-31", "2024-02-01", "1999-12-31"], "timestamp", None),
        (["2024-01-31T10:00:00", "2024-02-01 11:30", "1999-12-31"], "timestamp", None),
        (["31/01/2024", "13/02/2024", "01/03/2024"], "timestamp", None),
        (["Jan 31, 2024", "Feb 1, 2024", "Mar 2, 2024"], "timestamp", None),
        (["31.01.2024 10:30", "13.02.2024 11:30", "01.03.2024 12:00"], "timestamp", None),
    ],
)
def test_text_gets_the_type_that_its_values_have(
    values: list[str],
    kind: str,
    expected: list[object] | None,
    tmp_path: Path,
    tracked: Tracked,
) -> None:
    _, run = tracked("ingest", source=write_column(tmp_path, [*values, "NA", ""]))

    assert told(run, "value")["type"] == kind
    found = loaded(run)["value"]
    assert found[3:].isna().all()
    if expected is None:
        expected = [pd.to_datetime(v, dayfirst="." in v or "/" in v) for v in values]
    assert found[:3].tolist() == expected


def test_times_with_an_offset_are_kept_in_utc(tmp_path: Path, tracked: Tracked) -> None:
    values = ["2024-01-31T10:00:00+02:00", "2024-01-31T10:00:00Z"]

    _, run = tracked("ingest", source=write_column(tmp_path, values))

    assert loaded(run)["value"].dt.hour.tolist() == [8, 10]


def test_days_that_may_be_months_are_told(tmp_path: Path, tracked: Tracked) -> None:
    file = write_column(tmp_path, ["01/02/2024", "03/04/2024"])

    _, run = tracked("ingest", source=file)
    _, as_asked = tracked("ingest", source=file, types={"value": "%d/%m/%Y"})

    assert "may also be %d/%m/%Y" in warnings_of(run)
    assert loaded(as_asked)["value"].astype(str).tolist() == ["2024-02-01", "2024-04-03"]


class TestWhatDoesNotFit:
    def test_values_become_missing_and_are_kept(self, tmp_path: Path, tracked: Tracked) -> None:
        values = [str(number) for number in range(99)]
        file = write_column(tmp_path, [*values[:40], "oops", *values[40:]])

        _, run = tracked("ingest", source=file)

        assert told(run, "value")["type"] == "int64"
        assert run.metrics["bad_values"] == 1
        kept = run.artifact("bad_values").load().to_dict("records")
        assert kept == [{"row": 41, "column": "value", "value": "oops"}]
        assert loaded(run)["value"].isna().tolist() == [row == 40 for row in range(100)]
        assert "1 values of 'value' do not fit int64" in warnings_of(run)

    def test_rows_are_left_out_and_kept(self, tmp_path: Path, tracked: Tracked) -> None:
        text = 'a,b\n1,"x\ny"\n2\n3,z,9\n4,"a ""b"", c"\n5,v"w\n'
        (tmp_path / "rows.csv").write_text(text)

        _, run = tracked("ingest", source=tmp_path / "rows.csv")

        assert loaded(run)["a"].tolist() == [1, 4, 5] or loaded(run)["a"].tolist() == [1, 4]
        assert loaded(run)["b"][:2].tolist() == ["x\ny", 'a "b", c']
        bad = run.artifact("bad_rows").load()
        assert bad["text"][:2].tolist() == ["2", "3,z,9"]
        assert bad["reason"][:2].tolist() == ["missing columns", "too many columns"]
        assert run.metrics["bad_rows"] == len(bad) == 5 - len(loaded(run))

    def test_lines_that_are_no_json_are_kept(self, tmp_path: Path, tracked: Tracked) -> None:
        lines = ['{"a": 1, "b": {"c": 2}}', "nonsense", '{"a": "x", "d": [1, 2]}', "[1]", ""]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines))

        _, run = tracked("ingest", source=tmp_path / "rows.jsonl")

        table = loaded(run)
        assert table["a"].tolist() == ["1", "x"]
        assert table["b"][0] == {"c": 2}
        assert list(table["d"][1]) == [1, 2]
        bad = run.artifact("bad_rows").load()
        assert bad[["row", "text"]].to_numpy().tolist() == [[2, "nonsense"], [4, "[1]"]]

    def test_rows_that_are_there_twice_are_counted(self, tmp_path: Path, tracked: Tracked) -> None:
        (tmp_path / "rows.csv").write_text("a,b\n1,x\n2,y\n1,x\n1,x\n")

        _, run = tracked("ingest", source=tmp_path / "rows.csv")

        assert run.metrics["duplicate_rows"] == 2
        assert len(loaded(run)) == 4


@pytest.mark.parametrize(
    ("given", "values", "expected"),
    [
        ("string", ["1", "2"], ["1", "2"]),
        ("int8", ["1", "300"], [1, None]),
        ("int32", ["1.0", "2.5"], [1, None]),
        ("float64", ["1,5", "2"], [1.5, 2]),
        ("bool", ["yes", "0"], [True, False]),
        ("decimal(6,2)", ["1.25", "2"], ["1.25", "2.00"]),
        ("date", ["2024-01-31", "x"], ["2024-01-31", None]),
        ("%Y%m%d", ["20240131", "20240201"], ["2024-01-31", "2024-02-01"]),
    ],
)
def test_a_type_that_is_given_is_the_columns_type(
    given: str,
    values: list[str],
    expected: list[object],
    tmp_path: Path,
    tracked: Tracked,
) -> None:
    _, run = tracked("ingest", source=write_column(tmp_path, values), types={"value": given})

    found = run.artifact("table").to_arrow().column("value").to_pylist()
    as_text = [str(v) if isinstance(e, str) else v for v, e in zip(found, expected, strict=True)]
    assert as_text == expected
    assert run.metrics["bad_values"] == expected.count(None)


def test_what_stands_for_missing_can_be_said(tmp_path: Path, tracked: Tracked) -> None:
    file = write_column(tmp_path, ["NA", "999", "1"])

    _, run = tracked("ingest", source=file, missing=["999"])

    assert loaded(run)["value"].fillna("gone").tolist() == ["NA", "gone", "1"]


def test_blank_lines_are_no_rows_and_an_open_quote_is_told(
    tmp_path: Path, tracked: Tracked
) -> None:
    (tmp_path / "blank.csv").write_text("\n\na,b\n1,2\n\n3,4\n")
    (tmp_path / "open.csv").write_text('a,b\n1,x\n2,"never closed\n3,y\n')

    _, blank = tracked("ingest", source=tmp_path / "blank.csv")
    _, opened = tracked("ingest", source=tmp_path / "open.csv")

    assert loaded(blank).to_dict("list") == {"a": [1, 3], "b": [2, 4]}
    assert loaded(opened)["a"].tolist() == [1]
    assert "never closed" in opened.artifact("bad_rows").load()["text"][0]


def test_a_file_on_the_web_is_read(tmp_path: Path, tracked: Tracked) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "orders.csv").write_text(TEXT)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "site")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            _, run = tracked("ingest", source=f"http://127.0.0.1:{server.server_port}/orders.csv")
        finally:
            server.shutdown()
            thread.join()

    pd.testing.assert_frame_equal(loaded(run), TABLE, check_dtype=False)


def test_names_are_made_unique_and_may_be_missing(tmp_path: Path, tracked: Tracked) -> None:
    (tmp_path / "named.csv").write_text('a,A,,"say ""hi"""\n1,2,3,4\n')
    (tmp_path / "plain.csv").write_text("1,2\n3,4\n")

    _, named = tracked("ingest", source=tmp_path / "named.csv")
    _, plain = tracked("ingest", source=tmp_path / "plain.csv", header=False)

    assert list(loaded(named)) == ["a", "A_1", "column2", 'say "hi"']
    assert loaded(plain).to_dict("list") == {"column0": [1, 3], "column1": [2, 4]}


@pytest.mark.s3
def test_objects_of_a_bucket_are_read(s3_store_uri: str, tracked: Tracked) -> None:
    bucket = open_store(s3_store_uri)
    bucket.put("day/a.csv", TEXT.encode())
    bucket.put("day/b.csv.gz", gzip.compress(TEXT.encode()))

    _, one = tracked("ingest", source=f"{s3_store_uri}/day/b.csv.gz")
    _, all_of_them = tracked("ingest", source=f"{s3_store_uri}/*/*")

    pd.testing.assert_frame_equal(loaded(one), TABLE, check_dtype=False)
    assert loaded(all_of_them)["id"].tolist() == [1, 2, 3] * 2


class TestDatabases:
    def test_a_query_of_a_file(self, tmp_path: Path, tracked: Tracked) -> None:
        write_sqlite(tmp_path / "shop.sqlite")
        query = "SELECT id, amount * 2 AS twice FROM orders WHERE id > 1"

        _, run = tracked("ingest", source=tmp_path / "shop.sqlite", query=query)

        assert loaded(run)["id"].tolist() == [2, 3]
        assert loaded(run)["twice"].fillna(-1).tolist() == [-1, 7]

    def test_a_url_whose_parts_are_in_the_environment(
        self, tmp_path: Path, tracked: Tracked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_sqlite(tmp_path / "shop.sqlite")
        monkeypatch.setenv("SHOP", str(tmp_path / "shop.sqlite"))

        _, run = tracked("ingest", database="sqlite:///${SHOP}", query="SELECT * FROM orders")

        pd.testing.assert_frame_equal(loaded(run), TABLE, check_dtype=False)

    @pytest.mark.parametrize(
        ("database", "query", "said"),
        [
            ("postgresql://me:hunter2@host/db", "SELECT 1", "holds the password of 'host'"),
            ("postgresql://host/db?password=hunter2", "SELECT 1", "holds the password"),
            ("postgresql://me:${NOT_THERE}@host/db", "SELECT 1", "not in the environment"),
            ("sqlite:///:memory:", None, "needs a query"),
            ("sqlite:///:memory:", "SELECT * FROM nowhere", "no such table: nowhere"),
            ("nodb://host/db", "SELECT 1", "no driver for 'nodb'"),
            ("words", "SELECT 1", "is no URL"),
        ],
    )
    def test_what_cannot_be_asked_is_refused_without_a_password(
        self, database: str, query: str | None, said: str, tracked: Tracked
    ) -> None:
        with pytest.raises(rayml.SpecError) as refused:
            tracked("ingest", database=database, query=query)

        assert said in str(refused.value)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "database", ["postgresql://me:hunter2@host/db", "postgresql://host/db?password=hunter2"]
)
def test_no_record_has_a_password(database: str, own_store: Path) -> None:
    with pytest.raises(rayml.SpecError):
        rayml.hub.get("ingest")(database=database, query="SELECT 1")

    (run,) = rayml.runs()
    assert run.params["database"] == database.replace("hunter2", "***")
    files = [path for path in own_store.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


class TestBadInput:
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("words.md", b"words", "none to read"),
            ("broken.parquet", b"PAR1 no", "'broken.parquet' cannot be read"),
            ("broken.json", b'[{"a": 1}, {"a"', "'broken.json' cannot be read"),
            ("list.json", b"[1, 2]", "no objects"),
            ("broken.zip", b"PK no", "cannot be unpacked"),
            ("broken.csv.gz", b"no gzip", "cannot be unpacked"),
            ("broken.xlsx", b"no sheet", "'broken.xlsx' cannot be read"),
            ("empty.csv", b"", "no table"),
            ("words.json", b"hello", "1 lines fit none"),
            ("random.csv", bytes(range(256)) * 400, "cannot be read"),
            ("deep.json", b'{"a":' * 999 + b"1" + b"}" * 999, "cannot be read"),
        ],
    )
    def test_it_is_refused_with_a_way_out(
        self, name: str, content: bytes, said: str, tmp_path: Path, tracked: Tracked
    ) -> None:
        (tmp_path / name).write_bytes(content)

        with pytest.raises(rayml.SpecError) as refused:
            tracked("ingest", source=tmp_path / name)

        assert said in str(refused.value)

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"types": {"vale": "int64"}}, "'vale', which is not there; did you mean 'value'"),
            ({"types": {"value": "int46"}}, "the type 'int46'; did you mean 'int64'"),
            ({"query": "SELECT 1"}, "takes no query"),
            ({"database": "sqlite://"}, "give source= or database="),
        ],
    )
    def test_wrong_parameters_are_refused(
        self, values: dict[str, Any], said: str, tmp_path: Path, tracked: Tracked
    ) -> None:
        with pytest.raises(rayml.SpecError) as refused:
            tracked("ingest", source=write_column(tmp_path, ["1"]), **values)

        assert said in str(refused.value)

    def test_no_rows_and_empty_columns_are_told(self, tmp_path: Path, tracked: Tracked) -> None:
        (tmp_path / "none.csv").write_text("a,b\n")
        (tmp_path / "empty.csv").write_text("a,b\n1,\n2,NA\n")

        _, none = tracked("ingest", source=tmp_path / "none.csv")
        _, empty = tracked("ingest", source=tmp_path / "empty.csv")

        assert "0 rows" in warnings_of(none)
        assert list(loaded(none)) == ["a", "b"]
        assert "No row has a value of 'b'" in warnings_of(empty)

    def test_latin_text_is_read_with_a_warning(self, tmp_path: Path, tracked: Tracked) -> None:
        (tmp_path / "old.csv").write_bytes("city\nKöln\n".encode("latin-1"))

        _, run = tracked("ingest", source=tmp_path / "old.csv")

        assert loaded(run)["city"].tolist() == ["Köln"]
        assert "no UTF-8" in warnings_of(run)


def test_a_frame_of_mixed_types_is_typed_too(tracked: Tracked) -> None:
    frame = pd.DataFrame({"a": ["1", "2"], "b": ["x", 1], 3: [[1], [2]]})

    _, run = tracked("ingest", source=frame)

    assert loaded(run)["a"].tolist() == [1, 2]
    assert loaded(run)["b"].tolist() == ["x", "1"]
    assert [list(value) for value in loaded(run)["3"]] == [[1], [2]]
