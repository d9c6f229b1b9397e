"""What notebooks show of a run."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayml.tracker.runs import RunRecord


def render_run(run: RunRecord) -> str:
    """Return a table of its state, params, metrics and artifacts."""
    rows = {
        "state": f"{run.state} {run.reason}".strip(),
        "params": ", ".join(f"{k}={v}" for k, v in run.params.items()),
        "metrics": ", ".join(f"{k}={v:.6g}" for k, v in run.last_values()),
        "artifacts": ", ".join(run.artifacts),
    }
    cells = "".join(
        f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows.items()
    )
    title = html.escape(f"{run.spec.name} ({run.spec.run})")
    return f"<table><caption>{title}</caption>{cells}</table>"
