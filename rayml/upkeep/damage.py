"""What is wrong with one object of a store, and who loses what by it."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One object that is not as it was written.

    Attributes:
        key: Which one.
        what: What is wrong with it, as the rest of a sentence that the key begins.
        loss: What is lost, in words; empty for nothing.
        runs: The runs that lose it, sorted; there may be more that nothing tells of.
        is_expected: No damage, but what a crash leaves; the journal copes with it.
    """

    key: str
    what: str
    loss: str = ""
    runs: list[str] = field(default_factory=list)
    is_expected: bool = False

    def __str__(self) -> str:
        loss = self.loss or "nothing is lost"
        whose = f" (of {_names(self.runs)})" if self.runs else ""
        return f"{self.key}: {self.what}; {loss}{whose}"


def _names(runs: list[str]) -> str:
    shown = ", ".join(runs[:_SHOWN_RUNS])
    more = f" and {len(runs) - _SHOWN_RUNS} more" if len(runs) > _SHOWN_RUNS else ""
    return f"run{'s' if len(runs) > 1 else ''} {shown}{more}"
