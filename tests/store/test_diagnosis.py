"""What the doctor finds, on stores that are well and on those that are not."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import rayml
from rayml.diagnosis import Finding, diagnose
from rayml.store.folder import Folder
from rayml.tracker.live import LiveMark
from rayml.tracker.segments import Owner
from tests.rclone import BUCKET, rclone_server
from tests.store.test_verification import fill

if TYPE_CHECKING:
    from rayml.store import Store

SECRET = "only-for-this-session"


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".git").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    for name in list(os.environ):
        if name.startswith("RAYML_"):
            monkeypatch.delenv(name)


def found(store: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in diagnose(store)}


def test_a_store_that_is_well(store: Store) -> None:
    fill(store)
    before = set(store.list(""))
    findings = found(store.uri)
    assert {f.check: f.text for f in findings.values() if f.level != "ok"} == {}
    expected = {"settings", "python", "ray", "extras", "store", "create-only", "latency", "clock"}
    assert expected <= set(findings)
    assert ("disk" in findings) == store.is_local
    assert ("credentials" in findings) != store.is_local
    assert set(store.list("")) == before
    assert not any(SECRET in finding.text for finding in findings.values())


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert found(str(tmp_path / "new" / "store"))["store"].level == "ok"
    assert not (tmp_path / "new").exists()


def test_another_project_s_store_fails(store: Store) -> None:
    store.put("rayml.json", b"{}")
    finding = found(store.uri)["store"]
    assert finding.level == "fail"
    assert "another project's" in finding.text


def test_a_server_that_overwrites_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rclone_server(tmp_path) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        finding = found(f"s3://{BUCKET}/store")["create-only"]
    assert finding.level == "fail"
    assert "overwrites a key that is taken" in finding.text


def test_a_scheme_that_nobody_knows_fails() -> None:
    assert found("s4://bucket")["store"].level == "fail"


def test_a_broken_settings_file_fails_and_the_rest_is_looked_at() -> None:
    Path("rayml.toml").write_text("store = ")
    findings = {finding.check: finding for finding in diagnose()}
    assert findings["settings"].level == "fail"
    assert "rayml.toml is not valid TOML" in findings["settings"].text
    assert findings["ray"].level == "ok"


def test_settings_are_told_with_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("rayml.toml").write_text('store = "elsewhere"')
    assert next(iter(diagnose())).text.endswith("rayml.toml; store = elsewhere")
    monkeypatch.setenv("RAYML_STORE", "here")
    assert next(iter(diagnose())).text.endswith("variables RAYML_STORE; store = here")


@pytest.mark.s3
@pytest.mark.parametrize(
    ("left", "level", "words"),
    [(-60, "fail", "expired at"), (600, "warn", "expire in 0.2 h"), (7200, "ok", "2.0 h")],
)
def test_credentials_that_expire(
    s3_store_uri: str, monkeypatch: pytest.MonkeyPatch, left: float, level: str, words: str
) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=left)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", moment.isoformat())
    finding = found(s3_store_uri)["credentials"]
    assert finding.level == level
    assert words in finding.text
    assert "AWS_SECRET_ACCESS_KEY" in finding.text
    assert SECRET not in finding.text


def test_a_writer_that_went_away_is_told(store: Store) -> None:
    fill(store)
    with rayml.start_run(store=store):
        assert "by process" in found(store.uri)["writers"].text
    LiveMark(store, "lost").set(
        Owner(host=os.uname().nodename, boot="another", pid=1, started_at=0.0)
    )
    finding = found(store.uri)["writers"]
    assert finding.level == "warn"
    assert finding.text.startswith("lost by process 1 on ")


def test_a_clock_that_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Folder(tmp_path / "store")
    fill(store)
    real = time.time
    for ahead, level in ((300, "warn"), (-300, "warn"), (200_000, "fail")):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda ahead=ahead: real() + ahead)
            finding = found(store.uri)["clock"]
        assert finding.level == level
        assert finding.text.endswith("set them by NTP")
