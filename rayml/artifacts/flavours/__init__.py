"""How models of each library are kept: one module a format, none of which loads its library early.

A format is the library's own where that is open and stable, and a pickle only where it is asked
for by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.artifacts.record import ArtifactRecord

__all__ = ["Flavour", "StoredModel"]


@dataclass(frozen=True)
class StoredModel:
    """A model's files, checked, in a folder that is gone once it is loaded.

    Attributes:
        folder: Where they lie, by the names they were saved under.
        record: What the journal keeps of it.
        trusted: Whoever loads it said that its code may run.
    """

    folder: Path
    record: ArtifactRecord
    trusted: bool


class Flavour(Protocol):
    """What each module here has."""

    def fits(self, model: object, /) -> bool:
        """Whether such a model is kept this way if nobody asks for another; imports nothing."""

    def save(self, model: Any, folder: Path, example: Any, /) -> dict[str, object]:  # noqa: ANN401
        """Write the model's files and return what else is to be known of it, as JSON.

        The example has been run; it is None if there is none. Whatever goes wrong is raised as it
        comes.
        """

    def load(self, stored: StoredModel, /) -> Any:  # noqa: ANN401
        """Return the model, as its library's own object. No code of its own runs without trust."""

    def predict(self, model: Any, data: Any, /) -> Any:  # noqa: ANN401
        """Return what the model says of a DataFrame's or an array's rows, in numpy arrays."""
