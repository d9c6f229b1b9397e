"""Sees one run through: starts attempts, explains waiting, times out, cancels, retries, ends.

It lives in a thread of the process that submitted the run, or in the driver of its Ray job: the
same code in both. Whatever happens, the run's end is recorded, if need be without Ray.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import ray
from ray.exceptions import RayError, TaskCancelledError

from rayml import _ray, logs, policy, processes, runner
from rayml._ray import RAY_DIED
from rayml.engine import Horovod, Spark
from rayml.environment import runtime_env
from rayml.errors import ClusterUnreachable, JournalFenced, NotFound, RaymlError, SpecError
from rayml.memory import oom_kills
from rayml.places import Places
from rayml.problem import redacted
from rayml.redaction import Redactor
from rayml.tracker.abandoned import close_shard_of
from rayml.tracker.client import ActorTransport, Producer
from rayml.tracker.records import (
    CancelRequested,
    Ended,
    Problem,
    Retrying,
    Started,
    Submitted,
    Used,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future

    from rayml.runner import Outcome
    from rayml.spec import Spec
    from rayml.store import Store
    from rayml.tracker.tracker import Status

_TICK_S = 1.0
_QUIET_S = 0.5
_BEAT_S = 10.0
_CANCEL_GRACE_S = 10.0
_ANY_ATTEMPT = 2**31


class _Stopped(Exception):
    """The attempt was ended from outside: cancelled, or out of time."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass
class _Begun:
    """An attempt that waits for its place, or to run there."""

    attempt: int
    at: float
    reason: str = ""


@dataclass
class _Running:
    """What is known about the attempt in hand."""

    begun: _Begun
    task: ray.ObjectRef[Any]
    end: Future[Any]
    started: float | None = None
    ranks: list[Started] = field(default_factory=list)
    oom_kills: int = 0

    @property
    def attempt(self) -> int:
        return self.begun.attempt


class Supervisor(threading.Thread):
    """One run, from its submission to its recorded end."""

    def __init__(
        self,
        spec: Spec,
        payload: bytes,
        secrets: Mapping[str, str],
        store: Store,
        connection: _ray.Connection,
        attempt: int = 1,
        code: str | None = None,
    ) -> None:
        """Record the submission durably; `start` does the rest.

        Args:
            spec: The job.
            payload: The function and its values.
            secrets: What must not be written down.
            store: Where to record.
            connection: Where to run.
            attempt: With which to begin; a later one goes on with a run that is recorded.
            code: Digest of the packed folder that the job runs in, if that is not here.

        Raises:
            StoreError: The submission could not be recorded.
            SpecError: The run's id is taken.
        """
        super().__init__(name=f"rayml-{spec.run}", daemon=True)
        self._spec = spec
        self._secrets = dict(secrets)
        self._store = store
        self._connection = connection
        self._actor: Any = _ray.tracker_actor(store)
        self._first_attempt = attempt
        self._code = code
        self._producer = Producer(ActorTransport(self._actor), spec.run, attempt)
        self._redactor = Redactor(secrets.values())
        self._payload = ray.put(payload)
        self._places = Places(spec, self._producer.record)
        self._version = 1  # the submission itself is the first
        self._watch: Future[Any] | None = None
        self.ended: Ended | None = None
        self.failure: RaymlError | None = None
        self._used: list[Used] = []
        self._over = threading.Event()
        if attempt == 1:
            self._producer.record(Submitted(run=spec.run, time=time.time(), spec=spec))

    def payload(self) -> bytes | None:
        """Return the function and its values, packed, as long as this process's Ray is there."""
        if self._has_ray():
            with suppress(RayError, ValueError):  # the latter from a Ray that came after it
                return bytes(ray.get(self._payload))
        return None

    def cancel(self, grace_s: float, by: str) -> None:
        """Record that the run is to end; the supervisor hears of it from the tracker."""
        request_cancel(self._actor, self._spec.run, grace_s, by)

    def cancel_soon(self, grace_s: float, by: str) -> None:
        """As `cancel`, from a signal handler, which must not wait."""
        threading.Thread(target=self.cancel, args=(grace_s, by), daemon=True).start()

    def run(self) -> None:
        """Execute the run; then `ended` says how it ended, or `failure` why nothing does."""
        threading.Thread(target=self._beat, name="rayml-beat", daemon=True).start()
        try:
            self._end(self._execute())
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - nothing may leave the run open
            self._end_after(exc)
        finally:
            self._over.set()

    def _beat(self) -> None:
        """Let the tracker hear that somebody sees this run through, whatever else is slow."""
        while not self._over.wait(_BEAT_S):
            with suppress(Exception):  # without Ray there is nobody to tell
                self._actor.beat.remote(self._spec.run)
                self._places.beat()

    def _end_after(self, exc: BaseException) -> None:
        if not self._has_ray():  # then Ray raises this and that, SystemExit too
            self._end_without_ray(RAY_DIED)
        elif isinstance(exc, RaymlError):
            self.failure = exc
        else:
            self._end_without_ray(Problem(kind="lost", message=f"rayml itself failed: {exc!r}"))

    def _execute(self) -> Ended:
        if self._first_attempt > 1:
            self._end_remains()
        attempt = self._first_attempt
        while True:
            outcome = self._attempt(attempt)
            self._used = [] if outcome.used is None else [outcome.used]
            problem = outcome.problem
            if problem is None:
                return self._ended("succeeded", attempt, outcome)
            if problem.kind == "cancelled":
                return self._ended("cancelled", attempt, outcome)
            decision = policy.decide(attempt, problem.kind, self._spec.retry)
            if isinstance(decision, policy.GiveUp) or not self._has_ray():
                return self._ended("failed", attempt, outcome)
            self._record_retry(attempt, decision, problem)
            if self._is_cancelled_within(decision.delay_s):
                cancelled = Problem(kind="cancelled", message="it was cancelled between attempts")
                return self._ended("cancelled", attempt, runner.Outcome(problem=cancelled))
            attempt += 1

    def _end_remains(self) -> None:
        """End what the attempt has left whose supervisor died: Ray ends only its own processes."""
        status = cast("Status", ray.get(self._actor.watch.remote(self._spec.run, 0)))
        self._end_ranks(status.ranks)

    def _ended(self, state: str, attempt: int, outcome: Outcome) -> Ended:
        return Ended(
            run=self._spec.run,
            time=time.time(),
            attempt=attempt,
            state=state,
            problem=outcome.problem,
            result=outcome.result,
        )

    # --- one attempt ---

    def _attempt(self, attempt: int) -> Outcome:
        self._producer.attempt = attempt
        begun = _Begun(attempt, time.monotonic())
        place = None
        try:
            environment = self._environment(begun)
            place = self._take_place(begun)
            order = runner.Order(
                self._spec,
                attempt,
                self._producer.transport,
                self._store,
                self._secrets,
                self._connection.address,
                tuple(sys.path),
                self._code,
                place.demand,
                "" if self._spec.engine else place.own_group,
            )
            demand = self._demand(place)
            task = _ray.start_attempt(
                runner.execute, (order, self._payload), place, demand, environment,
                name=f"rayml:{self._spec.name}",
            )  # fmt: skip
            return self._await(_Running(begun, task, task.future(), oom_kills=oom_kills()))
        except _Stopped as exc:
            return runner.Outcome(problem=redacted(exc.problem, self._redactor))
        finally:
            if self._has_ray():
                self._leave(place, attempt)

    def _demand(self, place: _ray.Place) -> Mapping[str, float]:
        """Return what the attempt's own task takes of its place."""
        if self._spec.engine is not None:  # it only waits: the workers are the ranks'
            return {}
        if place.own_group:  # the CPUs are for its tasks too, with which it shares them
            return {name: amount for name, amount in place.demand.items() if name != "CPU"}
        return place.demand

    def _leave(self, place: _ray.Place | None, attempt: int) -> None:
        if place is None:
            self._places.drop()
        else:
            self._clear(place, attempt)
            self._places.give_back(place, attempt)

    def _clear(self, place: _ray.Place, attempt: int) -> None:
        """Remove what Spark has left on the workers, whoever ended its session."""
        if isinstance(self._spec.engine, Spark):
            name = _ray.session_name(self._spec.run, attempt)
            folders = _ray.scratch_folders(name, self._spec.engine.conf)
            _ray.on_nodes(place.nodes(), _ray.clear_session, folders)

    def _environment(self, begun: _Begun) -> dict[str, object]:
        try:
            explain = partial(self._explain, begun)
            return runtime_env(self._spec, self._code, explain)
        except SpecError as exc:
            raise _Stopped(Problem(kind="requirements", message=str(exc))) from exc

    def _take_place(self, begun: _Begun) -> _ray.Place:
        try:
            return self._places.take(
                begun.attempt,
                lambda future: self._pause(future, begun),
                lambda reason: self._explain(begun, reason),
            )
        except RaymlError as exc:
            raise _Stopped(Problem(kind="capacity", message=str(exc))) from exc

    def _pause(self, future: Future[Any], begun: _Begun) -> None:
        """Wait a moment for a future; give up when the run is cancelled or waits for too long."""
        ready = _ray.wait_for_any([future, self._watching()], _QUIET_S)
        status = self._take_status() if self._watch in ready else None
        if status is not None and status.cancel is not None:
            raise _Stopped(_cancelled_by(status.cancel.by))
        if (problem := self._overdue(begun)) is not None:
            raise _Stopped(problem)

    def _await(self, running: _Running) -> Outcome:
        while True:
            ready = _ray.wait_for_any([running.end, self._watching()], self._tick(running))
            if running.end in ready:
                return self._outcome(running)
            if self._watch in ready:
                self._hear(running, self._take_status())
            if not self._has_ray():
                return self._outcome_without_ray(running)
            self._check_clock(running)

    def _has_ray(self) -> bool:
        return _ray.is_connected() and _ray.is_alive()

    def _outcome_without_ray(self, running: _Running) -> Outcome:
        if self._connection.is_own:
            for rank in running.ranks:
                end_rank(self._store, rank, self._redactor)
        return runner.Outcome(problem=RAY_DIED)

    def _tick(self, running: _Running) -> float:
        if running.started is None:
            return _QUIET_S
        if self._spec.timeout_s is None:
            return _TICK_S
        left = running.started + self._spec.timeout_s - time.monotonic()
        return min(_TICK_S, max(0.0, left))

    def _watching(self) -> Future[Any]:
        if self._watch is None:
            self._watch = self._actor.watch.remote(self._spec.run, self._version).future()
        return self._watch

    def _take_status(self) -> Status | None:
        watch, self._watch = self._watch, None
        try:
            status: Status = cast("Future[Any]", watch).result()
        except (RayError, NotFound):
            return None
        self._version = status.version
        return status

    def _hear(self, running: _Running, status: Status | None) -> None:
        self._note_start(running, status)
        if status is not None and status.cancel is not None:
            problem = _cancelled_by(status.cancel.by)
            self._halt(running, status.cancel.grace_s, problem)

    def _note_start(self, running: _Running, status: Status | None) -> None:
        ranks = status.ranks if status is not None else []
        if not ranks or ranks[0].attempt != running.attempt:
            return
        running.ranks = ranks
        if running.started is None:
            running.started = time.monotonic()

    def _check_clock(self, running: _Running) -> None:
        now, spec = time.monotonic(), self._spec
        if running.started is not None:
            if spec.timeout_s is not None and now >= running.started + spec.timeout_s:
                message = f"it ran longer than timeout_s={spec.timeout_s:g}"
                self._halt(running, _CANCEL_GRACE_S, Problem(kind="timeout", message=message))
            return
        if (problem := self._overdue(running.begun)) is not None:
            self._halt(running, 0, problem)
        if now - running.begun.at >= _QUIET_S:
            self._explain(running.begun, self._places.why_not_started())

    def _overdue(self, begun: _Begun) -> Problem | None:
        """Return the problem of an attempt that waits for longer than it may."""
        limit = self._spec.start_timeout_s
        if limit is None or time.monotonic() - begun.at < limit:
            return None
        reason = f" ({begun.reason})" if begun.reason else ""
        message = f"it waited longer than start_timeout_s={limit:g}{reason}"
        return Problem(kind="start_timeout", message=message)

    def _explain(self, begun: _Begun, reason: str) -> None:
        if reason != begun.reason:
            begun.reason = reason
            self._producer.record(
                Waiting(run=self._spec.run, time=time.time(), attempt=begun.attempt, reason=reason)
            )

    def _halt(self, running: _Running, grace_s: float, problem: Problem) -> None:
        """End the attempt: ask the code first, then end its processes, all of them."""
        if running.started is None:
            ray.cancel(running.task, force=True)
        for rank in running.ranks:
            self._on_node_of(rank, processes.interrupt, rank.pid)
        _ray.wait_for_any([running.end], grace_s)
        self._clean_up(running)
        raise _Stopped(problem)

    def _outcome(self, running: _Running) -> Outcome:
        try:
            outcome = msgspec.json.decode(running.end.result(), type=runner.Outcome)
        except TaskCancelledError:
            return runner.Outcome(problem=Problem(kind="cancelled", message="it was interrupted"))
        except RayError as exc:
            if running.started is None and _ray.wait_for_any([self._watching()], _QUIET_S):
                self._note_start(running, self._take_status())
            self._clean_up(running)
            pid = running.ranks[0].pid if running.ranks else 0
            problem = _ray.explain_death(exc, pid, running.oom_kills)
            problem = self._places.explain_loss(problem)
            return runner.Outcome(problem=redacted(problem, self._redactor))
        if self._may_leave_ranks(outcome):
            self._clean_up(running)
        if outcome.problem is not None and self._spec.engine is not None:
            problem = self._places.explain_loss(outcome.problem)
            return msgspec.structs.replace(outcome, problem=problem)
        return outcome

    def _may_leave_ranks(self, outcome: Outcome) -> bool:
        """Tell whether ranks were killed: for another's failure, or in a job that goes on."""
        engine = self._spec.engine
        is_elastic = isinstance(engine, Horovod) and engine.elastic is not None
        return is_elastic or (engine is not None and outcome.problem is not None)

    def _clean_up(self, running: _Running) -> None:
        """End what an attempt has left running, and store what it had printed."""
        if self._spec.engine is not None:  # the task that waits for the ranks
            ray.cancel(running.task, force=True)
        self._end_ranks(running.ranks)

    def _end_ranks(self, ranks: Iterable[Started]) -> None:
        for rank in ranks:
            self._on_node_of(rank, end_rank, self._store, rank, self._redactor)

    def _on_node_of(self, rank: Started, function: Callable[..., object], *args: object) -> None:
        if rank.node in ("", _ray.this_node()):
            function(*args)
        elif _ray.node_is_alive(rank.node):
            with suppress(*_ray.NODE_LOSSES):  # Ray hears of it late, and nothing is left there
                ray.get(_ray.run_on_node(rank.node, function, *args), timeout=60)

    # --- around the attempts ---

    def _record_retry(self, attempt: int, decision: policy.TryAgain, problem: Problem) -> None:
        self._producer.record(
            *self._used,
            Retrying(
                run=self._spec.run,
                time=time.time(),
                attempt=attempt,
                delay_s=decision.delay_s,
                reason=f"{decision.reason}; the next one starts in {decision.delay_s:g} s",
                problem=problem,
            ),
        )
        self._used = []
        self._producer.attempt = attempt + 1  # the tracker takes nothing from the old one now

    def _is_cancelled_within(self, delay_s: float) -> bool:
        deadline = time.monotonic() + delay_s
        while (left := deadline - time.monotonic()) > 0:
            if _ray.wait_for_any([self._watching()], left):
                status = self._take_status()
                if status is not None and status.cancel is not None:
                    return True
        return False

    def _end(self, ended: Ended) -> None:
        if not self._has_ray():
            self._end_without_ray(ended.problem or RAY_DIED)
            return
        try:
            self._producer.record(*self._used, ended)
        except JournalFenced:
            return  # someone else has closed this run
        self.ended = ended

    def _end_without_ray(self, problem: Problem) -> None:
        """Close the run in the journal directly: the tracker has gone with its Ray."""
        if not self._connection.is_own:
            # That tracker lives on, and others' runs with it: taking its journal would end those.
            self.failure = ClusterUnreachable(
                f"run {self._spec.run} ended without a record: {problem.message}; connect again"
            )
            return
        try:
            close_shard_of(self._store, self._spec.run, problem)
        except RaymlError as exc:
            self.failure = exc


def _cancelled_by(name: str) -> Problem:
    return Problem(kind="cancelled", message=f"it was cancelled by {name}")


def end_rank(store: Store, rank: Started, redactor: Redactor) -> None:
    """On the machine of a rank: end its processes and store the rest of what it printed."""
    processes.kill_run(rank.run, rank.pid, rank.time)
    logs.ship_rest(store, rank.run, rank.attempt, redactor, rank.rank)


def request_cancel(actor: ray.actor.ActorHandle[Any], run: str, grace_s: float, by: str) -> None:
    """Record durably that a run is to end; one that has ended stays as it is.

    Raises:
        NotFound: The tracker does not have the run.
    """
    # Whichever attempt is the current one: the newest possible is never refused as stale.
    producer = Producer(ActorTransport(actor), run, _ANY_ATTEMPT)
    request = CancelRequested(run=run, time=time.time(), grace_s=grace_s, by=by)
    with suppress(JournalFenced):
        producer.record(request)
