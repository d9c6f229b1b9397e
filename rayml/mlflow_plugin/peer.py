"""Another MLflow, to take runs from or to give runs to: a database, a folder or a server."""

from __future__ import annotations

import os
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from rayml.errors import SpecError, StoreError, StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow import MlflowClient

_ANSWER_S = 10.0
_SQLITE = "sqlite:///"
_TABLES = frozenset({"experiments", "runs", "alembic_version"})
_NEW_SUFFIXES = (".db", ".sqlite", ".sqlite3")
PAGE = 1000


class Peer(NamedTuple):
    """Another MLflow.

    Attributes:
        uri: As MLflow names it.
        artifacts: Where a database keeps the artifacts of what is written to it; "" for others.
    """

    uri: str
    artifacts: str
    client: MlflowClient


def open_peer(location: str, *, is_new: bool = False) -> Peer:
    """Return the MLflow at a path or URL, which is looked at before it is used.

    It becomes this process's own MLflow: by that `models:/` URIs are resolved, whichever client is
    asked.

    Args:
        location: `mlflow.db`, `mlruns`, the folder that holds either, `http://host:5000`, or any
            tracking URI that MLflow knows.
        is_new: A database that is not there yet is made.

    Raises:
        SpecError: There is none, or something else lies there, or MLflow is not installed.
        StoreUnreachable: The server does not answer.
        StoreError: MLflow cannot open it.
    """
    # What is asked for is to talk to this one and to nobody else.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = _uri(location, is_new=is_new)
    try:
        import mlflow  # noqa: PLC0415 - an extra
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
    except ImportError as exc:
        raise SpecError("this needs MLflow; pip install 'rayml[mlflow]'") from exc
    try:
        artifacts = _artifacts_of(uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    except MlflowException as exc:
        raise StoreError(f"MLflow cannot open {location!r}: {_first_line(exc)}") from exc
    return Peer(uri, artifacts, client)


def pages(ask: Callable[..., Any], **options: Any) -> Iterator[Any]:  # noqa: ANN401 - MLflow's own entities
    """Yield all that a method of MLflow's client finds, page by page."""
    token = None
    while True:
        found = ask(page_token=token, **options)
        yield from found
        token = found.token
        if not token:
            return


def _uri(location: str, *, is_new: bool) -> str:
    scheme, is_uri, _ = location.partition("://")
    if scheme.startswith("rayml"):
        raise SpecError(f"{location!r} is a store of rayml's; give an MLflow database or server")
    if scheme in ("http", "https"):
        _check_server(location)
        return location
    if location.startswith(_SQLITE):
        location = unquote(location.removeprefix(_SQLITE))
    elif scheme == "file" and is_uri:
        location = unquote(location.removeprefix("file://"))
    elif is_uri:
        return location
    return _path_uri(Path(location).expanduser().absolute(), is_new=is_new)


def _path_uri(path: Path, *, is_new: bool) -> str:
    if path.is_dir():
        return _folder_uri(path)
    if path.is_file():
        _check_database(path)
    elif not is_new:
        raise SpecError(f"there is nothing at {str(path)!r}; give mlflow.db, mlruns or a URL")
    elif path.suffix not in _NEW_SUFFIXES:
        raise SpecError(f"a new database is called .db, not {path.name!r}; give such a path")
    return f"{_SQLITE}{path}"


def _folder_uri(folder: Path) -> str:
    """Return the URI of a folder of MLflow's, or of the database or folder that lies in it."""
    if (folder / "mlflow.db").is_file():
        return _path_uri(folder / "mlflow.db", is_new=False)
    for path in (folder, folder / "mlruns"):
        if any(path.glob("*/meta.yaml")):
            # MLflow wants to hear that somebody knows that it is an old form.
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            return path.as_uri()
    raise SpecError(f"folder {str(folder)!r} holds no runs of MLflow's; give mlflow.db or mlruns")


def _check_database(path: Path) -> None:
    """Refuse what is no database of MLflow's, in which MLflow would lay its own tables."""
    asked, names = "select name from sqlite_master where type = 'table'", set[str]()
    with suppress(sqlite3.Error):
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        with closing(database):
            names = {name for (name,) in database.execute(asked)}
    if not names >= _TABLES:
        raise SpecError(f"{str(path)!r} is no database of MLflow's; give its mlflow.db")


def _check_server(url: str) -> None:
    """Ask once: MLflow itself would ask for minutes."""
    try:
        urllib.request.urlopen(url, timeout=_ANSWER_S).close()  # noqa: S310 - http or https
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "reason", exc)
        raise StoreUnreachable(f"no MLflow answers at {url}: {reason}; is it running?") from exc


def _artifacts_of(uri: str) -> str:
    """Make a database that is not there yet; return where it keeps artifacts."""
    if not uri.startswith(_SQLITE):
        return ""
    from mlflow.store.tracking.sqlalchemy_store import (  # noqa: PLC0415 - an extra
        SqlAlchemyStore,
    )

    path = Path(uri.removeprefix(_SQLITE))
    root = (path.parent / f"{path.stem}-artifacts").as_uri()
    SqlAlchemyStore(uri, root)
    return root


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0]
