"""A run's job, submitted again: from its record, from what the store has packed, or from memory.

What a record holds is given again as it is recorded. What no record holds (a callable, an object,
a parameter that JSON cannot hold) is in the run's payload: this process has it still if it sees
the run through itself, and the store if the run went to a cluster. The latter is not unpacked
before the new job does so: nobody unpickles here what others have stored.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import msgspec

from rayml.code import unpack_folder
from rayml.config import Resources
from rayml.engine import leave_to_resources
from rayml.errors import NotFound, SpecError, suggestion
from rayml.function import find_target, read_signature
from rayml.hubs import find_function
from rayml.hubs.folder import digest_of
from rayml.installed import OWN, exact_requirements
from rayml.job import Again, read_requirements, submit
from rayml.origin import read_origin
from rayml.spec import has_jobs_api
from rayml.store import open_store, read_blob
from rayml.tracker.long_params import load_long
from rayml.tracker.reader import find_artifact
from rayml.tracker.submissions import read_submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rayml.artifacts import Artifact
    from rayml.function import Signature
    from rayml.run import Run
    from rayml.runner import Payload
    from rayml.spec import InputRecord, Spec, Target
    from rayml.tracker.records import Submission

_SAME = (
    "args", "name", "experiment", "resources", "engine", "requirements", "retry", "timeout_s",
    "start_timeout_s", "autolog", "image",
)  # fmt: skip
_BY_NAME = ("params", "inputs", "labels", "env", "secrets")
_DEFAULTS = Resources()


def rerun(
    run: Run, handed: bytes | None, *, packages: bool, overrides: Mapping[str, Any]
) -> Run | Spec:
    """Submit a run's job again; `Run.rerun` says what is promised.

    Args:
        run: The run.
        handed: Its payload, if this process has it.
        packages: Install the versions that it has found.
        overrides: Arguments of `submit`, and `function`.
    """
    past = _Past(run, handed, overrides)
    past.function()  # whose absence is told before that of its values
    options = {**_options(run, overrides), "params": past.params(), "inputs": past.inputs()}
    if packages:
        options["requirements"] = _exact(run, overrides.get("requirements"))
    folder = past.folder()
    if past.is_read_anew:
        _tell_commit(run, folder or Path.cwd())
    return submit(past.again(), **options, working_dir=folder)  # type: ignore[arg-type]


def find_signature(run: Run, overrides: Mapping[str, Any]) -> Signature | None:
    """Return what a run's function takes when it is run again; None where that is not known.

    Raises:
        SpecError: Its code is not there.
    """
    past = _Past(run, None, overrides)
    function, folder = past.function(), past.folder()
    return read_signature(find_target(function, Path(folder or Path.cwd())), function)


class _Past:
    """A run that is to be repeated, with what is said otherwise, and where its values are."""

    def __init__(self, run: Run, handed: bytes | None, given: Mapping[str, Any]) -> None:
        _check(run, given)
        self._run = run
        self._spec = run.spec
        self._given = given
        self._handed = handed
        self._new = {name: dict(given.get(name) or {}) for name in ("params", "inputs")}

    def again(self) -> Again:
        kept = {"params": self._kept_params(), "inputs": self._kept_inputs()}
        is_needed = any(kept.values()) or self.function() is self._spec.target
        return Again(
            self.function(),
            run=self._run.id,
            payload=self._packed if is_needed else None,
            code=self._code if self._is_in_place else None,
            commit=self._spec.origin.commit if self._code else None,
            **kept,  # type: ignore[arg-type]
        )

    def function(self) -> Callable[..., object] | str | Path | Target:
        """Return what is run; the target itself where only the packed payload has it.

        Raises:
            SpecError: Nobody has it.
        """
        target = self._spec.target
        if target.digest and self._given.get("function") is None:
            return self._hub_target()
        if (given := self._given.get("function")) is not None:
            return given  # type: ignore[no-any-return]
        if target.kind != "callable":
            in_folder = f"{target.file}:{target.function}".rstrip(":")
            return in_folder if self._code and target.kind != "module" else target.text
        if self._own is not None and self._own.function is not None:
            return self._own.function
        if self._packed is None:
            raise SpecError(
                f"the function of run {self._run.id}, {target.text}, was an object of the process "
                "that submitted it and is not stored; give it as function="
            )
        return target

    def _hub_target(self) -> Target:
        """Return the very files of a hub function that were run, where they are now."""
        target = self._spec.target
        if self._code:
            file = unpack_folder(self._run.store, self._code) / target.file
            return msgspec.structs.replace(target, file=str(file))
        folder = Path(target.file).parent
        if folder.is_dir() and digest_of(folder) == target.digest:
            return target
        try:
            return find_function(f"{target.text}#{target.digest}").target
        except NotFound as exc:
            raise SpecError(
                f"hub function {target.text} of run {self._run.id} is not in {folder} any more as "
                "it was run; give it as function="
            ) from exc

    def folder(self) -> str | Path | None:
        """Return where the job runs; None if it needs no folder of its own.

        Raises:
            SpecError: It is not there.
        """
        if "working_dir" in self._given:
            return self._given["working_dir"]  # type: ignore[no-any-return]
        if self._code is not None:
            return unpack_folder(self._run.store, self._code)
        folder = Path(self._spec.working_dir)
        if not self._spec.working_dir or folder == Path.cwd():
            return None
        if folder.is_dir():
            return folder
        where = f"was in {folder} of {self._spec.origin.host}, which is not a folder here"
        if has_jobs_api(self._spec.cluster):
            where = "is not in the store any more"
        raise SpecError(f"the code of run {self._run.id} {where}; give working_dir=")

    @property
    def is_read_anew(self) -> bool:
        """The job's code is in a file, which may have changed."""
        is_given = self._code is not None or "function" in self._given
        return not is_given and self._spec.target.kind != "callable"

    def params(self) -> dict[str, object]:
        """Return the parameters that are given again."""
        kept = self._kept_params()
        old = {n: self._param(n) for n in self._old(self._spec.params) if n not in kept}
        return {**old, **self._new["params"]}

    def inputs(self) -> dict[str, object]:
        """Return the inputs that are given again."""
        kept = self._kept_inputs()
        records = self._old(self._spec.inputs).values()
        old = {record.name: self._input(record) for record in records if record.name not in kept}
        new = {n: self._anchored(v) for n, v in self._new["inputs"].items() if v is not None}
        return {**old, **new}

    def _old(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """Return those that nothing new takes the place of, be it a parameter or an input."""
        new = self._new["params"].keys() | self._new["inputs"].keys()
        return {name: value for name, value in recorded.items() if name not in new}

    def _param(self, name: str) -> object:
        if self._own is not None:
            return self._own.params[name]
        if (digest := self._spec.long_params.get(name)) is not None:
            return load_long(digest, self._run.store)
        return self._spec.params[name]

    def _input(self, record: InputRecord) -> object:
        if record.kind == "memory" and self._own is not None:
            return self._own.inputs[record.name]
        if record.kind == "path":
            return Path(record.uri)
        return record.uri if record.kind == "uri" else self._artifact(record)

    def _artifact(self, record: InputRecord) -> Artifact:
        if not self._is_in_place:
            raise SpecError(
                f"input {record.name!r} of run {self._run.id} is an artifact in "
                f"{self._run.store.uri}; give inputs={{{record.name!r}: …}}, or copy that store "
                "by rayml store copy and rerun it there"
            )
        return find_artifact(self._run.store, record.uri)

    def _anchored(self, value: object) -> object:
        """Return a path of now relative to the folder of now: the job's is from another time."""
        is_path = isinstance(value, Path) or (isinstance(value, str) and "://" not in value)
        if not is_path or "working_dir" in self._given or not value:
            return value
        return Path.cwd() / Path(str(value)).expanduser()

    def _kept_params(self) -> dict[str, object]:
        """Return those that only the packed payload has, as they are recorded.

        Raises:
            SpecError: There is none.
        """
        old = self._old(self._spec.params)
        kept = {n: old[n] for n in self._spec.described if n in old and self._own is None}
        if kept and not self._may_keep:
            name, text = next(iter(kept.items()))
            raise SpecError(
                f"parameter {name!r} of run {self._run.id} cannot be told from its record, "
                f"{text!r}; give params={{{name!r}: …}}"
            )
        return kept

    def _kept_inputs(self) -> dict[str, InputRecord]:
        """As `_kept_params`, of inputs."""
        old: dict[str, InputRecord] = self._old(self._spec.inputs)
        kept = {n: r for n, r in old.items() if r.kind == "memory" and self._own is None}
        if kept and not self._may_keep:
            name, record = next(iter(kept.items()))
            raise SpecError(
                f"input {name!r} of run {self._run.id} was an object in memory, {record.uri}, and "
                f"is not stored; give inputs={{{name!r}: …}}"
            )
        return kept

    @property
    def _may_keep(self) -> bool:
        """There is a packed payload, and no other function that would come with it."""
        return self._given.get("function") is None and self._packed is not None

    @cached_property
    def _own(self) -> Payload | None:
        """The payload that this process has made, but not what others have packed into it."""
        payload = None if self._handed is None else cloudpickle.loads(self._handed)
        return payload if payload is not None and payload.base is None else None

    @cached_property
    def _packed(self) -> bytes | None:
        if self._handed is not None:
            return self._handed
        stored = self._submission
        return None if stored is None else b"".join(read_blob(self._run.store, stored.payload))

    @cached_property
    def _submission(self) -> Submission | None:
        try:
            return read_submission(self._run.store, self._run.id)
        except NotFound:
            return None

    @property
    def _code(self) -> str | None:
        """Digest of the packed folder that is used."""
        if "working_dir" in self._given or self._submission is None:
            return None
        return self._submission.code

    @property
    def _is_in_place(self) -> bool:
        """The new run is recorded in the store that has the old one's code."""
        store = self._given.get("store")
        return store is None or open_store(store).uri == self._run.store.uri


def _check(run: Run, given: Mapping[str, Any]) -> None:
    if run.spec.target.kind == "block":
        raise SpecError(
            f"run {run.id} is a block of code that was not submitted; run that code again"
        )
    known = inspect.signature(submit).parameters
    if unknown := sorted(given.keys() - known.keys()):
        raise SpecError(f"a rerun takes no {unknown[0]!r}; {suggestion(unknown[0], known)}")
    for name in _BY_NAME[:-1]:
        if not isinstance(given.get(name), Mapping | None):
            raise SpecError(f"{name}={given[name]!r} is no dict; give names with their values")


def _options(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `submit` is told of all but the function, its values and its folder."""
    spec = run.spec
    options = {name: getattr(spec, name) for name in _SAME}
    options |= {"cluster": spec.cluster or None, "borrow": spec.borrows, "store": run.store}
    options |= {n: v for n, v in given.items() if n not in (*_BY_NAME, "function", "working_dir")}
    options["labels"] = _laid_over(spec.labels, given.get("labels"))
    options["env"] = _laid_over(spec.env, given.get("env"))
    options["secrets"] = _secrets(spec.secrets, given.get("secrets"))
    return options | _workers(spec, given)


def _laid_over(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: v for name, v in {**old, **(new or {})}.items() if v is not None}


def _secrets(names: Iterable[str], given: Any) -> Any:  # noqa: ANN401 - as `submit` takes them
    """Return the values of secrets; None for one that has to be given, which `submit` tells."""
    if isinstance(given, str):
        return given
    values = given if isinstance(given, Mapping) else dict.fromkeys(given or ())
    gone = {n for n, value in values.items() if value is None} if values is given else set()
    wanted = {**dict.fromkeys(names), **values}
    return {n: v or os.environ.get(n) for n, v in wanted.items() if n not in gone}


def _workers(spec: Spec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return engine and resources so that what is new of one does not contradict the other."""
    if spec.engine is None or ("engine" in given and "resources" in given):
        return {}
    wishes = {name: wish for name, wish in spec.engine.wishes().items() if wish is not None}
    if "engine" in given:  # the old one's workers went with it
        plain = {name: getattr(_DEFAULTS, name) for name in wishes}
        return {"resources": replace(spec.resources, **plain)}
    if "resources" in given:
        new = given["resources"] or _DEFAULTS
        said = [n for n in wishes if getattr(new, n) != getattr(_DEFAULTS, n)]
        return {"engine": leave_to_resources(spec.engine, said)}
    return {}


def _exact(run: Run, wanted: Sequence[str] | str | Path | None) -> list[str]:
    """Return requirements that install what a run has found, as far as an index has it."""
    if not (packages := run.packages):
        raise SpecError(
            f"run {run.id} has not begun, and its packages are not known; leave out packages"
        )
    for line in packages.splitlines():
        if line.startswith("#") and not line.startswith(OWN):
            _say(f"not installed again: {line.removeprefix('# ')}")
    return exact_requirements(packages, run.spec.requirements, read_requirements(wanted))


def _tell_commit(run: Run, folder: str | Path) -> None:
    """Say that the code may have changed since."""
    then, now = run.spec.origin.commit, read_origin(Path(folder)).commit
    if then and now and then != now:
        _say(f"run {run.id} was at commit {then[:10]}, and its code is at {now[:10]} now")


def _say(text: str) -> None:
    print(f"rayml: {text}", file=sys.stderr)  # noqa: T201 - else another result would be a riddle
