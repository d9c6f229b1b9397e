"""Jobs on a Ray that grows by its own autoscaler: a placement group is all that it has to see."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.ray.eventually import eventually
from tests.ray.heads import BIN, Head, started_head

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.ray

LISTS = (
    *("file_mounts", "cluster_synced_files", "rsync_exclude", "rsync_filter", "setup_commands"),
    *("initialization_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)


def write_config(head: Head) -> list[str]:
    """Let Ray's autoscaler add machines of one CPU, which are processes of this one; none yet."""
    worker = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1}
    first = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    config = {
        "cluster_name": "small",
        "max_workers": 1,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10,
        "provider": {"type": "fake_multinode", "gcs_address": head.gcs},
        "available_node_types": {"ray.head.default": first, "worker": worker},
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in LISTS},
        "file_mounts": {},
    }
    path = head.temp / "autoscaling.yaml"
    path.write_text(json.dumps(config))  # which is YAML too
    return ["--num-cpus=0", f"--autoscaling-config={path}"]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with started_head(write_config, RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1") as own:
        yield own


def call(head: Head, *words: str) -> str:
    """Return what a program of this environment prints on that cluster."""
    env = head.env | {"RAY_ADDRESS": head.gcs, "RAY_AUTH_MODE": "token"}
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        env=env,
        cwd=head.temp,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_a_job_for_which_there_is_no_machine_yet_gets_one(head: Head) -> None:
    (head.temp / "job.py").write_text("def train():\n    print('trained')\n")
    eventually(lambda: "Autoscaler status" in call(head, "ray", "status"), 60)
    assert "CPU" not in call(head, "ray", "status")

    printed = call(head, "rayml", "run", "job.py:train", "--cpus", "1", "--store", "store")
    assert "trained" in printed.splitlines(), printed
