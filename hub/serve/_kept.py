"""Requests that are kept for a later look, as `monitor` takes them: a sample of each window."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd

from ._rows import Refused

if TYPE_CHECKING:
    from ._rows import Signature

_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class _Pair:
    signature: Signature
    time: float
    body: bytes
    answer: bytes


class Kept:
    """A sample of the requests since it was last taken, each as likely as any other."""

    def __init__(self, rows: int) -> None:
        """Keep at most so many rows; 0 keeps none."""
        self._rows = rows
        self._pairs: list[_Pair] = []
        self._seen = 0
        self._bytes = 0
        self._random = random.Random()  # noqa: S311 - a sample is no secret
        self._lock = threading.Lock()

    def offer(self, signature: Signature, body: bytes, answer: bytes) -> None:
        """Keep a request, perhaps in the place of another one."""
        size = len(body) + len(answer)
        if not self._rows or size > _MAX_BYTES // 4:
            return
        pair = _Pair(signature, time.time(), body, answer)
        with self._lock:
            self._seen += 1
            if len(self._pairs) < self._rows and self._bytes + size <= _MAX_BYTES:
                self._pairs.append(pair)
                self._bytes += size
            elif (place := self._random.randrange(self._seen)) < len(self._pairs):
                old = self._pairs[place]
                self._bytes += size - len(old.body) - len(old.answer)
                self._pairs[place] = pair

    def take(self) -> pd.DataFrame | None:
        """Return what was kept as a table, and begin anew; None if there is nothing."""
        with self._lock:
            pairs, self._pairs, self._seen, self._bytes = self._pairs, [], 0, 0
        frames = [frame for pair in pairs if (frame := _frame(pair)) is not None]
        if not frames:
            return None
        rows = pd.concat(frames, ignore_index=True)
        if len(rows) > self._rows:
            rows = rows.sample(self._rows).sort_index(ignore_index=True)
        return rows


def _frame(pair: _Pair) -> pd.DataFrame | None:
    """Return a request's rows with their predictions; None if they are no table."""
    try:
        rows: Any = pair.signature.read(pair.body)
    except Refused:  # by the version that came while another one answered
        return None
    if not isinstance(rows, pd.DataFrame):
        if rows.ndim != 2:
            return None
        rows = pd.DataFrame(rows, columns=[str(number) for number in range(rows.shape[1])])
    answer = msgspec.json.decode(pair.answer)
    added: dict[str, Any] = _columns(answer["predictions"])
    added["predicted_at"] = pd.Timestamp(pair.time, unit="s")  # UTC
    added["version"] = answer["version"]
    free = {_free(name, rows): value for name, value in added.items()}
    whole: pd.DataFrame = pd.concat([rows, pd.DataFrame(free, index=rows.index)], axis=1)
    return whole


def _columns(predictions: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return predictions as columns: one, or one for each of what the model gives of a row."""
    if isinstance(predictions, dict):  # several outputs
        return {}
    if isinstance(predictions[0], list):
        return {
            f"prediction_{n}": list(part) for n, part in enumerate(zip(*predictions, strict=True))
        }
    return {"prediction": predictions}


def _free(name: str, rows: pd.DataFrame) -> str:
    return name if name not in rows.columns else _free(f"{name}_", rows)
