"""Finding hub functions, and what is refused before any of their code runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import rayml
from rayml.hubs import find_function, list_functions
from rayml.hubs.folder import CODE, SETTINGS
from rayml.hubs.needs import words_to_install
from rayml.hubs.publishing import check_folder, make_folder, publish
from rayml.hubs.sources import cache_folder, parse_git
from rayml.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = pd.DataFrame({"amount": [1.0, -2.0, 3.0, 4.0]})
TELLS = '''
import rayml


def score(context: rayml.Context, model: rayml.Input) -> str:
    """Tell which model it is given."""
    return model.uri
'''


@pytest.fixture
def score(tmp_path: Path) -> Path:
    """Give the folder of a function."""
    return make_folder(tmp_path / "mine" / "score")


@pytest.fixture
def know(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Let the project know hubs, by name and place; what is fetched is kept for the test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def know(**places: object) -> None:
        words = (f"{name}={place}" for name, place in places.items())
        monkeypatch.setenv("RAYML_HUBS", " ".join(words))

    return know


def raise_version(folder: Path, version: str) -> None:
    file = folder / SETTINGS
    file.write_text(file.read_text().replace('version = "0.1.0"', f'version = "{version}"'))


def git(folder: Path, *words: str) -> str:
    line = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    done = subprocess.run(line, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class TestFinding:
    def test_a_folder_is_a_hub_and_its_functions_are_found_by_name(
        self, score: Path, know: Callable[..., None]
    ) -> None:
        know(mine=score.parent)

        found = rayml.hub.get("score")

        assert (found.uri, found.hub) == ("hub://mine/score@0.1.0", "mine")
        assert found.summary == "Count the rows of a table that are above a limit"
        assert list(found.signature.named) == ["table", "column", "limit"]
        assert found.arguments["column"] == "Which of their numbers is compared."

    @pytest.mark.parametrize(
        "name", ["hub://score", "marketplace://score", "hub://mine/score@0.1", "mine/score@0"]
    )
    def test_the_same_function_has_several_names(
        self, name: str, score: Path, know: Callable[..., None]
    ) -> None:
        know(mine=score.parent)

        assert find_function(name).digest == find_function(score).digest

    def test_the_marketplace_is_the_hub(self) -> None:
        assert rayml.marketplace is rayml.hub

    def test_a_name_that_is_nearly_right_is_suggested(
        self, score: Path, know: Callable[..., None]
    ) -> None:
        know(mine=score.parent)

        with pytest.raises(rayml.NotFound, match="did you mean 'score'"):
            rayml.submit("hub://scroe")
        with pytest.raises(rayml.NotFound, match="did you mean 'mine'"):
            rayml.submit("hub://mien/score")

    def test_what_is_no_name_says_how_names_are_written(self) -> None:
        with pytest.raises(rayml.SpecError, match="write hub://name"):
            rayml.submit("hub://a b")

    def test_two_hubs_with_one_name_are_told_apart(
        self, score: Path, know: Callable[..., None], tmp_path: Path
    ) -> None:
        shutil.copytree(score, tmp_path / "other" / "score")
        know(mine=score.parent, other=tmp_path / "other")

        with pytest.raises(rayml.SpecError, match="write hub://mine/score"):
            find_function("score")
        assert find_function("other/score").hub == "other"

    def test_no_other_hub_takes_the_place_of_the_librarys_own(
        self, know: Callable[..., None], tmp_path: Path
    ) -> None:
        own = list_functions("rayml")[0].name
        know(mine=make_folder(tmp_path / "mine" / own).parent)

        assert find_function(own).hub == "rayml"
        assert find_function(f"mine/{own}").hub == "mine"

    def test_all_words_of_a_search_are_found(self, score: Path, know: Callable[..., None]) -> None:
        know(mine=score.parent)

        assert [f.name for f in rayml.hub.search("rows above limit")] == ["score"]
        assert rayml.hub.search("rows zebra") == []


class TestVersions:
    @pytest.fixture
    def published(self, score: Path, know: Callable[..., None], tmp_path: Path) -> Path:
        place = tmp_path / "team"
        place.mkdir()
        for version in ("0.1.0", "0.2.0", "0.10.0"):
            raise_version(score, version)
            publish(score, str(place), run_example=False)
            file = score / SETTINGS
            file.write_text(file.read_text().replace(f'"{version}"', '"0.1.0"'))
        know(team=place)
        return place

    def test_the_newest_is_taken_or_the_one_that_is_named(self, published: Path) -> None:
        assert find_function("score").version == "0.10.0"
        assert find_function("score@0.2").version == "0.2.0"
        assert find_function("score@0.1").version == "0.1.0"
        with pytest.raises(rayml.NotFound, match=r"no version 0\.3 here; there is 0\.10\.0"):
            find_function("score@0.3")

    def test_a_project_pins_versions_and_digests(
        self, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digest = find_function("score@0.2").digest
        project = tmp_path / "project"
        project.mkdir()
        text = f'[hubs.team]\nurl = "{published}"\npins = {{ score = "0.2.0#{digest}" }}\n'
        (project / "rayml.toml").write_text(text)
        monkeypatch.delenv("RAYML_HUBS")
        monkeypatch.chdir(project)

        assert find_function("score").version == "0.2.0"
        assert find_function("score@0.10").version == "0.10.0"

        (project / "pyproject.toml").touch()  # so that its settings are read anew
        (published / "score" / "0.2.0" / "function.py").write_text("def score(): pass\n")
        with pytest.raises(rayml.SpecError, match="was changed, or is not whole"):
            find_function("score")

    def test_a_version_is_published_once(self, published: Path, score: Path) -> None:
        again, _ = publish(score, "team", run_example=False)
        assert Path(again) == published / "score" / "0.1.0"

        (score / "more.txt").write_text("more")
        with pytest.raises(rayml.SpecError, match="with other files; raise the version"):
            publish(score, "team", run_example=False)

    def test_what_was_cut_off_is_not_run_and_is_completed(
        self, published: Path, score: Path
    ) -> None:
        (published / "score" / "0.1.0" / "example.py").unlink()
        with pytest.raises(rayml.SpecError, match="is not whole"):
            find_function("score@0.1")

        publish(score, "team", run_example=False)
        assert find_function("score@0.1").version == "0.1.0"


class TestDigests:
    def test_another_digest_is_refused_before_anything_runs(
        self, score: Path, know: Callable[..., None]
    ) -> None:
        know(mine=score.parent)
        pinned = find_function("score").pinned
        (score / "function.py").write_text((score / "function.py").read_text() + "\n# changed\n")

        with pytest.raises(rayml.SpecError, match=r"has the digest sha256:\w+… and is asked for"):
            rayml.submit(pinned, inputs={"table": ROWS}, params={"column": "amount"})

    def test_caches_are_no_part_of_it(self, score: Path) -> None:
        before = find_function(score).digest
        (score / "__pycache__").mkdir()
        (score / "__pycache__" / "function.pyc").write_bytes(b"x")

        assert find_function(score).digest == before


class TestGit:
    def test_a_repository_is_a_hub_at_a_revision(
        self, score: Path, know: Callable[..., None]
    ) -> None:
        root = score.parent
        git(root, "init", "--quiet", "-b", "main")
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", "one")
        git(root, "tag", "v1")
        first = git(root, "rev-parse", "HEAD")
        raise_version(score, "0.2.0")
        git(root, "commit", "--quiet", "-am", "two")

        for revision, version in (("v1", "0.1.0"), (first, "0.1.0"), ("main", "0.2.0")):
            know(team=f"git+file://{root}@{revision}")
            assert find_function("score").version == version
        know(team=f"git+file://{root}")
        assert find_function("score").version == "0.2.0"

    def test_it_is_there_when_the_server_is_not(
        self, score: Path, know: Callable[..., None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = score.parent
        git(root, "init", "--quiet", "-b", "main")
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", "one")
        know(team=f"git+file://{root}@main")
        find_function("score")
        root.rename(root.with_name("gone"))

        assert find_function("score").version == "0.1.0"
        assert "hub team does not answer" in capsys.readouterr().err

    def test_a_hub_may_be_a_folder_of_a_revision(
        self, score: Path, know: Callable[..., None]
    ) -> None:
        root = score.parents[1]
        git(root, "init", "--quiet", "-b", "main")
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", "one")
        git(root, "tag", "v1")

        know(team=f"git+file://{root}@v1#subdirectory=mine")

        assert find_function("team/score").version == "0.1.0"

    @pytest.mark.parametrize(
        ("url", "parts"),
        [
            ("ssh://git@host/ml/hub.git", ("ssh://git@host/ml/hub.git", "HEAD", "")),
            ("git+ssh://git@host:22/hub@v1", ("ssh://git@host:22/hub", "v1", "")),
            ("https://name:token@host/hub.git", ("https://name:token@host/hub.git", "HEAD", "")),
            ("https://token@host/hub.git@a/b", ("https://token@host/hub.git", "a/b", "")),
            ("git@host:ml/hub.git", ("git@host:ml/hub.git", "HEAD", "")),
            ("git@host:ml/hub.git@v1", ("git@host:ml/hub.git", "v1", "")),
            ("git+https://host/x#subdirectory=a/b", ("https://host/x", "HEAD", "a/b")),
            ("git+../hubs/own@v1#subdirectory=a", ("../hubs/own", "v1", "a")),
        ],
    )
    def test_a_user_in_a_url_is_no_revision(self, url: str, parts: tuple[str, str, str]) -> None:
        assert parse_git(url) == parts

    def test_a_repository_that_is_not_there_is_told(self, know: Callable[..., None]) -> None:
        know(team="git+file:///nowhere/hub.git@v1")

        with pytest.raises(rayml.SpecError, match="has no revision 'v1' that can be fetched"):
            find_function("team/score")

    def test_no_message_shows_a_password(self, know: Callable[..., None]) -> None:
        for place in ("https://name:secret@127.0.0.1:9/hub.git", "git+https://n:secret@h/x#y=z"):
            know(team=place)
            with pytest.raises(rayml.SpecError) as refused:
                find_function("team/score")
            assert "secret" not in str(refused.value)


@pytest.mark.s3
class TestBucket:
    def test_a_bucket_is_a_hub_that_is_published_to(
        self,
        score: Path,
        know: Callable[..., None],
        s3_store_uri: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        know(team=s3_store_uri)

        place, published = publish(score, "team", run_example=False)
        raise_version(score, "0.2.0")
        publish(score, "team", run_example=False)

        assert place == f"{s3_store_uri}/score/0.1.0"
        assert find_function("score").version == "0.2.0"
        assert find_function(f"team/score@0.1#{published.digest}").digest == published.digest
        assert rayml.hub.get("score@0.1")(table=ROWS, column="amount") == 0.75

        open_store(s3_store_uri).put("score/0.1.0/function.py", b"def score(): pass\n")
        with pytest.raises(rayml.SpecError, match="was changed, or is not whole"):
            find_function("score@0.1")

        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert find_function("score").version == "0.2.0"

    def test_what_is_no_hub_is_not_fetched(
        self, know: Callable[..., None], s3_store_uri: str
    ) -> None:
        store = open_store(s3_store_uri)
        store.put("data/large.bin", b"x" * (17 * 1024 * 1024))
        know(team=s3_store_uri)

        with pytest.raises(rayml.NotFound, match="hub 'team' has no function 'score'"):
            find_function("team/score")
        assert not list(cache_folder("stores", s3_store_uri).rglob("*.bin"))


class TestBroken:
    @pytest.mark.parametrize(
        ("file", "text", "message"),
        [
            ("hub.toml", "version = 1", "is not what a hub function needs"),
            ("hub.toml", 'version = "1"\ncategory = "training"', "version '1' is not one"),
            ("hub.toml", 'version = "1.0.0"\ncategory = "trainig"', "did you mean 'training'"),
            (
                "hub.toml",
                'version = "1.0.0"\ncategory = "training"\n[resources]\ncpu = 2',
                "did you mean 'cpus'",
            ),
            ("function.py", "def score(:", "is not valid Python"),
            ("function.py", "def other(): pass", "has no function 'score'"),
        ],
    )
    def test_a_folder_that_could_not_run_says_why(
        self, file: str, text: str, message: str, score: Path
    ) -> None:
        (score / file).write_text(text)

        with pytest.raises(rayml.SpecError, match=message):
            find_function(score)
        assert any(message in sentence for sentence in check_folder(score))

    def test_a_check_names_what_its_users_would_miss(self, score: Path) -> None:
        (score / "function.py").write_text(
            "from rayml import Context, _ray, registry\n"
            "from rayml.store import open_store\n"
            "def read(): pass\n"
            "def score(context, table, column: str, **rest) -> None:\n"
            '    """Do.\n\n    Args:\n        column: It.\n        colour: Not there.\n    """\n'
        )
        (score / "example.py").unlink()

        wrong = "\n".join(check_folder(score))

        assert "'table' has no annotation" in wrong
        assert "nothing of the parameter 'table'" in wrong
        assert "a parameter 'colour', which it has not" in wrong
        assert "takes any name" in wrong
        for module in ("rayml.store", "rayml._ray", "rayml.registry"):
            assert f"imports {module};" in wrong
        assert "rayml.Context" not in wrong
        assert "the public functions read as well" in wrong
        assert "no example.py" in wrong

    def test_a_requirement_that_is_none_is_told(self, score: Path) -> None:
        file = score / SETTINGS
        file.write_text(
            file.read_text().replace("requirements = []", 'requirements = ["not one"]')
        )

        assert "its requirement 'not one' is none; write it as 'name>=1.0'" in check_folder(
            score, run_example=False
        )

    def test_an_example_that_fails_is_told(self, score: Path) -> None:
        (score / "example.py").write_text("raise SystemExit(3)")

        assert list(check_folder(score)) == ["its example ended with exit code 3; see above"]

    def test_what_is_wrong_is_not_published(self, score: Path, tmp_path: Path) -> None:
        (score / "example.py").unlink()

        with pytest.raises(rayml.SpecError, match=r"is not published: it has no example\.py"):
            publish(score, str(tmp_path / "team"))
        assert not (tmp_path / "team").exists()

    def test_a_new_one_never_replaces_what_is_there(self, score: Path) -> None:
        with pytest.raises(rayml.SpecError, match="is there already"):
            make_folder(score)
        with pytest.raises(rayml.SpecError, match="cannot name a hub function"):
            make_folder(score.with_name("My Function"))


class TestCalls:
    @pytest.mark.usefixtures("own_store")
    def test_a_plain_call_is_tracked_with_its_inputs(self, score: Path, tmp_path: Path) -> None:
        file = tmp_path / "rows.parquet"
        ROWS.to_parquet(file)

        assert rayml.hub.get(score)(str(file), "amount", limit=2.0) == 0.5

        run = rayml.runs()[0]
        assert (run.name, run.state, run.metrics["share"]) == ("score", "succeeded", 0.5)
        assert run.params == {"column": "amount", "limit": 2.0}
        assert run.inputs["table"].uri == str(file)
        assert run.labels["hub"].endswith("score@0.1.0")

    @pytest.mark.usefixtures("own_store")
    def test_a_plain_call_gets_the_version_that_is_recorded_though_the_alias_moves(
        self, score: Path
    ) -> None:
        with rayml.start_run("train") as context:
            for name in ("first", "second"):
                rayml.register_model(context.log_model(name, LinearRegression()), "churn")
        (score / CODE).write_text(TELLS)
        versions = count(1)

        class Moving(str):
            """A URI whose alias names the next version each time that it is resolved."""

            __slots__ = ()

            def __str__(self) -> str:
                rayml.model("churn").set_alias("production", next(versions))
                return super().__str__()

        used = rayml.hub.get(score)(Moving("rayml://models/churn@production"))

        recorded = rayml.runs(where="name = 'score'")[0].inputs["model"].uri
        assert used == recorded == f"rayml://runs/{context.run_id}/first"

    def test_a_plain_call_does_without_ray_which_learns_of_it_when_it_comes(
        self, score: Path, tmp_path: Path
    ) -> None:
        code = f"""
import sys
from pathlib import Path
import pandas as pd
import rayml
rayml.hub.get(Path({str(score)!r}))(pd.DataFrame({{"x": [1.0]}}), "x")
print("ray" in sys.modules)
import ray.cloudpickle
print(any(name.startswith("rayml_hub_score") for name in
    ray.cloudpickle.list_registry_pickle_by_value()))
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "RAYML_STORE": str(tmp_path / "store")},
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.split()[-2:] == ["False", "True"]

    @pytest.mark.usefixtures("own_store")
    def test_inside_of_a_run_it_logs_there(self, score: Path) -> None:
        with rayml.start_run("around") as context:
            rayml.hub.get(score)(table=ROWS, column="amount")

        assert [run.name for run in rayml.runs()] == ["around"]
        assert rayml.get_run(context.run_id).metrics["share"] == 0.75

    @pytest.mark.parametrize(
        ("args", "values", "message"),
        [
            ((), {"table": ROWS}, "needs a value for 'column'"),
            ((ROWS,), {"colum": "amount"}, "did you mean 'column'"),
            ((ROWS,), {"table": ROWS, "column": "a"}, "by position and by name"),
            ((ROWS, "a", 1.0, 2), {}, "takes 3 values and got 4"),
        ],
    )
    def test_a_wrong_call_is_refused(
        self, args: tuple[object, ...], values: dict[str, object], message: str, score: Path
    ) -> None:
        with pytest.raises(rayml.SpecError, match=message):
            rayml.hub.get(score)(*args, **values)

    def test_a_missing_package_is_told_with_the_way_out(self, score: Path) -> None:
        file = score / SETTINGS
        file.write_text(
            file.read_text().replace("requirements = []", 'requirements = ["no-such>=1"]')
        )

        with pytest.raises(
            rayml.SpecError, match="needs no-such>=1; pip install 'no-such>=1', or"
        ):
            rayml.hub.get(score)(table=ROWS, column="amount")

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("describe", "'rayml[hub]'"),
            ("export_onnx", "'rayml[onnx]'"),
            ("serve", "'rayml[hub]' 'fastapi>=0.133' 'starlette>=1.0.1' 'uvicorn>=0.26'"),
            ("train_torch", "'rayml[hub,torch]'"),
        ],
    )
    def test_what_a_function_of_the_library_lacks_is_in_its_extras(
        self, name: str, words: str
    ) -> None:
        assert words_to_install(rayml.hub.get(name).requirements) == words

    @pytest.mark.parametrize(
        ("missing", "words"),
        [
            (["Torch"], "'rayml[torch]'"),  # several extras bring it
            (["pyspark>=3.5"], "'rayml[spark]'"),
            (["torch>=999"], "'torch>=999'"),
            (["ray[train]>=2.60"], "'rayml[torch]'"),
            (["ray[nothing]"], "'ray[nothing]'"),
            (["onnx @ https://host/onnx.whl"], "'onnx @ https://host/onnx.whl'"),
            (["./mine", "optuna"], "'rayml[hub]' ./mine"),
        ],
    )
    def test_an_extra_is_named_only_where_it_brings_what_is_missing(
        self, missing: list[str], words: str
    ) -> None:
        assert words_to_install(missing) == words
