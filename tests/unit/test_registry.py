"""Registered models: versions, aliases, tags, and the URIs that name them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import rayml
from rayml.errors import NotFound, SpecError
from rayml.registry import parse_model_uri
from rayml.store.folder import Folder
from rayml.tracker.catalog import Catalog

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def log_model(store: Folder, value: object = "a model", name: str = "model") -> rayml.Artifact:
    with rayml.start_run(store=store) as context:
        return context.log_model(name, value, format="pickle")


def load(store: Folder, uri: str) -> object:
    return rayml.load_model(uri, trusted=True, store=store)


def test_each_artifact_becomes_the_next_version(store: Folder) -> None:
    first, second = log_model(store, "one"), log_model(store, "two")
    one = rayml.register_model(first, "churn")
    two = rayml.register_model(second.uri, "churn", "production", store=store)

    assert (one.version, two.version) == (1, 2)
    assert two.uri == "rayml://models/churn@2"
    assert (two.aliases, one.aliases) == (["production"], [])
    assert two.artifact.uri == second.uri
    assert two.load(trusted=True) == "two"
    assert one.registered_at <= two.registered_at
    assert one.registered_by
    assert "churn@2 @production" in repr(two)


def test_a_model_is_loaded_by_alias_by_version_and_bare(store: Folder) -> None:
    for value in ("one", "two", "three"):
        rayml.register_model(log_model(store, value), "churn")
    rayml.model("churn", store=store).set_alias("production", 2)

    assert load(store, "rayml://models/churn@production") == "two"
    assert load(store, "rayml://models/churn@1") == "one"
    assert load(store, "rayml://models/churn") == "three"
    assert rayml.artifact("rayml://models/churn@production", store=store).kind == "model"


def test_a_pickled_model_is_only_loaded_with_trust(store: Folder) -> None:
    rayml.register_model(log_model(store), "churn")
    with pytest.raises(SpecError, match="trusted=True"):
        rayml.load_model("rayml://models/churn", store=store)


def test_registering_the_same_again_changes_nothing_but_the_alias(store: Folder) -> None:
    artifact = log_model(store)
    rayml.register_model(artifact, "churn", "candidate")
    again = rayml.register_model(artifact, "churn", "candidate")
    assert again.version == 1
    assert Catalog(store).refresh().seq == 1
    assert rayml.register_model(artifact, "churn", "production").aliases == [
        "candidate",
        "production",
    ]
    assert rayml.register_model(artifact, "other").version == 1


def test_what_was_registered_is_there_for_another_process(store: Folder) -> None:
    rayml.register_model(log_model(store), "churn", "production")
    state = Catalog(store).refresh()
    assert state.models["churn"].aliases == {"production": 1}


def test_racing_registrations_get_versions_of_their_own(store: Folder) -> None:
    artifacts = [log_model(store, value) for value in range(6)]
    threads = [
        threading.Thread(target=rayml.register_model, args=(artifact, "churn", "newest"))
        for artifact in artifacts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model = rayml.model("churn", store=store)
    assert [version.version for version in model.versions] == [1, 2, 3, 4, 5, 6]
    assert {v.artifact.uri for v in model.versions} == {a.uri for a in artifacts}
    assert model.aliases == {"newest": 6}


# Aliases and tags


def test_an_alias_moves_and_its_history_tells(store: Folder) -> None:
    for value in ("one", "two"):
        rayml.register_model(log_model(store, value), "churn")
    model = rayml.model("churn", store=store)
    model.set_alias("production", 1)
    model.set_alias("candidate", 2)
    model.set_alias("production", "candidate")
    model.set_alias("production", 2)
    model.unset_alias("candidate")

    assert model.aliases == {"production": 2}
    assert model.version("production").version == model.latest.version == 2
    history = model.history()
    assert list(history.columns) == ["time", "alias", "version", "by"]
    assert history["alias"].tolist() == ["production", "candidate", "production", "candidate"]
    assert history["version"].tolist() == [1, 2, 2, pd.NA]
    assert history["time"].is_monotonic_increasing
    assert str(history["time"].dt.tz) == "UTC"


def test_tags_are_of_the_model_or_of_a_version(store: Folder) -> None:
    rayml.register_model(log_model(store), "churn", "production")
    model = rayml.model("churn", store=store)
    model.set_tags({"owner": "ada", "x": "y"})
    model.set_tags({"validated": "yes"}, version="production")
    model.set_tags({"x": None})

    assert model.tags == {"owner": "ada"}
    assert model.version(1).tags == {"validated": "yes"}


def test_models_are_listed_by_name(store: Folder) -> None:
    assert rayml.models(store=store) == []
    artifact = log_model(store)
    for name in ("zebra", "ant"):
        rayml.register_model(artifact, name, "best")
    assert [model.name for model in rayml.models(store=store)] == ["ant", "zebra"]
    assert repr(rayml.models(store=store)[0]) == "<rayml.Model 'ant': 1 version(s) best=1>"


# What is refused


def test_only_models_are_registered(store: Folder) -> None:
    with rayml.start_run(store=store) as context:
        table = context.log_table("rows", [{"a": 1}])
    with pytest.raises(SpecError, match=r"rayml://runs/\S+/rows is a table and not a model"):
        rayml.register_model(table, "churn")
    with pytest.raises(SpecError, match="is a table and not a model"):
        rayml.load_model(table.uri, store=store)
    assert rayml.models(store=store) == []


def test_only_artifacts_of_runs_that_are_there_are_registered(
    store: Folder, tmp_path: Path
) -> None:
    artifact = log_model(store)
    elsewhere = rayml.Artifact(artifact.record, Folder(tmp_path / "other"))
    with pytest.raises(NotFound, match=r"other has no run .* which logged model 'model'"):
        rayml.register_model(elsewhere, "churn")
    rayml.get_run("latest", store=store).delete()
    with pytest.raises(NotFound, match=r"was deleted; `rayml undelete \S+` before you register"):
        rayml.register_model(artifact, "churn")


def test_a_version_outlives_the_deletion_of_its_run(store: Folder) -> None:
    rayml.register_model(log_model(store), "churn")
    rayml.get_run("latest", store=store).delete()
    assert load(store, "rayml://models/churn") == "a model"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a@b", ".a", "-a", "x" * 101, "ä\n", 4, None])
def test_a_name_that_is_not_plain_is_refused(store: Folder, name: str) -> None:
    with pytest.raises(SpecError, match=r"model name .* is not plain; use up to 100 letters"):
        rayml.register_model(log_model(store), name)


@pytest.mark.parametrize("alias", ["", "4", "latest", "a b", "a@b"])
def test_an_alias_is_a_plain_word(store: Folder, alias: str) -> None:
    artifact = log_model(store)
    with pytest.raises(SpecError, match="alias"):
        rayml.register_model(artifact, "churn", alias)
    assert rayml.models(store=store) == []


@pytest.mark.parametrize("name", ["churn", "Größe-2.1_b", "7"])
def test_plain_names_are_taken(store: Folder, name: str) -> None:
    rayml.register_model(log_model(store), name, "größte")
    assert load(store, f"rayml://models/{name}@größte") == "a model"


def test_what_is_not_there_is_named_with_the_nearest(store: Folder) -> None:
    rayml.register_model(log_model(store), "churn", "production")
    for uri, problem in {
        "rayml://models/chrun": r"has no model 'chrun'; did you mean 'churn'\?",
        "rayml://models/churn@produktion": r"no version or alias 'produktion'; did you mean 'prod",
        "rayml://models/churn@2": "model 'churn' has no version or alias '2'",
    }.items():
        with pytest.raises(NotFound, match=problem):
            rayml.artifact(uri, store=store)
    model = rayml.model("churn", store=store)
    with pytest.raises(NotFound, match="no version or alias '7'"):
        model.set_alias("x", 7)
    with pytest.raises(NotFound, match="no version or alias 'x'"):
        model.unset_alias("x")
    with pytest.raises(NotFound, match="no model 'other'"):
        rayml.model("other", store=store)


@pytest.mark.parametrize(
    "uri",
    ["churn", "rayml://models/", "rayml://models/a@", "rayml://models/a b", "models:/churn", 4],
)
def test_what_is_no_uri_is_refused(store: Folder, uri: str) -> None:
    with pytest.raises(SpecError, match="is not the URI of"):
        rayml.artifact(uri, store=store)


def test_a_uri_is_taken_apart() -> None:
    assert parse_model_uri("rayml://models/churn@production") == ("churn", "production")
    with pytest.raises(SpecError):
        parse_model_uri("rayml://runs/churn")


# As an input


def take(model: object) -> None:
    """A job."""


def test_a_model_s_uri_as_an_input_is_resolved_when_the_job_is_submitted(store: Folder) -> None:
    artifact = log_model(store)
    rayml.register_model(artifact, "churn", "production")
    given = {"model": "rayml://models/churn@production"}
    spec = rayml.submit(take, inputs=given, store=store, dry_run=True)

    assert not isinstance(spec, rayml.Run)
    assert spec.inputs["model"].uri == artifact.uri
    assert spec.inputs["model"].digest == artifact.digest
    with pytest.raises(NotFound, match="no version or alias 'prod'"):
        rayml.submit(
            take, inputs={"model": "rayml://models/churn@prod"}, store=store, dry_run=True
        )


def test_a_version_as_an_input_is_its_artifact(store: Folder) -> None:
    version = rayml.register_model(log_model(store), "churn")
    spec = rayml.submit(take, inputs={"model": version}, store=store, dry_run=True)

    assert not isinstance(spec, rayml.Run)
    assert spec.inputs["model"].uri == version.artifact.uri
    with rayml.start_run(inputs={"model": version}, store=store) as context:
        assert context.inputs["model"].artifact == version.artifact


def test_what_a_run_was_given_may_be_given_on(store: Folder, tmp_path: Path) -> None:
    path, table = tmp_path / "rows.csv", pd.DataFrame({"x": [1]})
    path.write_text("x\n1\n")
    given = {"model": log_model(store), "path": path, "table": table}
    with rayml.start_run(inputs=given, store=store) as first:
        pass

    with rayml.start_run(inputs=first.inputs, store=store) as second:
        assert {n: one.record for n, one in second.inputs.items()} == {
            n: one.record for n, one in first.inputs.items()
        }
        assert second.inputs["table"].value is table
        assert second.inputs["path"].to_pandas()["x"].tolist() == [1]
