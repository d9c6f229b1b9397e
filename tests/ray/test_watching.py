"""What a tracker shows to those who run the cluster: Ray's own metrics, and a log in JSON."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ray

from tests.ray.eventually import eventually

if TYPE_CHECKING:
    import rayml
    from rayml.store import Store
    from tests.ray.conftest import Submit

pytestmark = pytest.mark.ray


def read_metrics(store: Store) -> dict[str, float]:
    """Return what Prometheus would read of the store's tracker on this node, by metric."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    ours = (line for line in text.splitlines() if f'store="{store.uri}"' in line)
    found = (re.match(r"ray_(\w+)\{.*\} (\S+)$", line) for line in ours)
    return {match[1]: float(match[2]) for match in found if match}


def log_numbers(context: rayml.Context) -> None:
    for n in range(10):
        context.log_metric("loss", n, sync=True)


def test_its_counters_are_in_ray_s_metrics(submit: Submit, store: Store) -> None:
    submit(log_numbers).wait()

    def read_all() -> dict[str, float] | None:
        found = read_metrics(store)
        return found if found.get("rayml_tracker_acknowledged_batches_total", 0) >= 10 else None

    metrics = eventually(read_all, 60)
    assert metrics["rayml_tracker_acknowledge_seconds_count"] >= 10
    assert metrics["rayml_tracker_written_bytes_total"] > 1_000
    assert metrics["rayml_tracker_queued_batches"] == 0


def test_it_logs_in_json_what_happens_to_it(submit: Submit, store: Store) -> None:
    submit(log_numbers).wait()

    session = ray.get_runtime_context().get_session_name()
    logs = Path(tempfile.gettempdir(), "ray", session, "logs").glob("rayml-tracker-*.log")
    lines = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    (opened,) = [line for line in lines if line.get("store") == store.uri]
    assert (opened["event"], opened["level"], opened["epoch"]) == ("opened", "info", 1)
    assert opened["seconds"] < 60
    # Nothing of it comes between the lines of whoever uses rayml in this process.
    assert not logging.getLogger("rayml.tracker").handlers[1:]
