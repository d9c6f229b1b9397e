"""Models and pipelines of Hugging Face transformers: kept, loaded and asked."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import rayml
from rayml.artifacts import Artifact
from rayml.errors import SpecError
from tests.unit.small_models import a_classifier, a_configuration, a_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # the library has much to say
WORDS = np.array(["rain late", "sun early", "rain"])
COLUMNS = pd.DataFrame({"input_ids": [[4, 2], [5, 3]], "attention_mask": [[1, 1], [1, 0]]})


class Own(transformers.BertForSequenceClassification):  # type: ignore[misc]
    """A class that is not the library's."""


@pytest.fixture
def log(tmp_path: Path) -> Any:
    """What logs a model and returns it as whoever finds it later gets it."""

    def log(model: object, example: object = None, form: str | None = None) -> Artifact:
        with rayml.start_run(store=tmp_path / "store") as context:
            uri = context.log_model("model", model, format=form, input_example=example).uri
        return rayml.artifact(uri, store=tmp_path / "store")

    return log


def scores_of(model: Any, rows: pd.DataFrame = COLUMNS) -> Any:
    inputs = {str(name): torch.tensor(rows[name].tolist()) for name in rows}
    with torch.no_grad():
        return model.eval()(**inputs).logits.numpy()


def a_pipeline() -> Any:
    return transformers.pipeline(
        "text-classification", model=a_classifier(), tokenizer=a_tokenizer(), device="cpu"
    )


def test_a_model_comes_back_as_its_own_class(log: Any) -> None:
    model = a_classifier(id2label={0: "late", 1: "early"}).train()
    artifact = log(model)
    assert (artifact.format, artifact.needs_trust) == ("transformers", False)
    assert {file.path for file in artifact.record.files} == {"config.json", "model.safetensors"}
    back = rayml.load_model(artifact.uri, store=artifact.store)
    assert type(back) is type(model)
    assert back.config.id2label == {0: "late", 1: "early"}
    np.testing.assert_array_equal(scores_of(back), scores_of(model))
    packages = {one.partition("==")[0] for one in artifact.meta["requirements"]}
    assert packages == {"safetensors", "torch", "transformers"}


def test_a_model_takes_a_column_for_each_of_its_inputs(log: Any) -> None:
    model = a_classifier().train()
    artifact = log(model, COLUMNS)
    assert model.training
    assert [one["name"] for one in artifact.meta["signature"]["inputs"]] == list(COLUMNS)
    assert artifact.meta["signature"]["outputs"][0]["shape"] == [None, 2]
    np.testing.assert_array_equal(artifact.predict(COLUMNS), scores_of(model))


def test_a_model_takes_an_array_for_its_first_input(log: Any) -> None:
    model = a_classifier()
    rows = np.array([[4, 2], [5, 3]])
    artifact = log(model, rows)
    expected = scores_of(model, COLUMNS[["input_ids"]])
    np.testing.assert_array_equal(artifact.predict(rows), expected)


def test_a_model_without_scores_tells_whatever_it_has(log: Any) -> None:
    model = transformers.BertModel(a_configuration())
    told = log(model).predict(COLUMNS)
    assert told["last_hidden_state"].shape == (2, 2, 8)


def test_a_pipeline_comes_back_and_takes_words(log: Any) -> None:
    pipeline = a_pipeline()
    assert pipeline.model.training
    artifact = log(pipeline, WORDS)
    assert pipeline.model.training
    assert type(artifact.load()) is type(pipeline)
    told = artifact.predict(WORDS)
    pipeline.model.eval()
    assert [one["label"] for one in pipeline(list(WORDS))] == list(told["label"])
    np.testing.assert_allclose([one["score"] for one in pipeline(list(WORDS))], told["score"])
    frame = pd.DataFrame({"words": WORDS})
    np.testing.assert_array_equal(log(pipeline, frame).predict(frame)["score"], told["score"])


def test_weights_alone_can_be_asked_for(log: Any) -> None:
    artifact = log(a_classifier(), form="torch")
    assert "classifier.weight" in artifact.load()


def test_a_wrapped_model_is_the_one_inside(log: Any) -> None:
    model = a_classifier()
    back = log(torch.nn.DataParallel(model)).load()
    np.testing.assert_array_equal(scores_of(back), scores_of(model))


def test_to_log_a_model_changes_nothing_of_it(log: Any, capfd: pytest.CaptureFixture[str]) -> None:
    model = a_classifier()
    before = dict(vars(model.config))
    log(model).load()
    assert vars(model.config) == before
    assert capfd.readouterr().err == ""
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_a_class_of_ones_own_has_to_be_there(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = log(Own(a_configuration()))
    assert type(artifact.load()) is Own
    monkeypatch.delattr(sys.modules[__name__], "Own")
    with pytest.raises(SpecError, match=r"a .*\.Own, which is not imported; import it and load"):
        artifact.load()


@pytest.mark.parametrize("name", ["os.system", "transformers.pipeline", "subprocess.Popen"])
def test_a_record_that_names_something_else_runs_nothing(log: Any, name: str) -> None:
    artifact = log(a_classifier())
    meta = {**artifact.meta, "class": name}
    forged = msgspec.structs.replace(artifact.record, meta=meta)
    with pytest.raises(SpecError, match=f"is a {name}, which is not imported"):
        Artifact(forged, artifact.store).load()


def test_code_in_a_folder_is_not_run(log: Any, tmp_path: Path) -> None:
    class Coded(type(a_pipeline())):  # type: ignore[misc]
        def save_pretrained(self, save_directory: Path, **options: Any) -> None:
            super().save_pretrained(save_directory, **options)
            path = save_directory / "config.json"
            names = {"AutoModelForSequenceClassification": "evil.Model", "AutoConfig": "evil.Conf"}
            told = {**json.loads(path.read_text()), "auto_map": names, "model_type": "evil"}
            path.write_text(json.dumps(told))
            (save_directory / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    made = a_pipeline()
    parts = {"model": made.model, "tokenizer": made.tokenizer, "device": "cpu"}
    with pytest.raises(SpecError, match=r"cannot be kept as transformers: .* it has no task"):
        log(Coded(**parts))
    artifact = log(Coded(**parts, task=made.task))
    assert "evil.py" in {file.path for file in artifact.record.files}
    with pytest.raises(SpecError, match="cannot be read here"):
        artifact.load()
    assert not (tmp_path / "ran").exists()


def test_a_missing_library_comes_with_its_install_line(
    log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = log(a_classifier())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SpecError, match=r"needs transformers, which is not .*transformers=="):
        artifact.load()
