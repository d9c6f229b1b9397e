"""What a tracker has done and has before it, counted for whoever watches it from outside."""

from __future__ import annotations

from dataclasses import dataclass, field

_MAX_WAITS = 10_000


@dataclass
class Load:
    """Counts since the last `take`, but for what waits.

    Attributes:
        batches: Made durable.
        size: Their bytes.
        failures: Writes that the store refused.
        waits_s: How long each of them waited for its acknowledgement; the first 10,000.
    """

    batches: int = 0
    size: int = 0
    failures: int = 0
    waits_s: list[float] = field(default_factory=list)

    def add(self, size: int, wait_s: float) -> None:
        """Count a batch that was made durable."""
        self.batches += 1
        self.size += size
        if len(self.waits_s) < _MAX_WAITS:
            self.waits_s.append(wait_s)

    def take(self) -> Load:
        """Return what was counted, and begin anew."""
        taken = Load(self.batches, self.size, self.failures, self.waits_s)
        self.batches = self.size = self.failures = 0
        self.waits_s = []
        return taken
