"""Models of every library: kept in its own format, described, loaded and asked the same way."""

from __future__ import annotations

import importlib
import io
import json
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import lightgbm
import msgspec
import numpy as np
import pandas as pd
import pytest
import torch
import xgboost
from safetensors.torch import load_file, load_model
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

import rayml
from rayml.artifacts import Artifact, FileRecord
from rayml.artifacts.model import save_model
from rayml.errors import ArtifactCorrupt, SpecError
from rayml.store.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(_RANDOM.normal(size=(60, 3)), columns=["a", "b", "c"])
IS_UP = (FRAME["a"] - FRAME["b"] > 0).astype(int)
WORDS = IS_UP.map({0: "down", 1: "up"}).to_numpy(dtype=object)


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def log(store: Folder, model: object, example: object = None, form: str | None = None) -> Artifact:
    """Return the model as whoever finds it later gets it."""
    with rayml.start_run(store=store) as context:
        uri = context.log_model("model", model, format=form, input_example=example).uri
    return rayml.artifact(uri, store=store)


def a_booster(**settings: object) -> Any:
    matrix = xgboost.DMatrix(FRAME, IS_UP)
    return xgboost.train({"objective": "binary:logistic", **settings}, matrix, 3)


def a_lightgbm_booster() -> Any:
    return lightgbm.train(
        {"verbose": -1, "min_data_in_leaf": 2}, lightgbm.Dataset(FRAME, IS_UP), 3
    )


def a_lightgbm_estimator() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=3, verbose=-1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))

    def forward(self, rows: torch.Tensor) -> Any:
        return self.layers(rows)


class Branching(nn.Module):
    """Cannot be exported: what it computes depends on what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, rows: torch.Tensor) -> Any:
        return self.layer(rows) if rows.sum().item() > 0 else rows


# Every flavour


FITTED: dict[str, tuple[str, Callable[[], Any]]] = {
    "sklearn": ("skops", lambda: LogisticRegression().fit(FRAME, WORDS)),
    "xgboost": ("xgboost", a_booster),
    "xgboost estimator": (
        "xgboost",
        lambda: xgboost.XGBClassifier(n_estimators=3).fit(FRAME, IS_UP),
    ),
    "xgboost regressor": (
        "xgboost",
        lambda: xgboost.XGBRegressor(n_estimators=3).fit(FRAME, FRAME["c"]),
    ),
    "lightgbm": ("lightgbm", a_lightgbm_booster),
    "lightgbm estimator": ("skops", lambda: a_lightgbm_estimator().fit(FRAME, WORDS)),
    "pipeline of xgboost": (
        "skops",
        lambda: make_pipeline(
            StandardScaler().set_output(transform="pandas"), xgboost.XGBClassifier(n_estimators=3)
        ).fit(FRAME, IS_UP),
    ),
    "pipeline of lightgbm": (
        "skops",
        lambda: make_pipeline(
            StandardScaler().set_output(transform="pandas"), a_lightgbm_estimator()
        ).fit(FRAME, WORDS),
    ),
}


@pytest.mark.parametrize("which", FITTED)
def test_each_library_s_own_object_comes_back_without_trust(store: Folder, which: str) -> None:
    form, fit = FITTED[which]
    model = fit()
    artifact = log(store, model, FRAME.head(4))
    assert artifact.format == form
    back = artifact.load()
    assert type(back) is type(model)
    rows = xgboost.DMatrix(FRAME) if which == "xgboost" else FRAME
    np.testing.assert_array_equal(back.predict(rows), model.predict(rows))


@pytest.mark.parametrize("which", FITTED)
def test_predict_is_one_call_for_all_and_finds_columns_by_name(store: Folder, which: str) -> None:
    model = FITTED[which][1]()
    artifact = log(store, model, FRAME.head(4))
    rows = xgboost.DMatrix(FRAME) if which == "xgboost" else FRAME
    shuffled = FRAME[["c", "a", "b"]].assign(another="x")
    expected = model.predict(rows)
    np.testing.assert_array_equal(artifact.predict(shuffled), expected)
    np.testing.assert_array_equal(artifact.predict(FRAME.to_numpy()), expected)


def test_a_signature_is_data(store: Folder) -> None:
    artifact = log(store, LogisticRegression().fit(FRAME, WORDS), FRAME.head(2))
    assert artifact.meta["signature"] == {
        "inputs": [{"name": name, "dtype": "float64", "shape": [None]} for name in "abc"],
        "outputs": [{"name": None, "dtype": "object", "shape": [None]}],
        "left_out": 0,
    }
    assert artifact.meta["input_example"] == FRAME.head(2).to_numpy().tolist()
    np.testing.assert_array_equal(
        artifact.predict(FRAME), log(store, artifact.load()).predict(FRAME)
    )


def test_a_signature_of_very_many_columns_is_cut_and_not_held_against_the_data(
    store: Folder,
) -> None:
    wide = pd.DataFrame(_RANDOM.normal(size=(60, 1200)))
    artifact = log(store, LogisticRegression().fit(wide, WORDS), wide.head(2))
    signature = artifact.meta["signature"]
    assert (len(signature["inputs"]), signature["left_out"]) == (1000, 200)
    assert artifact.meta["input_example"] is None
    assert len(artifact.predict(wide)) == 60


@pytest.mark.parametrize(
    ("which", "packages"),
    [
        ("xgboost", {"xgboost-cpu"}),
        ("lightgbm", {"lightgbm"}),
        ("sklearn", {"scikit-learn", "skops"}),
        ("pipeline of lightgbm", {"scikit-learn", "skops", "lightgbm"}),
    ],
)
def test_what_a_model_needs_is_written_down(store: Folder, which: str, packages: set[str]) -> None:
    needed = log(store, FITTED[which][1]()).meta["requirements"]
    assert {one.partition("==")[0] for one in needed} == packages
    assert f"lightgbm=={lightgbm.__version__}" in needed or "lightgbm" not in packages


def test_an_xgboost_estimator_keeps_what_its_file_lacks(store: Folder) -> None:
    holes = FRAME.where(FRAME > -0.5, -999.0)
    model = xgboost.XGBClassifier(n_estimators=np.int64(3), missing=-999.0).fit(holes, IS_UP)
    back = log(store, model).load()
    assert (back.missing, back.n_estimators) == (-999.0, 3)
    np.testing.assert_array_equal(back.predict_proba(holes), model.predict_proba(holes))
    assert np.isnan(log(store, FITTED["xgboost estimator"][1]()).load().missing)


def test_a_lightgbm_that_stopped_early_predicts_the_same(store: Folder) -> None:
    train, later = lightgbm.Dataset(FRAME[:40], IS_UP[:40]), FRAME[40:]
    worse_and_worse = lightgbm.Dataset(later, 1 - IS_UP[40:], reference=train)
    model = lightgbm.train(
        {"verbose": -1, "objective": "binary", "min_data_in_leaf": 2}, train, 50,
        valid_sets=[worse_and_worse], keep_training_booster=True,
        callbacks=[lightgbm.early_stopping(2, verbose=False)],
    )  # fmt: skip
    assert model.best_iteration < model.num_trees()
    back = log(store, model).load()
    assert back.num_trees() == model.best_iteration
    np.testing.assert_array_equal(back.predict(later), model.predict(later))


def test_categories_of_a_frame_are_known_again(store: Folder) -> None:
    frame = FRAME.assign(kind=pd.Categorical(WORDS))
    booster = xgboost.train({}, xgboost.DMatrix(frame, IS_UP, enable_categorical=True), 2)
    text = lightgbm.train({"verbose": -1}, lightgbm.Dataset(frame, IS_UP), 2)
    for model in (booster, text):
        artifact = log(store, model, frame.head(3))
        assert artifact.meta["signature"]["inputs"][3]["dtype"] == "category"
        given = frame if model is text else xgboost.DMatrix(frame, enable_categorical=True)
        np.testing.assert_array_equal(artifact.predict(frame), model.predict(given))


class Mine(xgboost.XGBClassifier):
    """More than its file would say."""


def test_a_subclass_of_xgboost_s_is_not_taken_for_its_own(store: Folder) -> None:
    artifact = log(store, Mine(n_estimators=2).fit(FRAME, IS_UP))
    assert artifact.format == "skops"
    with pytest.raises(SpecError, match=rf"outside of scikit-learn: {__name__}\.Mine; load"):
        artifact.load()


def test_a_version_predicts(store: Folder) -> None:
    version = rayml.register_model(log(store, a_booster(), FRAME.head(2)), "churn", "production")
    expected = a_booster().predict(xgboost.DMatrix(FRAME))
    np.testing.assert_array_equal(version.predict(FRAME), expected)
    by_uri = rayml.artifact("rayml://models/churn@production", store=store)
    np.testing.assert_array_equal(by_uri.predict(FRAME), expected)


def test_an_artifact_that_has_predicted_is_pickled_without_its_model(store: Folder) -> None:
    artifact = log(store, LogisticRegression().fit(FRAME, WORDS))
    before = len(pickle.dumps(artifact))
    artifact.predict(FRAME)
    assert len(pickle.dumps(artifact)) == before
    assert pickle.loads(pickle.dumps(artifact)).predict(FRAME)[0] in {"down", "up"}


# PyTorch


def expected_of(net: nn.Module, rows: Any = FRAME) -> Any:
    with torch.no_grad():
        return net.eval()(torch.tensor(np.asarray(rows), dtype=torch.float32)).numpy()


def test_a_module_with_an_example_is_loaded_without_its_class(store: Folder) -> None:
    net = Net()
    artifact = log(store, net, FRAME.head(1))
    assert net.training
    assert [file.path for file in artifact.record.files] == ["program.pt2", "weights.safetensors"]
    assert artifact.meta["signature"]["outputs"] == [
        {"name": None, "dtype": "float32", "shape": [None, 2]}
    ]
    np.testing.assert_allclose(artifact.predict(FRAME, trusted=True), expected_of(net), rtol=1e-5)
    one_row = artifact.predict(FRAME.head(1))
    np.testing.assert_allclose(one_row, expected_of(net, FRAME.head(1)), rtol=1e-5)

    code = (
        "import sys, rayml; from torch import ones; "
        "print(rayml.load_model(sys.argv[1], trusted=True, store=sys.argv[2])(ones(1, 3)).shape)"
    )
    words = [sys.executable, "-c", code, artifact.uri, store.uri]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "torch.Size([1, 2])\n", done.stderr


def test_a_program_takes_trust_and_its_weights_do_not(store: Folder) -> None:
    net = Net()
    artifact = log(store, net, torch.zeros(2, 3))
    with pytest.raises(SpecError, match=r"program of torch\.export.*trusted=True.*safetensors"):
        artifact.load()
    again = Net()
    again.load_state_dict(load_file(artifact.path() / "weights.safetensors"))
    np.testing.assert_array_equal(expected_of(again), expected_of(net))


def test_a_module_without_an_example_is_its_weights(store: Folder) -> None:
    net, again = Net(), Net()
    artifact = log(store, net)
    assert artifact.meta["class"] == f"{__name__}.Net"
    again.load_state_dict(artifact.load())
    np.testing.assert_array_equal(expected_of(again), expected_of(net))
    with pytest.raises(SpecError, match="a dict, which predicts nothing: it was logged without"):
        artifact.predict(FRAME)


def test_weights_that_are_shared_come_back_under_all_their_names(store: Folder) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    again = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    artifact = log(store, net)
    again.load_state_dict(artifact.load())
    np.testing.assert_array_equal(expected_of(again), expected_of(net))
    load_model(nn.ModuleList(net), artifact.path())


def test_a_pickled_module_predicts_as_evaluated_and_stays_in_training(store: Folder) -> None:
    net = Net()
    artifact = log(store, net, FRAME.head(2), form="pickle")
    np.testing.assert_allclose(artifact.predict(FRAME, trusted=True), expected_of(net), rtol=1e-5)
    assert artifact.load(trusted=True).training


def test_what_cannot_be_exported_keeps_its_weights_and_says_why(
    store: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = log(store, Branching(), torch.ones(2, 3))
    assert [file.path for file in artifact.record.files] == ["weights.safetensors"]
    assert artifact.meta["not_exported"].startswith("torch.export failed: ")
    assert "model 'model' keeps its weights alone: torch.export failed: " in caplog.text
    assert artifact.meta["signature"]["outputs"][0]["shape"] == [None, 1]
    assert set(artifact.load()) == {"layer.weight", "layer.bias"}
    with pytest.raises(SpecError, match=r"predicts nothing: torch\.export failed"):
        artifact.predict(FRAME)


def test_several_outputs_are_named_by_place(store: Folder) -> None:
    class Two(Net):
        def forward(self, rows: torch.Tensor) -> Any:
            return rows, self.layers(rows).bfloat16()

    artifact = log(store, Two(), FRAME.head(2))
    outputs = artifact.meta["signature"]["outputs"]
    assert [(one["name"], one["shape"]) for one in outputs] == [("0", [None, 3]), ("1", [None, 2])]
    same, _ = artifact.predict(FRAME, trusted=True)
    np.testing.assert_allclose(same, FRAME, rtol=1e-6)


def test_a_compiled_module_has_the_names_of_its_own(store: Folder) -> None:
    artifact = log(store, torch.compile(Net()), FRAME.head(2))
    assert artifact.meta["class"] == f"{__name__}.Net"
    assert "not_exported" not in artifact.meta
    assert "layers.0.weight" in load_file(artifact.path() / "weights.safetensors")


def test_a_module_spread_over_workers_has_the_names_of_its_own(
    store: Folder, tmp_path: Path
) -> None:
    here = f"file://{tmp_path}/ranks"
    torch.distributed.init_process_group("gloo", init_method=here, rank=0, world_size=1)
    try:
        net = Net()
        artifact = log(store, nn.parallel.DistributedDataParallel(net), FRAME.head(2))
    finally:
        torch.distributed.destroy_process_group()
    assert artifact.meta["class"] == f"{__name__}.Net"
    assert set(load_file(artifact.path() / "weights.safetensors")) == set(net.state_dict())
    np.testing.assert_allclose(artifact.predict(FRAME, trusted=True), expected_of(net), rtol=1e-5)


def test_images_are_rows_of_arrays(store: Folder) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    images = _RANDOM.normal(size=(4, 1, 8, 8)).astype("float32")
    artifact = log(store, net, images[:2])
    assert artifact.meta["signature"]["inputs"][0]["shape"] == [None, 1, 8, 8]
    assert artifact.predict(images, trusted=True).shape == (4, 72)
    with pytest.raises(SpecError, match=r"takes rows of the shape \[1, 8, 8\] and got numpy"):
        artifact.predict(images[:, :, :4])
    with pytest.raises(SpecError, match=r"DataFrame of the shape \[60, 3\]"):
        artifact.predict(FRAME)


# Keras


# Keras's tensors on torch take no `copy`, of which numpy 2 complains.
BY_TORCH = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keras, computing by torch."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


@BY_TORCH
def test_a_keras_model_comes_back(store: Folder, keras: Any) -> None:
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    artifact = log(store, net, FRAME.head(2))
    assert (artifact.format, artifact.record.files[0].path) == ("keras", "model.keras")
    assert {one.partition("==")[0] for one in artifact.meta["requirements"]} == {"keras", "torch"}
    expected = net.predict(FRAME.to_numpy(), verbose=0)
    np.testing.assert_allclose(artifact.predict(FRAME), expected, rtol=1e-6)
    assert isinstance(artifact.load(), keras.Sequential)


@BY_TORCH
def test_a_lambda_in_a_keras_model_takes_trust(store: Folder, keras: Any) -> None:
    net = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda rows: rows * 2)])
    artifact = log(store, net)
    with pytest.raises(SpecError, match=r"not read by Keras without trust.*trusted=True"):
        artifact.load()
    doubled = artifact.predict(FRAME, trusted=True)
    np.testing.assert_allclose(doubled, FRAME.to_numpy() * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "example", "form", "needs_trust"),
    [
        (LogisticRegression().fit(FRAME, WORDS), FRAME, None, False),
        (LogisticRegression().fit(FRAME, WORDS), FRAME, "pickle", True),
        (Mine(n_estimators=1).fit(FRAME, IS_UP), None, None, True),
        (Net(), None, None, False),
        (Net(), FRAME, None, True),
        (Branching(), FRAME, None, False),
    ],
)
def test_whether_a_model_takes_trust_is_known_before_it_is_read(
    store: Folder, model: object, example: object, form: str | None, needs_trust: bool
) -> None:
    artifact = log(store, model, example, form)
    assert artifact.needs_trust is needs_trust
    if needs_trust:
        with pytest.raises(SpecError, match="trusted=True"):
            artifact.load()
    assert artifact.load(trusted=needs_trust) is not None


# What is refused


@pytest.mark.parametrize(
    ("example", "problem"),
    [
        ([[1, 2, 3]], r"has a list as its input example; give a few rows"),
        (FRAME.head(0), r"of the shape \(0, 3\), which has no rows"),
        (np.float64(3), r"has a numpy\.float64 as its input example"),
        (FRAME[["a", "b"]], r"fails on its input example: ValueError: .*; give a few rows"),
        (pd.DataFrame({"a": ["x"], "b": [1], "c": [1]}), r"fails on its input example"),
    ],
)
def test_an_example_that_does_not_run_is_refused(
    store: Folder, example: object, problem: str
) -> None:
    model = LogisticRegression().fit(FRAME, WORDS)
    with pytest.raises(SpecError, match=problem) as caught:
        save_model(store, "model", model, input_example=example)
    assert "\n" not in str(caught.value)
    assert store.list("blobs/") == []


@pytest.mark.parametrize(
    ("model", "form", "problem"),
    [
        (xgboost.XGBClassifier(), None, r"\(xgboost.*\) cannot be kept as xgboost: .*fit"),
        (
            LogisticRegression(),
            "torch",
            r"LogisticRegression, which the format 'torch' is not for",
        ),
        (nn.Linear(1, 1), "xgbost", r"has no format 'xgbost'; did you mean 'xgboost'\?"),
        ({"weights": 1}, None, r"is a dict, which no flavour is for; say format='pickle'"),
    ],
)
def test_what_a_format_cannot_keep_is_refused(
    store: Folder, model: object, form: str | None, problem: str
) -> None:
    with pytest.raises(SpecError, match=problem):
        save_model(store, "model", model, form)
    assert store.list("blobs/") == []


def test_rows_that_lack_columns_are_refused(store: Folder) -> None:
    artifact = log(store, a_booster(), FRAME.head(2))
    with pytest.raises(SpecError, match=r"takes 3 columns, of which the data lacks 'b', 'c'; add"):
        artifact.predict(FRAME[["a"]])
    with pytest.raises(SpecError, match=r"takes rows of the shape \[3\]"):
        artifact.predict(FRAME[["a"]].to_numpy())
    with pytest.raises(SpecError, match="got list"):
        artifact.predict([[1, 2, 3]])


def test_only_models_predict(store: Folder) -> None:
    with rayml.start_run(store=store) as context:
        table = context.log_table("rows", FRAME)
    with pytest.raises(SpecError, match="artifact 'rows' is a table, no model"):
        table.predict(FRAME)
    own = log(store, {"a": 1}, form="pickle")
    with pytest.raises(SpecError, match="runs whatever code"):
        own.predict(FRAME)
    with pytest.raises(
        SpecError, match=r"as a dict, which predicts nothing: it has no predict\(\)"
    ):
        own.predict(FRAME, trusted=True)


@pytest.mark.parametrize("which", ["xgboost", "lightgbm", "lightgbm estimator"])
def test_a_corrupt_model_is_not_read(store: Folder, which: str) -> None:
    artifact = log(store, FITTED[which][1]())
    for path in (path for path in (store.root / "blobs").rglob("*") if path.is_file()):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)
    with pytest.raises(ArtifactCorrupt):
        artifact.load()


def test_a_lightgbm_estimators_booster_lies_beside_it_in_its_own_text(store: Folder) -> None:
    import lightgbm

    model = a_lightgbm_estimator().fit(FRAME, WORDS)
    own = lightgbm.Booster(model_file=log(store, model).path() / "model.txt")
    np.testing.assert_array_equal(own.predict(FRAME), model.booster_.predict(FRAME))
    assert log(store, a_lightgbm_estimator()).path().name == "model.skops"  # it is not fitted


@pytest.mark.parametrize("which", ["xgboost", "lightgbm", "sklearn"])
def test_a_file_that_the_library_cannot_read_says_what_wrote_it(store: Folder, which: str) -> None:
    artifact = log(store, FITTED[which][1]())
    blob = store.add(io.BytesIO(b"of a later version"))
    file = FileRecord(path=artifact.record.files[0].path, digest=blob.digest, size=blob.size)
    record = msgspec.structs.replace(artifact.record, files=[file])
    needed = artifact.meta["requirements"][0]
    with pytest.raises(
        SpecError, match=f"cannot be read here: .*; pip install {needed}"
    ) as caught:
        Artifact(record, store).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("which", ["xgboost", "lightgbm", "pipeline of lightgbm"])
def test_a_missing_package_comes_with_its_install_line(store: Folder, which: str) -> None:
    artifact = log(store, FITTED[which][1]())
    missing = "lightgbm" if "lightgbm" in which else "xgboost"
    code = (
        "import sys, rayml; sys.modules[sys.argv[3]] = None\n"  # as if it were not installed
        "try: rayml.load_model(sys.argv[1], store=sys.argv[2])\n"
        "except rayml.SpecError as exc: print(exc)"
    )
    words = [sys.executable, "-c", code, artifact.uri, store.uri, missing]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    needed = " ".join(artifact.meta["requirements"])
    assert done.stdout.startswith(f"model 'model' needs {missing}, which is not installed; pip ")
    assert done.stdout.endswith(f"pip install {needed}\n"), done.stderr


def test_a_pickle_of_own_code_says_that_the_code_is_missing(
    store: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "churn_rules.py").write_text("class Rule: pass\n")
    with monkeypatch.context() as here:
        here.syspath_prepend(tmp_path)
        rule = importlib.import_module("churn_rules").Rule()
        artifact = log(store, rule, form="pickle")
    monkeypatch.delitem(sys.modules, "churn_rules")
    with pytest.raises(
        SpecError, match=r"needs churn_rules, .*put the code where Python finds it"
    ):
        artifact.load(trusted=True)


def test_a_package_that_is_missing_when_a_model_is_logged_is_named(store: Folder) -> None:
    code = (
        "import sys, rayml; from torch import nn; sys.modules['safetensors'] = None\n"
        "with rayml.start_run(store=sys.argv[1]) as context:\n"
        "    context.log_model('m', nn.Linear(1, 1))"
    )
    words = [sys.executable, "-c", code, store.uri]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.endswith(
        "SpecError: model 'm' needs safetensors, which is not installed; "
        "pip install 'rayml[torch]'\n"
    )


def test_logging_loads_no_library_that_the_model_is_not_of(store: Folder) -> None:
    code = (
        "import json, sys, rayml\n"
        "from sklearn.dummy import DummyClassifier\n"
        "with rayml.start_run(store=sys.argv[1]) as context:\n"
        "    context.log_model('m', DummyClassifier().fit([[0]], [1]))\n"
        "print(json.dumps([*sys.modules]))"
    )
    words = [sys.executable, "-c", code, store.uri]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    loaded = json.loads(done.stdout.splitlines()[-1])
    # skops loads torch by itself, where that is installed.
    assert not {"xgboost", "lightgbm", "keras", "safetensors"} & set(loaded)


def test_times_are_given_to_a_model_in_the_unit_that_it_was_trained_on(store: Folder) -> None:
    days = pd.DataFrame({"day": pd.date_range("2026-01-01", periods=4).astype("datetime64[us]")})
    numbers = FunctionTransformer(np.asarray, kw_args={"dtype": "int64"})
    model = make_pipeline(numbers, LinearRegression()).fit(days, [1.0, 2.0, 3.0, 4.0])
    artifact = log(store, model, example=days)

    units: Any = ("s", "ms", "us", "ns")
    for unit in units:
        told = artifact.predict(days.assign(day=days["day"].dt.as_unit(unit)), trusted=True)
        np.testing.assert_allclose(told, [1.0, 2.0, 3.0, 4.0])
