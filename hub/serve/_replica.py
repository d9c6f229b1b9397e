"""What Ray Serve runs: one version of a model, which checks rows and predicts them in batches."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd

from ._rows import Refused, Signature

if TYPE_CHECKING:
    from collections.abc import Callable

    import rayml

_LONG_BYTES = 256 * 1024
# Formats whose load() is the estimator itself, with its own predict() and predict_proba().
_ESTIMATORS = ("skops", "xgboost", "pickle")


@dataclass(frozen=True)
class Served:
    """One version of a model.

    Attributes:
        artifact: What was registered.
        name: The model's, or the artifact's URI if it is not registered.
        version: None if it is not registered.
    """

    artifact: rayml.Artifact
    name: str
    version: int | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


class Replica:
    """Holds the model in memory. One that cannot predict its own example does not come up."""

    def __init__(
        self, served: Served, batch: int, secrets: dict[str, str], *, trusted: bool
    ) -> None:
        """Load the model.

        Args:
            served: Which.
            batch: At most so many requests are predicted in one call of the model.
            secrets: Variables of the job that no runtime environment names.
            trusted: Run the code that the model brings along.
        """
        os.environ.update(secrets)
        self._served, self._batch = served, batch
        self._signature = Signature(served.artifact.meta)
        self._predict, self._classifier = _loaded(served.artifact, trusted=trusted)
        self._waiting: list[tuple[Any, bool, asyncio.Future[bytes]]] = []
        self._worker: asyncio.Task[None] | None = None
        if self._signature.example:
            rows = self._signature.read(msgspec.json.encode(self._signature.example))
            self._answers([rows], wanted=False)

    async def __call__(self, body: bytes, *, wanted: bool = False) -> tuple[int, bytes]:
        """Return the HTTP status and JSON for a request's body.

        They are of plain types: an own one would travel with its code each time.

        Args:
            body: Rows as JSON.
            wanted: Probabilities are.
        """
        try:
            if len(body) < _LONG_BYTES:
                rows = self._signature.read(body)
            else:  # the others go on meanwhile
                rows = await asyncio.to_thread(self._signature.read, body)
            self._check_wanted(wanted=wanted)
            return 200, await self._batched(rows, wanted=wanted)
        except Refused as exc:
            return exc.status, msgspec.json.encode({"error": exc.reason})

    def _check_wanted(self, *, wanted: bool) -> None:
        if wanted and self._classifier is None:
            raise Refused(422, f"model {self._served} gives no probabilities; leave them out")

    async def _batched(self, rows: object, *, wanted: bool) -> bytes:
        """Predict with whatever else waits when the model is free: nobody waits for a batch."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, wanted, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            wanted = any(wants for _, wants, _ in batch)
            rows = [rows for rows, _, _ in batch]
            answers = await asyncio.to_thread(self._each, rows, wanted=wanted)
            for (_, _, future), answer in zip(batch, answers, strict=True):
                if future.done():  # whoever asked has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        self._worker = None

    def _each(self, batch: list[Any], *, wanted: bool) -> list[bytes | Exception]:
        """Return an answer to each request; one that the model fails on spoils no other."""
        try:
            return [*self._answers(batch, wanted=wanted)]
        except Exception as exc:  # noqa: BLE001 - any model's own code
            if len(batch) > 1:
                return [self._each([rows], wanted=wanted)[0] for rows in batch]
            return [Refused(422, f"model {self._served} fails on these rows: {_last_words(exc)}")]

    def _answers(self, batch: list[Any], *, wanted: bool) -> list[bytes]:
        rows = batch[0] if len(batch) == 1 else _joined(batch)
        sizes = [len(part) for part in batch]
        told = {"predictions": self._predict(rows)}
        if wanted and self._classifier is not None:
            told["probabilities"] = self._classifier.predict_proba(rows)
        about: dict[str, Any] = {"model": self._served.name, "version": self._served.version}
        if wanted and self._classifier is not None:
            about["classes"] = _plain(self._classifier.classes_)
        parts = {name: _parts(values, sizes) for name, values in told.items()}
        return [
            _encoded(about | {name: part[number] for name, part in parts.items()})
            for number in range(len(batch))
        ]


def _loaded(artifact: rayml.Artifact, *, trusted: bool) -> tuple[Callable[[Any], Any], Any]:
    """Return what predicts, and the classifier if it is one that knows probabilities."""
    if artifact.format in _ESTIMATORS:
        model = artifact.load(trusted)
        if hasattr(model, "predict_proba") and hasattr(model, "classes_"):
            return model.predict, model
    return lambda rows: artifact.predict(rows, trusted=trusted), None


def _joined(batch: list[Any]) -> Any:  # noqa: ANN401
    if isinstance(batch[0], pd.DataFrame):
        joined = pd.concat(batch, ignore_index=True)
        # Those of one request are not those of another, which makes objects of them.
        kinds = [n for n, d in batch[0].dtypes.items() if isinstance(d, pd.CategoricalDtype)]
        return joined.astype(dict.fromkeys(kinds, "category"))
    return np.concatenate(batch)


def _parts(values: Any, sizes: list[int]) -> list[Any]:  # noqa: ANN401
    """Cut what a model says of all rows into what it says of each request's."""
    if isinstance(values, dict):
        cut = {str(name): _parts(part, sizes) for name, part in values.items()}
        return [{name: part[n] for name, part in cut.items()} for n in range(len(sizes))]
    if isinstance(values, tuple) or (isinstance(values, list) and hasattr(values[0], "shape")):
        return _parts(dict(enumerate(values)), sizes)
    if len(values) != sum(sizes):
        raise ValueError(f"it gives {len(values)} predictions of {sum(sizes)} rows")
    ends = [0, *accumulate(sizes)]
    return [_plain(values[start:end]) for start, end in pairwise(ends)]


def _plain(values: Any) -> Any:  # noqa: ANN401
    if hasattr(values, "tolist"):
        return values.tolist()
    return [_plain(value) if hasattr(value, "tolist") else value for value in values]


def _encoded(answer: dict[str, Any]) -> bytes:
    return msgspec.json.encode(answer, enc_hook=str)


def _last_words(exc: Exception) -> str:
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    return lines[0][:300]
