"""The git repository that code lies in, as its files show it: a process would cost more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Repository:
    """A repository and one tree of files that is checked out of it.

    Attributes:
        root: The folder of these files.
        own: Where git keeps what is this tree's alone: its index, and what is checked out.
        shared: Where it keeps all else; the same, but for a tree that `git worktree` has added.
    """

    root: Path
    own: Path
    shared: Path

    def commit(self) -> str | None:
        """Return the commit that is checked out; None before the first one."""
        try:
            head = (self.own / "HEAD").read_text("ascii").strip()
            ref = head.removeprefix("ref: ")
            return head if ref == head else self._find(ref)
        except (OSError, UnicodeDecodeError):
            return None

    def _find(self, ref: str) -> str | None:
        for folder in (self.own, self.shared):
            if (folder / ref).exists():
                return (folder / ref).read_text("ascii").strip()
        packed = (self.shared / "packed-refs").read_text("ascii").splitlines()
        found = (line.split() for line in packed)
        return next((words[0] for words in found if words[-1:] == [ref]), None)


def find_repository(folder: Path) -> Repository | None:
    """Return the repository that a folder lies in, or None."""
    for root in (folder.resolve(), *folder.resolve().parents):
        if (root / ".git").exists():
            try:
                return _open(root)
            except (OSError, UnicodeDecodeError):
                return None
    return None


def _open(root: Path) -> Repository:
    own = root / ".git"
    if own.is_file():  # of a submodule, or a tree that was added
        own = root / own.read_text("utf-8").removeprefix("gitdir:").strip()
    common = own / "commondir"
    shared = own / common.read_text("utf-8").strip() if common.exists() else own
    return Repository(root, own, shared)
