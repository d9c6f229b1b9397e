"""Which version is served: that of the input, and then whatever its alias names.

A new version gets replicas of its own beside the old ones. Once they are up, the endpoint asks
them instead; if they do not come up, nothing has happened.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rayml

from . import _apps
from ._endpoint import Backend
from ._replica import Replica, Served

if TYPE_CHECKING:
    from ._endpoint import Endpoint

_MODELS = "rayml://models/"
# A request that has just picked the old version is in its hands by then.
_SETTLE_S = 1.0
_RETIRE_S = 60.0
_RETRY_S = (30.0, 600.0)


@dataclass(frozen=True)
class Alias:
    """An alias of a registered model."""

    model: str
    name: str
    store: Any

    def __str__(self) -> str:
        return f"{self.model}@{self.name}"

    def served(self) -> Served:
        """Return the version that it names now.

        Raises:
            NotFound: It names none.
            StoreError: The store does not answer.
        """
        version = rayml.model(self.model, store=self.store).version(self.name)
        return Served(version.artifact, self.model, version.version)


@dataclass
class Rolling:
    """Brings versions up and takes them away.

    Attributes:
        replicas: How many each version has.
        batch: At most so many requests go into one call of a model.
        alias: What is followed; None if nothing is.
    """

    context: rayml.Context
    owner: _apps.Owner
    replicas: int
    batch: int
    trusted: bool
    alias: Alias | None
    secrets: dict[str, str]
    _count: int = 0
    _said: str = ""
    _retired: list[tuple[float, Backend]] = field(default_factory=list)
    _failed: Served | None = None
    _retry_at: float = 0.0
    _pause_s: float = _RETRY_S[0]
    _history: list[dict[str, Any]] = field(default_factory=list)

    def bring_up(self, served: Served) -> Backend:
        """Return a version that answers.

        Raises:
            SpecError: It cannot be loaded, or cannot predict its own example.
        """
        self._count += 1
        app = f"{self.owner.prefix}{self.owner.attempt}-{self._count}"
        made_with = (served, self.batch, self.secrets)
        try:
            handle = _apps.deploy(app, self.replicas, Replica, *made_with, trusted=self.trusted)
        except _apps.NotUp as exc:
            self._note(served, f"failed: {exc}")
            raise rayml.SpecError(
                f"model {served} ({served.artifact.uri}) cannot be served: {exc}"
            ) from exc
        self._note(served, "served")
        self.context.log_label("version", str(served))
        return Backend(served, app, handle)

    def look(self, endpoint: Endpoint, *, asked: bool = False) -> tuple[int, dict[str, Any]]:
        """Serve what the alias names now; return what came of it, as an HTTP answer.

        Args:
            endpoint: What asks the replicas.
            asked: By somebody, so that what has failed before is tried again.
        """
        now = endpoint.backend.served
        if self.alias is None:
            return 409, {"error": f"the endpoint follows no alias and stays with {now}"}
        try:
            wanted = self.alias.served()
        except rayml.RaymlError as exc:
            self._say(f"{exc}; {now} stays")
            return 503, {"error": f"{exc}; {now} stays"}
        self._said = ""
        if wanted.version == now.version:
            return 200, {"model": now.name, "version": now.version, "changed": False}
        is_known = self._failed is not None and self._failed.version == wanted.version
        if is_known and not asked and time.monotonic() < self._retry_at:
            return 502, {"error": f"{wanted} has failed before; {now} stays"}
        return self._roll(endpoint, wanted, is_known=is_known)

    def _roll(
        self, endpoint: Endpoint, wanted: Served, *, is_known: bool
    ) -> tuple[int, dict[str, Any]]:
        old = endpoint.backend
        print(f"{self.alias} names {wanted} now; bringing it up")
        try:
            new = self.bring_up(wanted)
        except rayml.SpecError as exc:
            self._pause_s = min(2 * self._pause_s, _RETRY_S[1]) if is_known else _RETRY_S[0]
            self._failed, self._retry_at = wanted, time.monotonic() + self._pause_s
            endpoint.figures.rolled("failed")
            print(f"{exc}; {old.served} stays")
            return 502, {"error": f"{exc}; {old.served} stays"}
        endpoint.backend = new
        endpoint.figures.rolled("served")
        endpoint.figures.serves(wanted)
        self._failed = None
        self._retired.append((time.monotonic(), old))
        print(f"serving {wanted} in the place of {old.served}")
        return 200, {"model": wanted.name, "version": wanted.version, "changed": True}

    def _say(self, text: str) -> None:
        """Print what is wrong with the registry, once for as long as it is."""
        if text != self._said:
            print(text)
        self._said = text

    def retire(self) -> None:
        """End the replicas of versions that answer nobody any more."""
        now = time.monotonic()
        for since, old in [*self._retired]:
            is_idle = old.in_hand == 0 and now > since + _SETTLE_S
            if is_idle or now > since + _RETIRE_S:
                self._retired.remove((since, old))
                _apps.delete(old.app)

    def _note(self, served: Served, outcome: str) -> None:
        self._history.append(
            {
                "time": datetime.now(UTC),
                "version": str(served),
                "artifact": served.artifact.uri,
                "outcome": outcome,
            }
        )
        self.context.log_table("versions", self._history[-1000:])


def find_served(model: rayml.Input, store: Any) -> tuple[Served, list[str]]:  # noqa: ANN401
    """Return what an input names, and the names of all models that it is a version of.

    Raises:
        SpecError: It is no model.
    """
    if (artifact := model.artifact) is None:
        raise rayml.SpecError(
            f"model is {model.uri}, which is no model of a run; give {_MODELS}NAME@ALIAS or "
            "rayml://runs/RUN/NAME"
        )
    if artifact.kind != "model":
        raise rayml.SpecError(f"{artifact.uri} is a {artifact.kind} and no model; give one")
    digest = model.record.digest or artifact.digest
    versions = [
        version
        for registered in rayml.models(store=store)
        for version in registered.versions
        if version.artifact.uri == artifact.uri and version.artifact.digest == digest
    ]
    if not versions:
        return Served(artifact, artifact.uri), []
    last = versions[-1]
    served = Served(last.artifact, last.model, last.version)
    return served, list(dict.fromkeys(version.model for version in versions))


def find_alias(follow: str, names: list[str], store: Any) -> Alias:  # noqa: ANN401
    """Return the alias that a user names, alone or with its model.

    Args:
        follow: `production`, `churn@production` or `rayml://models/churn@production`.
        names: The models that the input is a version of.
        store: Where they are registered.

    Raises:
        SpecError: Nobody says of which model.
        NotFound: There is no such model or alias.
    """
    name, at, alias = follow.removeprefix(_MODELS).partition("@")
    if at:
        found = Alias(name, alias, store)
    elif len(names) == 1:
        found = Alias(names[0], name, store)
    elif names:
        raise rayml.SpecError(
            f"follow={follow!r} may be an alias of {' or '.join(names)}; write {names[0]}@{follow}"
        )
    else:
        raise rayml.SpecError(
            f"follow={follow!r} is an alias, and the model is registered nowhere; register it, "
            "or leave follow out"
        )
    found.served()
    return found
