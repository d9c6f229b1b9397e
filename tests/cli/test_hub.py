"""`rayml hub`: from a new function to a published one that runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import call

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.ray


def test_a_function_is_made_checked_published_found_and_run(tmp_path: Path) -> None:
    def rayml(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = call(*words, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done

    assert rayml("hub", "new", "mine/score", "--category", "analysis").stdout.startswith("mine/")
    (tmp_path / "mine" / "score" / "example.py").unlink()
    assert "no example.py" in rayml("hub", "check", "mine/score", code=2).stderr
    (tmp_path / "mine" / "score" / "example.py").write_text("print('hi')\n")
    assert "is a hub function" in rayml("hub", "check", "mine/score").stdout
    (tmp_path / "team").mkdir()
    place, pinned = rayml("hub", "publish", "mine/score", "--to", "team").stdout.splitlines()
    assert place == str(tmp_path / "team" / "score" / "0.1.0")
    (tmp_path / "rayml.toml").write_text('[hubs]\nteam = "team"\n')

    listed = json.loads(rayml("hub", "list", "--hub", "team", "--json").stdout)
    assert [(found["name"], found["category"]) for found in listed] == [("score", "analysis")]
    assert "team/score" in rayml("marketplace", "search", "rows above").stdout
    shown = json.loads(rayml("hub", "show", "score", "--json").stdout)
    assert [row["name"] for row in shown["parameters"]] == ["table", "column", "limit"]
    assert shown["parameters"][2]["default"] == "0.0"

    (tmp_path / "rows.csv").write_text("amount\n1\n-1\n2\n")
    words = ("-i", "table=rows.csv", "-p", "column=amount")
    wrong = rayml("hub", "run", "score", *words, "-p", "limits=1", code=2)
    assert "did you mean 'limit'" in wrong.stderr
    done = rayml("hub", "run", pinned, *words, "-p", "limit=1", "--cluster", "local")
    assert "0.333333" in done.stdout
    assert "hub://team/score@0.1.0" in rayml("show", "latest").stdout
