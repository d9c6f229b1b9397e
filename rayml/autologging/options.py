"""What a call of `autolog` asks for beyond what is logged anyway."""

from __future__ import annotations

_asked: set[str] = set()


def ask_for(option: str) -> None:
    """Have something logged that costs more than the rest."""
    _asked.add(option)


def is_asked_for(option: str) -> bool:
    """Tell whether anybody has asked for it."""
    return option in _asked


def forget_all() -> None:
    """Undo `ask_for`."""
    _asked.clear()
