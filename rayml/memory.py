"""Whom the kernel has killed for memory."""

from __future__ import annotations

import re
from pathlib import Path

OUT_OF_MEMORY = "it was killed for memory: its machine, or its container, had no more"


def oom_kills() -> int:
    """Return how many processes this machine's kernel has killed for memory since it started."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 0
