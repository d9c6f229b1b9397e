"""`Model` and `ModelVersion`: what is registered, and how its aliases and tags change."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rayml.artifacts import Artifact
from rayml.errors import NotFound, SpecError, suggestion
from rayml.tracker.catalog import open_catalog
from rayml.tracker.changes import AliasMoved, ModelState, ModelTagged

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from rayml.store import Store
    from rayml.tracker.changes import CatalogState, Change, VersionState

MODELS = "rayml://models/"
NAME = re.compile(r"\w[\w.-]{0,99}")


class ModelVersion:
    """One version of a model: an artifact that will never be another one."""

    def __init__(self, model: str, version: int, state: ModelState, store: Store) -> None:
        """Not for users: `register_model` and `Model.version` make versions."""
        self._model = model
        self._version = version
        self._state: VersionState = state.versions[version]
        self._aliases = [name for name, number in state.aliases.items() if number == version]
        self._artifact = Artifact(self._state.artifact, store)

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def version(self) -> int:
        """Counted from 1."""
        return self._version

    @property
    def uri(self) -> str:
        """`rayml://models/<model>@<version>`."""
        return f"{MODELS}{self._model}@{self._version}"

    @property
    def artifact(self) -> Artifact:
        """What was registered; its `run_id` is the run that made it."""
        return self._artifact

    @property
    def aliases(self) -> list[str]:
        """The aliases that named it when it was looked up."""
        return sorted(self._aliases)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags when it was looked up; `Model.set_tags` changes them."""
        return dict(self._state.tags)

    @property
    def registered_at(self) -> datetime:
        """When it became a version, in UTC, by the clock of whoever registered it."""
        return datetime.fromtimestamp(self._state.time, UTC)

    @property
    def registered_by(self) -> str:
        """Who registered it."""
        return self._state.by

    def load(self, *, trusted: bool = False) -> Any:  # noqa: ANN401
        """Return the model itself, as `Artifact.load` does."""
        return self.artifact.load(trusted=trusted)

    def predict(self, data: object, *, trusted: bool = False) -> Any:  # noqa: ANN401
        """Return what the model says of some rows, as `Artifact.predict` does."""
        return self.artifact.predict(data, trusted=trusted)

    def __repr__(self) -> str:
        aliases = "".join(f" @{alias}" for alias in self.aliases)
        return f"<rayml.ModelVersion {self.uri}{aliases}: {self._state.artifact.uri}>"


class Model:
    """A registered model. Attributes are read from the store whenever they are used."""

    def __init__(self, name: str, store: Store) -> None:
        """Not for users: `model` and `models` make them."""
        self._name = name
        self._store = store

    @property
    def name(self) -> str:
        """What it was registered as."""
        return self._name

    @property
    def versions(self) -> list[ModelVersion]:
        """All of them, the first one first."""
        state = self._state()
        return [self._of(number, state) for number in sorted(state.versions)]

    @property
    def latest(self) -> ModelVersion:
        """The newest version."""
        return self.version()

    @property
    def aliases(self) -> dict[str, int]:
        """Which version each alias names."""
        return dict(self._state().aliases)

    @property
    def tags(self) -> dict[str, str]:
        """Words about the model as a whole; each version has its own too."""
        return dict(self._state().tags)

    def version(self, which: int | str | None = None) -> ModelVersion:
        """Return a version by its number or by an alias of it; without either, the newest.

        Raises:
            NotFound: It has no such version or alias.
        """
        state = self._state()
        return self._of(_resolve(self._name, state, which), state)

    def set_alias(self, alias: str, version: int | str) -> None:
        """Let an alias name this version (or the one that another alias names) from now on.

        Whoever resolves the alias gets the old version or the new one, never none.

        Raises:
            SpecError: It is not a name for an alias.
            NotFound: There is no such version.
        """
        check_alias(alias)

        def decide(state: CatalogState) -> Change | None:
            model = find_model(state, self._name, self._store)
            number = _resolve(self._name, model, version)
            if model.aliases.get(alias) == number:
                return None
            return AliasMoved(model=self._name, alias=alias, version=number)

        open_catalog(self._store).append(decide)

    def unset_alias(self, alias: str) -> None:
        """Let an alias name nothing any more.

        Raises:
            NotFound: There is no such alias.
        """

        def decide(state: CatalogState) -> Change:
            model = find_model(state, self._name, self._store)
            _resolve(self._name, model, alias)
            return AliasMoved(model=self._name, alias=alias, version=None)

        open_catalog(self._store).append(decide)

    def set_tags(self, tags: Mapping[str, str | None], version: int | str | None = None) -> None:
        """Set tags of the model, or of one version of it; None takes one away, the others stay.

        Raises:
            NotFound: There is no such version.
        """
        changes = {str(k): None if v is None else str(v) for k, v in tags.items()}

        def decide(state: CatalogState) -> Change:
            model = find_model(state, self._name, self._store)
            number = None if version is None else _resolve(self._name, model, version)
            return ModelTagged(model=self._name, tags=changes, version=number)

        open_catalog(self._store).append(decide)

    def history(self) -> pd.DataFrame:
        """Return how its aliases moved: a row each, with time (UTC), alias, version and by.

        The version is None where an alias was taken away.
        """
        import pandas as pd  # noqa: PLC0415 - not needed to register

        moves = self._state().moves
        columns = {
            "time": pd.to_datetime([move.time for move in moves], unit="s", utc=True),
            "alias": [move.alias for move in moves],
            "version": pd.array([move.version for move in moves], dtype="Int64"),
            "by": [move.by for move in moves],
        }
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        state = self._state()
        aliases = "".join(f" {alias}={n}" for alias, n in sorted(state.aliases.items()))
        return f"<rayml.Model {self._name!r}: {len(state.versions)} version(s){aliases}>"

    def _of(self, number: int, state: ModelState) -> ModelVersion:
        return ModelVersion(self._name, number, state, self._store)

    def _state(self) -> ModelState:
        return find_model(open_catalog(self._store).refresh(), self._name, self._store)


def find_model(state: CatalogState, name: str, store: Store) -> ModelState:
    """Return a registered model, or raise NotFound."""
    if name not in state.models:
        known = suggestion(name, state.models)
        raise NotFound(f"store {store.uri} has no model {name!r}; {known}")
    return state.models[name]


def _resolve(name: str, model: ModelState, which: int | str | None) -> int:
    if which is None and not model.versions:
        raise NotFound(f"model {name!r} has no versions yet; register an artifact as its first")
    number = max(model.versions) if which is None else model.aliases.get(str(which))
    if number is None and str(which).isdecimal():
        number = int(which or 0)
    if number in model.versions:
        return number
    known = suggestion(str(which), [*map(str, model.versions), *model.aliases])
    raise NotFound(f"model {name!r} has no version or alias {str(which)!r}; {known}")


def check_model_name(what: str, name: str) -> None:
    """Accept a plain name, or raise SpecError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise SpecError(
            f"{what} name {name!r} is not plain; use up to 100 letters, digits and _ . -, the "
            "first a letter, digit or _"
        )


def check_alias(alias: str) -> None:
    """Accept a plain name that is no number, or raise SpecError."""
    check_model_name("alias", alias)
    if alias.isdecimal() or alias == "latest":
        raise SpecError(
            f"alias {alias!r} would be taken for a version; choose a word (the newest version is "
            "what a URI without @ names)"
        )
