"""`Run`: one tracked execution of a job, to wait for, look at, and read from later."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rayml.curves import find_best, read_curve, read_summary
from rayml.errors import SpecError
from rayml.failure import failure_of
from rayml.logs import LogReader, follow
from rayml.notebook import render_run
from rayml.result import decode_result
from rayml.run_list import RunList
from rayml.store import read_blob
from rayml.tracker.catalog import open_catalog
from rayml.tracker.changes import NO_EDITS, RunEdited, RunsArchived, RunsDeleted
from rayml.tracker.edits import change_runs, edited, read_edited
from rayml.tracker.long_params import load_long
from rayml.tracker.reader import artifact_of, read_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from rayml.artifacts import Artifact
    from rayml.curves import Best
    from rayml.errors import RaymlError
    from rayml.spec import InputRecord, Spec
    from rayml.store import Store
    from rayml.tracker.changes import Edits
    from rayml.tracker.runs import RunRecord
    from rayml.tracker.series import Summary

_POLL_S = 0.2
_REMOTE_POLL_S = 1.0


class Driver(Protocol):
    """Whoever sees a run through: this process, or a job on a cluster."""

    def payload(self) -> bytes | None:
        """Return what the run was submitted with, packed, if this process still has it."""

    def cancel(self, grace_s: float, by: str) -> None:
        """Ask for the run's end."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for `timeout` seconds."""

    def is_alive(self) -> bool:
        """Tell whether it still works on the run."""

    @property
    def failure(self) -> RaymlError | None:
        """Why the run's end could not be recorded, if so."""


class Run:
    """One tracked execution of a job.

    Attributes are read from the store whenever they are used, so they are always of now; those of
    an ended run never change.
    """

    def __init__(
        self,
        spec: Spec,
        store: Store,
        *,
        driver: Driver | None = None,
    ) -> None:
        """Not for users: `submit`, `get_run` and `runs` make runs."""
        self._spec = spec
        self._store = store
        self._driver = driver
        self._ended: RunRecord | None = None

    @property
    def id(self) -> str:
        """Unique, and sorts by time of submission."""
        return self._spec.run

    @property
    def name(self) -> str:
        """What people call it."""
        return self._spec.name

    @property
    def experiment(self) -> str:
        """What it belongs to."""
        return self._spec.experiment

    @property
    def spec(self) -> Spec:
        """The job as it was submitted."""
        return self._spec

    @property
    def store(self) -> Store:
        """Where it is recorded."""
        return self._store

    @property
    def labels(self) -> dict[str, str]:
        """Words to find it by, as they were given, logged and changed by `set_labels`."""
        return dict(edited(self._record(), self._edits()).labels)

    @property
    def notes(self) -> str:
        """What people wrote about it; see `set_notes`."""
        return self._edits().notes

    @property
    def is_archived(self) -> bool:
        """It is left out of lists."""
        return self._edits().is_archived

    @property
    def is_deleted(self) -> bool:
        """It was deleted; `undelete` brings it back as long as its data is not collected."""
        return self._edits().deleted_at is not None

    @property
    def parent(self) -> Run | None:
        """The run that started it, or None."""
        if self._spec.parent is None:
            return None
        return Run(read_runs(self._store).find(self._spec.parent).spec, self._store)

    @property
    def state(self) -> str:
        """`submitted`, `waiting`, `running`, `retrying`, `succeeded`, `failed` or `cancelled`."""
        return self._record().state

    @property
    def reason(self) -> str:
        """What it waits for, in words; empty if it does not wait."""
        return self._record().reason

    @property
    def attempt(self) -> int:
        """The newest attempt, counted from 1."""
        return self._record().attempt

    @property
    def params(self) -> dict[str, object]:
        """What it was given, and what its code logged; long values are read from the store."""
        record = self._record()
        return record.params | {
            n: load_long(d, self._store) for n, d in record.long_params.items()
        }

    @property
    def packages(self) -> str:
        """What was installed where it runs, a line each: `requirements` for another job.

        Empty if it has not begun. Of several ranks, it is the first one's.

        Raises:
            StoreError: The store cannot be read.
        """
        started = self._record().started
        if started is None or not started.packages:
            return ""
        return b"".join(read_blob(self._store, started.packages)).decode()

    @property
    def inputs(self) -> dict[str, InputRecord]:
        """The data it was given: name, URI, digest and size where known."""
        return dict(self._spec.inputs)

    @property
    def metrics(self) -> dict[str, float]:
        """Each metric's value at its highest step."""
        return dict(self._record().last_values())

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The newest artifact of each name."""
        record = self._record()
        return {name: artifact_of(record, name, self._store) for name in record.artifacts}

    @property
    def submitted_at(self) -> datetime:
        """When it was submitted, in UTC."""
        return datetime.fromtimestamp(self._spec.submitted_at, UTC)

    @property
    def started_at(self) -> datetime | None:
        """When its first attempt began, in UTC."""
        return _utc(self._record().started_at)

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, in UTC."""
        return _utc(self._record().ended_at)

    @property
    def result(self) -> object:
        """What its function returned.

        Raises:
            SpecError: It has not ended yet, or its result is a pickle from elsewhere: see
            `load_result`. JobFailed, JobCancelled, JobTimeout: It has no result.
        """
        return self.load_result(trusted=self._driver is not None)

    @property
    def error(self) -> RaymlError | None:
        """Why it failed, or None."""
        return failure_of(self._record())

    def load_result(self, *, trusted: bool = False) -> object:
        """Return what its function returned, also if that is stored as a pickle.

        Args:
            trusted: Loading a pickle runs the code in it. Say yes if you trust whoever ran it.

        Raises:
            SpecError: It has not ended yet, or the result is a pickle and not trusted.
            JobFailed, JobCancelled, JobTimeout: It has no result.
        """
        record = self._record()
        if not record.is_terminal:
            raise SpecError(
                f"run {self.id} is {record.state} and has no result yet; wait() for it"
            )
        if (error := self.error) is not None:
            raise error
        return (
            decode_result(record.result, self._store, trusted=trusted) if record.result else None
        )

    def wait(self, timeout_s: float | None = None) -> Run:
        """Return this run once it has ended well.

        Raises:
            JobFailed, JobCancelled, JobTimeout: It ended otherwise.
            TimeoutError: It has not ended after `timeout_s` seconds; it goes on.
            StoreError: Its end could not be recorded.
        """
        if self._driver is not None:
            self._driver.join(timeout_s)
            if not self._driver.is_alive() and self._driver.failure is not None:
                raise self._driver.failure
        else:
            self._poll(timeout_s)
        record = self._record()
        if not record.is_terminal:
            waits = f" ({record.reason})" if record.reason else ""
            raise TimeoutError(
                f"run {self.id} is still {record.state}{waits} after {timeout_s} s; it goes on"
            )
        if (error := self.error) is not None:
            raise error
        return self

    def logs(self, follow: bool = False, rank: int | None = None) -> str | Iterator[str]:  # noqa: FBT001, FBT002 - the contract
        """Return what it has printed, or yield it line by line until it ends.

        Args:
            follow: Yield complete lines, with their ends, as they come.
            rank: Of the worker to hear alone; by default all are, and each line says whose it is.

        Raises:
            SpecError: It has no such rank.
        """
        if rank is not None and rank not in range(self._spec.world_size):
            raise SpecError(
                f"run {self.id} has no rank {rank}; it has {self._spec.world_size}, from 0 on"
            )
        ranks = range(self._spec.world_size) if rank is None else (rank,)
        reader = LogReader(self._store, self.id, ranks)
        if not follow:
            return reader.read(is_last=True)
        return self._follow(reader)

    def cancel(self, grace_s: float = 10) -> None:
        """Ask for its end: its code gets KeyboardInterrupt; after `grace_s` its processes end.

        Returns when the request is recorded; `wait` tells when it has ended. A run that has ended
        stays as it is.

        Raises:
            ClusterUnreachable: The process that sees it through cannot be reached.
        """
        if self._record().is_terminal:
            return
        driver = self._driver
        if driver is None:
            from rayml.remote import find_driver  # noqa: PLC0415 - loads Ray

            driver = find_driver(self._spec, self._store)
        driver.cancel(grace_s, by="its user")

    def rerun(self, *, packages: bool = False, **overrides: Any) -> Run | Spec:  # noqa: ANN401 - as `submit` has them
        """Submit the same job again, as a new run, which records of which one it is a rerun.

        What is not said is as this run had it: its function, values, resources and all else.
        It goes to the same cluster. Code that was packed for a cluster is used as it was packed;
        else the file runs as it is now, and a line says if its repository is at another commit.

        Args:
            packages: Install the versions of packages that this run has found, but for Ray and
                rayml, which are the cluster's; `requirements` among the overrides count more.
            overrides: Arguments of `submit`, and `function`. Those of `params`, `inputs`, `env`,
                `labels` and `secrets` are laid over this run's by name; None takes one away, but
                of `params`, where it is a value. The others replace this run's. Resources leave
                the number of workers to the engine unless they say another one.

        Raises:
            SpecError: The call is wrong, or something is needed that is not recorded and has to
                be given: a function, input or parameter that was an object of another process, a
                secret, a file that is gone.
            CapacityError, ClusterUnreachable, StoreError: As `submit`.
        """
        from rayml.rerun import rerun  # noqa: PLC0415 - it submits, which makes a Run

        handed = None if self._driver is None else self._driver.payload()
        return rerun(self, handed, packages=packages, overrides=overrides)

    def history(
        self, metric: str, axis: str | None = None, rank: int | None = None
    ) -> pd.DataFrame:
        """Return a metric's points as a DataFrame with the columns step, time (UTC) and value.

        Args:
            metric: Its name.
            axis: Another metric to look at it along, such as the epoch or the samples seen: the
                column `axis`, before the others, has its last value at or before each step.
            rank: Of the worker that logged it; by default all ranks' values at a step are one,
                their mean unless `log_metric` was told otherwise.

        Raises:
            NotFound: It has logged no such metric.
        """
        return read_curve(self._record(), metric, axis, rank)

    def summary(self, metric: str) -> Summary:
        """Return a metric's count, first and last step, last value, and min and max with steps.

        Raises:
            NotFound: It has logged no such metric.
        """
        return read_summary(self._record(), metric)

    def best(self, metric: str, goal: Literal["min", "max"]) -> Best:
        """Return a metric's best value and the first step that has it.

        Raises:
            NotFound: It has logged no such metric.
        """
        return find_best(self._record(), metric, goal)

    def artifact(self, name: str) -> Artifact:
        """Return its newest artifact of this name.

        Raises:
            NotFound: It has logged none.
        """
        return artifact_of(self._record(), name, self._store)

    def children(self) -> RunList:
        """Return the runs that it started, the newest first; archived ones too."""
        found = [
            record
            for record in read_edited(self._store).values()
            if record.spec.parent == self.id and not record.attribute("deleted")
        ]
        found.sort(key=lambda record: record.spec.submitted_at, reverse=True)
        return RunList(Run(record.spec, self._store) for record in found)

    def trials(self) -> RunList:
        """Return the trials of a sweep: the runs that it started, in that order."""
        return RunList(reversed(self.children()))

    def set_labels(self, labels: Mapping[str, str | None]) -> None:
        """Set labels, also of a run that has ended; None takes one away, the others stay."""
        changes = {str(k): None if v is None else str(v) for k, v in labels.items()}
        change_runs(self._store, RunEdited(run=self.id, labels=changes))

    def set_notes(self, text: str) -> None:
        """Write about it in as many lines as you like, in place of what was written before."""
        change_runs(self._store, RunEdited(run=self.id, notes=str(text)))

    def archive(self) -> None:
        """Leave it out of lists, unless a `where` asks for `archived`; all else stays."""
        change_runs(self._store, RunsArchived(runs=[self.id], is_archived=True))

    def unarchive(self) -> None:
        """Undo `archive`."""
        change_runs(self._store, RunsArchived(runs=[self.id], is_archived=False))

    def delete(self) -> None:
        """Mark it as deleted; until its data is collected, `undelete` brings it back.

        Raises:
            SpecError: It has not ended yet.
        """
        if not (record := self._record()).is_terminal:
            raise SpecError(f"run {self.id} is {record.state}; cancel it before you delete it")
        change_runs(self._store, RunsDeleted(runs=[self.id], is_deleted=True))

    def undelete(self) -> None:
        """Undo `delete`.

        Raises:
            NotFound: Its data has been collected.
        """
        change_runs(self._store, RunsDeleted(runs=[self.id], is_deleted=False))

    def _edits(self) -> Edits:
        return open_catalog(self._store).refresh().runs.get(self.id, NO_EDITS)

    @property
    def is_over(self) -> bool:
        """It has ended, and whoever saw it through has nothing left to do."""
        return self._driver is None or not self._driver.is_alive()

    def __repr__(self) -> str:
        record = self._record()
        parts = [f"<rayml.Run {self.id} {self.name!r} {record.state}"]
        if record.reason:
            parts.append(f"({record.reason})")
        parts += [f"{name}={value:.6g}" for name, value in list(record.last_values())[:5]]
        return " ".join(parts) + ">"

    def _repr_html_(self) -> str:
        return render_run(self._record())

    def _record(self) -> RunRecord:
        if self._ended is not None:
            return self._ended
        record = read_runs(self._store).find(self.id)
        if record.is_terminal:
            self._ended = record
        return record

    def _is_ended(self) -> bool:
        return self._record().is_terminal or (self._driver is not None and self.is_over)

    def _poll(self, timeout_s: float | None) -> None:
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_ended() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(self._poll_s, left))

    @property
    def _poll_s(self) -> float:
        return _POLL_S if self._store.is_local else _REMOTE_POLL_S

    def _follow(self, reader: LogReader) -> Iterator[str]:
        yield from follow(
            lambda is_last: reader.read(is_last=is_last), self._is_ended, self._poll_s
        )


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
