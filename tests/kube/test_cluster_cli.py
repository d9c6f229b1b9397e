"""`rayml cluster` and Ray's own command line, on a real head of a stock Ray image."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from rayml.cluster.book import BOOK, MORE
from rayml.cluster.settings import PREFIX
from rayml.store.folder import Folder
from rayml.tracker.records import Released, Reserved
from rayml.tracker.tracker import Tracker
from tests.kube import fake_head
from tests.unit.journals import OWNER, encode, ended, started, submitted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kube.plane import Plane

PLACE = "test-cli/one"
RAY_S = 240.0
CALL_S = 300.0
PROGRAM = """
import rayml, sys, time
print("rayml is at", rayml.__file__)
for line in range(int(sys.argv[1])):
    print("line", line, flush=True)
    time.sleep(0.2)
"""


@pytest.fixture
def kubeconfig(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    return plane.kubeconfig


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment, as a user in a pipe would."""
    command = str(Path(sys.executable).parent / words[0])
    return subprocess.run(
        [command, *words[1:]],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
        text=True,
        timeout=CALL_S,
    )


def rayml(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return call("rayml", "cluster", *words, **environment)


class TestWrongCalls:
    @pytest.mark.parametrize("verb", ["up", "status", "manifest", "down"])
    def test_an_address_of_another_form_is_a_wrong_call(self, verb: str) -> None:
        done = rayml(verb, "ns/name")

        assert done.returncode == 2
        assert "write kuberay://namespace/name" in done.stderr

    def test_a_name_that_kuberay_cannot_take_is_a_wrong_call(self, kubeconfig: Path) -> None:
        done = rayml("up", f"kuberay://default/{'n' * 54}")

        assert done.returncode == 2
        assert "has 54 characters and KubeRay takes 53" in done.stderr

    def test_a_cluster_that_is_not_there_is_a_wrong_call(
        self, kubeconfig: Path, namespace: str
    ) -> None:
        for verb in ("status", "down"):
            done = rayml(verb, f"kuberay://{namespace}/one")
            assert (done.returncode, done.stdout) == (2, "")
            assert "RayCluster 'one' in namespace" in done.stderr

    def test_a_context_that_is_not_there_is_a_wrong_call(self, kubeconfig: Path) -> None:
        done = rayml("status", "kuberay://default/one", "--context", "nowhere")

        assert done.returncode == 2
        assert "no context 'nowhere'; known: " in done.stderr

    def test_a_store_of_this_machine_is_a_wrong_call(self, kubeconfig: Path) -> None:
        done = rayml("up", "kuberay://default/one", "--store", "/srv/runs")

        assert done.returncode == 2
        assert "which pods cannot see" in done.stderr


class TestUnreachable:
    def test_a_server_that_does_not_answer(self, plane: Plane, tmp_path: Path) -> None:
        config = yaml.safe_load(plane.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        done = rayml("status", "kuberay://default/one", KUBECONFIG=str(path))

        assert done.returncode == 3
        assert "https://127.0.0.1:1" in done.stderr

    def test_a_token_that_is_not_taken(self, plane: Plane) -> None:
        path = plane.token_kubeconfig("wrong")
        done = rayml("status", "kuberay://default/one", KUBECONFIG=str(path))

        assert done.returncode == 3
        assert "log in again" in done.stderr

    def test_a_right_that_is_missing(self, plane: Plane) -> None:
        path = plane.token_kubeconfig()
        done = rayml("status", "kuberay://default/one", KUBECONFIG=str(path))

        assert done.returncode == 3
        assert "may not get rayclusters 'one' in namespace 'default'" in done.stderr


class TestStatus:
    @pytest.fixture
    def address(self, plane: Plane, kubeconfig: Path, namespace: str, tmp_path: Path) -> str:
        """A cluster on which one run holds two workers and another waits, as its head wrote it."""
        done = rayml("manifest", f"kuberay://{namespace}/one", "--image-has-rayml", "--json")
        cluster = json.loads(done.stdout)[-1]
        waits = {
            "run": "r2",
            "state": "waiting",
            "workers": 1,
            "reason": "position 1 in the queue",
        }
        book = [{"run": "r1", "owner": "ada", "state": "held", "workers": 2, "reason": ""}, waits]
        annotations = {
            BOOK: json.dumps(book),
            MORE: "3",
            f"{PREFIX}store": str(tmp_path / "store"),
        }
        cluster["metadata"]["annotations"] |= annotations
        plane.api.create(f"/apis/ray.io/v1/namespaces/{namespace}/rayclusters", cluster)
        records = (
            Reserved(run="r1", attempt=1, time=0.0, shape="abc", workers=["a", "b"]),
            Released(run="r1", attempt=1, time=1800.0),
        )
        tracker = Tracker(Folder(tmp_path / "store"), "s", OWNER)
        asyncio.run(tracker.append(encode(submitted(), started(), *records)))
        over = submitted("r0", cluster=f"kuberay://{namespace}/one")
        asyncio.run(tracker.append(encode(over, ended(run="r0"), producer="b")))
        return f"kuberay://{namespace}/one"

    def test_runs_are_shown_with_what_they_wait_for_and_have_cost(self, address: str) -> None:
        done = rayml("status", address)

        rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
        assert rows["r1"].split() == ["r1", "held", "2", "ada", "1.000"]
        assert "position 1 in the queue" in rows["r2"]
        assert rows["and"] == "and 3 more"
        assert rows["r0"].split() == ["r0", "succeeded", "ada", "default", "0.000"]

    def test_json_has_the_same(self, address: str) -> None:
        found = json.loads(rayml("status", address, "--json").stdout)
        first, second = found["reservations"]

        assert (found["more"], [one["run"] for one in found["ended"]]) == (3, ["r0"])
        assert (first["run"], first["worker_s"]) == ("r1", 3600)
        assert (second["run"], second["state"]) == ("r2", "waiting")


class TestManifest:
    def test_what_is_printed_makes_a_cluster(
        self, plane: Plane, kubeconfig: Path, namespace: str, tmp_path: Path
    ) -> None:
        fake_head.add_fake_head(plane, tmp_path)
        options = ("--image", fake_head.IMAGE, "--image-has-rayml", "--head-cpus", "0.1")
        printed = rayml("manifest", f"kuberay://{namespace}/one", *options)
        assert printed.returncode == 0
        for item in yaml.safe_load_all(printed.stdout):
            group = item["apiVersion"]
            root = f"/apis/{group}" if "/" in group else f"/api/{group}"
            plane.api.create(f"{root}/namespaces/{namespace}/{item['kind'].lower()}s", item)

        found = json.loads(rayml("status", f"kuberay://{namespace}/one", "--json").stdout)
        assert found["managed"] == "up"
        # The same by rayml's own hand has nothing to make, and nothing to change.
        again = rayml("up", f"kuberay://{namespace}/one", *options, "--wait-s", "0")
        assert (again.returncode, "made" in again.stderr) == (0, False)

    def test_json_is_one_document(self) -> None:
        done = rayml("manifest", "kuberay://team/one", "--image-has-rayml", "--json")

        kinds = [item["kind"] for item in json.loads(done.stdout)]
        assert kinds == ["ServiceAccount", "Role", "RoleBinding", "RayCluster"]


@pytest.fixture(scope="module")
def head(plane: Plane, ray_image: str) -> Iterator[str]:
    plane.api.create("/api/v1/namespaces", {"metadata": {"name": "test-cli"}})
    environment = {"KUBECONFIG": str(plane.kubeconfig)}
    address = f"kuberay://{PLACE}"
    options = ("--image", ray_image, "--head-memory", "2Gi", "--max-workers", "3")
    done = rayml("up", address, *options, "--wait-s", f"{RAY_S:g}", **environment)
    assert done.returncode == 0, done.stderr
    assert "takes jobs: Ray 2.60.0" in done.stderr
    yield address
    done = rayml("down", address, "--force", **environment)
    plane.api.delete("/api/v1/namespaces/test-cli")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(2 * CALL_S)
class TestOnRay:
    """One head of a stock Ray image, without rayml in it."""

    def test_status_shows_the_cluster(self, head: str, kubeconfig: Path) -> None:
        done = rayml("status", head)
        assert done.returncode == 0
        assert "ready" in done.stdout.splitlines()[1]
        assert "0 of at most 3" in done.stdout

        found = json.loads(rayml("status", head, "--json").stdout)
        assert (found["state"], found["workers"]) == ("ready", [])
        assert found["settings"]["max_workers"] == 3

    def test_ray_s_own_command_line_submits_and_follows(
        self, head: str, kubeconfig: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "train.py").write_text(PROGRAM)
        address = f"rayml://{PLACE}"
        done = self.submit(address, tmp_path, "python", "train.py", "20")

        assert done.returncode == 0, done.stdout + done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("line ")]
        assert lines == [f"line {index}" for index in range(20)]
        assert "rayml is at /tmp/rayml/code/rayml/__init__.py" in done.stdout
        listed = call("ray", "job", "list", "--address", address)
        assert "SUCCEEDED" in listed.stdout + listed.stderr

    def test_rayml_is_a_command_in_the_pods(
        self, head: str, kubeconfig: Path, tmp_path: Path
    ) -> None:
        done = self.submit(f"rayml://{PLACE}", tmp_path, "rayml", "--version")

        assert done.returncode == 0, done.stdout + done.stderr
        assert "\n0.1.0\n" in done.stdout

    def test_a_cluster_with_a_live_job_stays(
        self, head: str, kubeconfig: Path, tmp_path: Path
    ) -> None:
        address = f"rayml://{PLACE}"
        words = ("--no-wait", "--submission-id", "sleeper", "--", "sleep", "600")
        submitted = call("ray", "job", "submit", "--address", address, *words)
        assert submitted.returncode == 0, submitted.stderr
        done = rayml("down", head)
        call("ray", "job", "stop", "--address", address, "sleeper")

        assert done.returncode == 2
        assert "runs sleeper; wait for them" in done.stderr

    def test_doctor_looks_at_all_of_it(self, head: str, kubeconfig: Path, tmp_path: Path) -> None:
        done = call(
            *("rayml", "doctor", "--json", "--store", str(tmp_path / "runs")), RAYML_CLUSTER=head
        )

        found: dict[str, Any] = {one["check"]: one for one in json.loads(done.stdout)}
        checks = ("context", "rights", "raycluster", "secret", "head", "versions")
        assert [found[check]["level"] for check in checks] == ["ok"] * len(checks), found
        assert "on both sides" in found["versions"]["text"]

    @staticmethod
    def submit(address: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        options = ("--address", address, "--working-dir", str(folder))
        return call("ray", "job", "submit", *options, "--", *words)


def test_doctor_says_which_rights_are_missing(plane: Plane, tmp_path: Path) -> None:
    done = call(
        *("rayml", "doctor", "--cluster", "kuberay://default/one"),
        *("--store", str(tmp_path / "runs")),
        KUBECONFIG=str(plane.token_kubeconfig()),
    )

    assert done.returncode == 1
    assert (
        "may not get rayclusters, get secrets, list resourcequotas, get services/proxy"
        in done.stdout
    )


def test_doctor_says_which_kubeconfig_is_missing(tmp_path: Path) -> None:
    done = call(
        *("rayml", "doctor", "--cluster", "kuberay://default/one"),
        *("--store", str(tmp_path / "runs")),
        KUBECONFIG=str(tmp_path / "none"),
    )

    assert done.returncode == 1
    assert f"there is no kubeconfig at {tmp_path}/none" in done.stdout
