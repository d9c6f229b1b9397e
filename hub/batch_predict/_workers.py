"""The workers: how many there are, what each does, and what becomes of rows that fail."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Never

import pyarrow as pa
import ray
import ray.data

import rayml

from ._model import Predictor, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.data import Dataset

    from ._model import Job
    from ._rows import Source

_MOST = 0.5
_ENOUGH = 1000
_KEPT = 100_000


def workers() -> tuple[int, float]:
    """Return how many workers the job has room for, and the CPUs that each asks Ray for.

    Where the function's own task holds them, it is idle meanwhile, and the workers take its CPUs
    without asking: Ray would let them wait for its end.
    """
    if not ray.is_initialized():
        ray.init()
    try:
        held = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    except AssertionError:  # this is no task of Ray's
        held = 0
    if held:
        return max(1, int(held)), 0
    return max(1, int(ray.cluster_resources().get("CPU", 1))), 1


def predict_all(
    context: rayml.Context, source: Source, job: Job, tally: Tally, width: int, cpus: float
) -> rayml.Artifact:
    """Log the rows with their predictions, which are computed while they are written.

    Raises:
        SpecError: A worker has given up.
    """
    predicted = parts_of(source).map_batches(
        Worker,
        fn_constructor_args=(source, job, tally),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1 if cpus else width, max_size=width),
        num_cpus=cpus,
    )
    try:
        return context.log_dataset("predictions", predicted)
    except ray.exceptions.RayTaskError:
        if not (why := tally.given_up()):
            raise
    tally.end_workers()
    raise rayml.SpecError(why)


def parts_of(source: Source) -> Dataset:
    """Return the places of the source's parts, each of which is one piece of work, in order."""
    places = ray.data.from_items(
        [{"place": place} for place in range(len(source.parts))],
        override_num_blocks=len(source.parts),
    )
    places.context.enable_progress_bars = False
    places.context.execution_options.preserve_order = True
    return places


class Worker:
    """One process with the model, which is loaded once."""

    def __init__(self, source: Source, job: Job, tally: Tally) -> None:
        tally.join()
        self._source, self._job, self._tally = source, job, tally
        self._predictor = Predictor(job)
        self._seen = self._failed = 0

    def __call__(self, work: dict[str, Any]) -> Iterator[pa.Table]:
        """Yield the rows that the model predicts; others go to the tally."""
        for place in work["place"].tolist():
            for number, rows in enumerate(self._source.read(place, self._job.batch_size)):
                yield self._predicted(rows, f"{place}-{number}")

    def _predicted(self, rows: pa.Table, batch: str) -> pa.Table:
        self._seen += rows.num_rows
        good: list[pa.Table] = []
        bad: list[tuple[int, str]] = []
        for start, part, error in self._parts(rows, 0):
            if error:
                bad.append((start, error))
            else:
                good.append(part)
        if bad:
            self._count(rows, batch, bad)
        return pa.concat_tables(good) if good else self._job.schema.empty_table()

    def _parts(self, rows: pa.Table, start: int) -> Iterator[tuple[int, pa.Table, str]]:
        """Yield parts that are predicted, and each row that cannot be with its error."""
        try:
            yield start, self._predictor(rows), ""
        except Exception as exc:  # noqa: BLE001 - whatever the model raises
            if self._tally.failed == "raise":
                self._tally.give_up(
                    f"the model fails on a batch of {rows.num_rows:,} rows: {words(exc)}; "
                    "failed='apart' goes on without the rows that it fails on"
                )
            if rows.num_rows == 1:
                yield start, rows, words(exc)
                return
            half = rows.num_rows // 2
            yield from self._parts(rows.slice(0, half), start)
            yield from self._parts(rows.slice(half), start + half)

    def _count(self, rows: pa.Table, batch: str, bad: list[tuple[int, str]]) -> None:
        self._failed += len(bad)
        if self._seen >= _ENOUGH and self._failed > _MOST * self._seen:
            self._tally.give_up(
                f"the model fails on {self._failed:,} of {self._seen:,} rows, the last one: "
                f"{bad[-1][1]}; give it rows such as it was trained on"
            )
        places, errors = zip(*bad, strict=True)
        failed = rows.take(pa.array(places)).append_column("error", pa.array(errors))
        self._tally.add(batch, failed)


class Tally:
    """Rows that fail, in an actor of their own; of a batch that is tried again they count once."""

    def __init__(self, failed: str, actor: Any) -> None:  # noqa: ANN401
        self.failed, self._actor = failed, actor

    @classmethod
    def start(cls, failed: str) -> Tally:
        """Start counting."""
        if failed not in {"apart", "raise"}:
            raise rayml.SpecError(f"failed is {failed!r}; say 'apart' or 'raise'")
        return cls(failed, ray.remote(num_cpus=0)(_Failures).remote())

    def add(self, batch: str, rows: pa.Table) -> None:
        """Count a batch's rows, and return when they are counted."""
        ray.get(self._actor.add.remote(batch, rows))

    def join(self) -> None:
        """Note that this actor works; one that comes when the others have given up does not."""
        ray.get(self._actor.join.remote(ray.get_runtime_context().current_actor))

    def end_workers(self) -> None:
        """End what works: after a failure, Ray Data's own references may keep it and its CPUs."""
        for worker in ray.get(self._actor.joined.remote()):
            ray.kill(worker)

    def give_up(self, why: str) -> Never:
        """End the work: Ray Data would pass on that a worker failed, but not as what."""
        ray.get(self._actor.give_up.remote(why))
        raise rayml.SpecError(why)

    def given_up(self) -> str:
        """Return why a worker has given up; empty if none has."""
        return str(ray.get(self._actor.given_up.remote()))

    def log(self, context: rayml.Context, good: int) -> tuple[int, list[str]]:
        """Log the rows and what they failed with; return how many there were, and that in words.

        Raises:
            SpecError: No row was predicted.
        """
        count, rows, errors = ray.get(self._actor.told.remote())
        if not count:
            return 0, []
        context.log_dataset("failed_rows", rows)
        reason, times = errors.most_common(1)[0]
        if not good:
            raise rayml.SpecError(
                f"the model fails on all {count:,} rows, on {times:,} of them with: {reason}; "
                "give it rows such as it was trained on"
            )
        said = f"the model failed on {count:,} rows, on {times:,} of them with: {reason}"
        return int(count), [said]


class _Failures:
    """The actor: all rows are counted, and the first 100,000 are kept."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._rows: list[pa.Table] = []
        self._errors: Counter[str] = Counter()
        self._why = ""
        self._workers: list[Any] = []

    def join(self, worker: Any) -> None:  # noqa: ANN401
        if self._why:
            raise rayml.SpecError(self._why)
        self._workers.append(worker)

    def joined(self) -> list[Any]:
        return self._workers

    def give_up(self, why: str) -> None:
        self._why = why

    def given_up(self) -> str:
        return self._why

    def add(self, batch: str, rows: pa.Table) -> None:
        if batch in self._counts:
            return
        if sum(self._counts.values()) < _KEPT:
            self._rows.append(rows)
        self._counts[batch] = rows.num_rows
        self._errors.update(rows["error"].to_pylist())

    def told(self) -> tuple[int, pa.Table | None, Counter[str]]:
        count = sum(self._counts.values())
        rows = pa.concat_tables(self._rows, promote_options="permissive") if count else None
        return count, rows, self._errors
