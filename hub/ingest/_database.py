"""Databases, by SQLAlchemy. No word of a password leaves this module."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

import rayml

from ._read import add_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

    from ._read import Staged

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PASSWORDS = ("password", "passwd", "pwd", "sslpassword", "token")  # as drivers call them
_ROWS = 20_000


def check_database(database: str) -> URL:
    """Return a database's URL, with what the environment holds filled in.

    Raises:
        SpecError: It is no URL, a variable is not set, or it holds a password itself.
    """
    try:
        written = sa.make_url(database)
    except (ArgumentError, ValueError):
        return _parsed(_filled(database))  # a variable may hold all of it
    if _holds_password(written):
        raise rayml.SpecError(
            f"database= holds the password of {written.host!r}, and the run's record keeps it; "
            "change it, hand the new one over as secrets={'PASSWORD': …} and write ${PASSWORD}"
        )
    query = {
        name: _filled(value) if isinstance(value, str) else tuple(map(_filled, value))
        for name, value in written.query.items()
    }
    return written.set(
        username=_filled(written.username or "") or None,
        password=_filled(str(written.password or "")) or None,
        host=_filled(written.host or "") or None,
        database=_filled(written.database or "") or None,
        query=query,
    )


def _holds_password(url: URL) -> bool:
    """Tell whether a URL has a password that no variable stands for."""
    given = {name.lower(): str(value) for name, value in url.query.items()}
    found = [str(url.password or ""), *(given.get(name, "") for name in _PASSWORDS)]
    return any(_VARIABLE.sub("", password) for password in found)


def _filled(written: str) -> str:
    """Return text with the variables of the environment that it names."""
    for name in _VARIABLE.findall(written):
        if name not in os.environ:
            raise rayml.SpecError(
                f"database= names ${{{name}}}, which is not in the environment; set it, or "
                "hand it over as one of the job's secrets="
            )
    return _VARIABLE.sub(lambda found: os.environ[found[1]], written)


def _parsed(database: str) -> URL:
    try:
        return sa.make_url(database)
    except (ArgumentError, ValueError):
        raise rayml.SpecError(
            "database= is no URL; write one as postgresql+psycopg://user@host/name"
        ) from None


def read_database(staged: Staged, url: URL, query: str | None) -> None:
    """Add what a query gives, some rows at a time.

    Raises:
        SpecError: There is no query or driver, or the database refuses.
    """
    if not query:
        raise rayml.SpecError("database= needs a query; say in query= what to read")
    try:
        engine = sa.create_engine(url)
        with engine.connect().execution_options(stream_results=True, yield_per=_ROWS) as opened:
            found = opened.execute(sa.text(query))
            add_batches(staged, list(found.keys()), _rows(found))
    except NoSuchModuleError as exc:
        raise rayml.SpecError(
            f"SQLAlchemy has no driver for {url.drivername!r}; install its package and name it in "
            "the job's requirements="
        ) from exc
    except ImportError as exc:
        raise rayml.SpecError(
            f"the driver {exc.name!r} of {url.drivername!r} is not installed; name its package in "
            "the job's requirements="
        ) from exc
    except SQLAlchemyError as exc:
        # Not `from exc`: what a driver says may hold the URL.
        raise rayml.SpecError(
            f"the database {url.render_as_string(hide_password=True)} refused: "
            f"{_hidden(str(getattr(exc, 'orig', None) or exc), url)}; check it and the query"
        ) from None


def _rows(found: sa.CursorResult[Any]) -> Iterator[list[tuple[object, ...]]]:
    for part in found.partitions(_ROWS):
        yield [tuple(row) for row in part]


def _hidden(said: str, url: URL) -> str:
    said = said.strip().partition("\n")[0]
    return said.replace(str(url.password), "***") if url.password else said
