"""Where a tracker actor says what it does: lines of JSON among Ray's own logs on the head."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from ray._private import worker as ray_worker

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_BYTES = 10 * 1024 * 1024
_BACKUPS = 3
_COMMON = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


def open_tracker_log(name: str) -> None:
    """Write what `rayml.tracker` logs to `rayml-<name>.log`, which Ray's dashboard shows too."""
    node = ray_worker.global_worker.node
    assert node is not None  # noqa: S101 - an actor has one
    handler = RotatingFileHandler(
        Path(node.get_logs_dir_path(), f"rayml-{name}.log"),
        maxBytes=_MAX_BYTES,
        backupCount=_BACKUPS,
    )
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("rayml.tracker")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # What goes to an actor's stderr, Ray prints in the terminal of every driver.
    logger.propagate = False


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: Mapping[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        } | {name: value for name, value in vars(record).items() if name not in _COMMON}
        return json.dumps(line, default=str)
