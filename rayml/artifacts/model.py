"""Models: kept and loaded by their flavour, described, and asked for predictions."""

from __future__ import annotations

import importlib
import logging
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayml.artifacts.file import copy_files, is_folder
from rayml.artifacts.flavours import (
    Flavour,
    StoredModel,
    keras,
    lightgbm,
    pickled,
    skops,
    torch,
    transformers,
    xgboost,
)
from rayml.artifacts.record import (
    ArtifactRecord,
    add_file,
    check_name,
    first_line,
    is_a,
    json_safe,
    type_name,
)
from rayml.artifacts.signature import check_example, describe, fit_in, sample
from rayml.errors import RaymlError, SpecError, suggestion

if TYPE_CHECKING:
    from rayml.store import Store

_logger = logging.getLogger("rayml")

# The first one that fits keeps a model: XGBoost's estimators are scikit-learn's too, and a Keras
# model that computes by torch is also a module, as those of transformers are.
_FLAVOURS: dict[str, Flavour] = {
    "xgboost": xgboost,
    "lightgbm": lightgbm,
    "keras": keras,
    "transformers": transformers,
    "torch": torch,
    "skops": skops,
    "pickle": pickled,
}
_EXTRAS = {name: name for name in _FLAVOURS} | {"skops": "sklearn"}
_OF_ANY_OBJECT = ("skops", "pickle")
_BY_CODE = {"pickle": "a pickle", "mlflow": "a model of MLflow's"}


@dataclass(frozen=True)
class WrittenModel:
    """A model that is written to a folder, and not stored yet.

    Attributes:
        folder: It holds the model's files and nothing else.
        format: The flavour's name.
        meta: What the record will say of it.
    """

    folder: Path
    format: str
    meta: dict[str, object]


def save_model(
    store: Store,
    name: str,
    model: object,
    format: str | None = None,  # noqa: A002
    input_example: object = None,
) -> ArtifactRecord:
    """Store a model and return its record, with its class, requirements and parameters.

    Args:
        store: Where the bytes go; nothing is recorded unless all of them got there.
        name: The artifact's name.
        model: Of a library that has a flavour, or any object together with a format.
        format: A flavour's name, or `pickle`, which whoever loads it must trust; None takes the
            flavour of the model's library, and never a pickle.
        input_example: A few rows, which are run through the model: its signature.

    Raises:
        SpecError: There is no such format, the model needs another one, its format cannot keep
            it, or it fails on the example.
    """
    with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
        written = write_model(Path(folder), name, model, format, input_example)
        return store_model(store, name, written)


def write_model(
    folder: Path,
    name: str,
    model: object,
    format: str | None = None,  # noqa: A002
    input_example: object = None,
) -> WrittenModel:
    """Write a model's files, and what is to be known of it, for `store_model`.

    Raises:
        SpecError: As `save_model` does.
    """
    check_name(name)
    format = format or _format_of(model)  # noqa: A001
    if format not in _FLAVOURS:
        raise SpecError(_no_format(name, model, format))
    if format not in _OF_ANY_OBJECT and not _FLAVOURS[format].fits(model):
        raise SpecError(
            f"model {name!r} is a {type_name(model)}, which the format {format!r} is not for; "
            "leave the format out"
        )
    meta = _meta(model)
    if input_example is not None:
        meta |= _try_example(name, model, input_example)
    meta |= _write(name, model, format, folder, input_example)
    if input_example is not None and (why := meta.get("not_exported")):
        _logger.warning("model %r keeps its weights alone: %s", name, why)
    return WrittenModel(folder, format, meta)


def store_model(store: Store, name: str, written: WrittenModel) -> ArtifactRecord:
    """Store the files of a model and return its record."""
    paths = [path for path in sorted(written.folder.rglob("*")) if path.is_file()]
    files = [add_file(store, path, path.relative_to(written.folder).as_posix()) for path in paths]
    return ArtifactRecord(
        name=name, kind="model", format=written.format, files=files, meta=written.meta
    )


def load_model(store: Store, record: ArtifactRecord, *, trusted: bool = False) -> Any:  # noqa: ANN401
    """Return the model; unless it is trusted, no code that it brings along is run.

    That is a promise about code, not about numbers: scikit-learn and the boosting libraries check
    no bounds in a tree, so that a forged one can crash the process that predicts with it.

    Raises:
        SpecError: It is a pickle or a program, or has types of other libraries, and `trusted` is
            not True; or a package that it needs is missing, or another version than it needs.
        ArtifactCorrupt: The stored bytes are not those that were logged.
    """
    if record.format in _BY_CODE and not trusted:
        raise SpecError(
            f"model {record.name!r} is {_BY_CODE[record.format]}, and reading it runs whatever "
            "code is in it; load(trusted=True) if you trust whoever logged it"
        )
    if record.format == "mlflow":
        return _load_mlflow(store, record)
    if record.format not in _FLAVOURS:
        raise SpecError(
            f"model {record.name!r} has the format {record.format!r}, which a newer rayml wrote; "
            "upgrade"
        )
    with tempfile.TemporaryDirectory(prefix="rayml-") as beside:
        folder = Path(beside) / "model"
        copy_files(store, record, folder if is_folder(record) else folder / record.files[0].path)
        return _read(StoredModel(folder, record, trusted))


def predict(record: ArtifactRecord, model: object, data: object) -> Any:  # noqa: ANN401
    """Return what a loaded model says of rows, which are brought into its signature's form.

    Raises:
        SpecError: The rows do not fit the signature, or the model predicts nothing.
    """
    flavour = _FLAVOURS[_format_of(model) or "pickle"]
    if flavour is pickled and not hasattr(model, "predict"):
        why = record.meta.get("not_exported", "it has no predict()")
        raise SpecError(
            f"model {record.name!r} is loaded as a {type_name(model)}, which predicts nothing: "
            f"{why}; load() it and use it as its library says"
        )
    return flavour.predict(model, fit_in(record, data))


def _format_of(model: object) -> str | None:
    return next((name for name, flavour in _FLAVOURS.items() if flavour.fits(model)), None)


def _try_example(name: str, model: object, example: object) -> dict[str, object]:
    """Return the signature that running the model on its example shows."""
    check_example(name, example)
    flavour = _FLAVOURS[_format_of(model) or "pickle"]
    try:
        told = describe(example, flavour.predict(model, example))
    except Exception as exc:
        raise SpecError(
            f"model {name!r} ({type_name(model)}) fails on its input example: {first_line(exc)}; "
            "give a few rows of what it was trained on, or none"
        ) from exc
    return {"signature": told, "input_example": sample(example)}


def _write(
    name: str,
    model: object,
    format: str,  # noqa: A002
    folder: Path,
    example: object,
) -> dict[str, object]:
    try:
        return _FLAVOURS[format].save(model, folder, example)
    except ImportError as exc:
        raise SpecError(_missing(name, exc, f"'rayml[{_EXTRAS[format]}]'")) from exc
    except Exception as exc:
        way_out = "say format='pickle', which only those who trust you can load"
        if format == "pickle":
            way_out = "save it with its own library and log the file with log_artifact"
        raise SpecError(
            f"model {name!r} ({type_name(model)}) cannot be kept as {format}: {first_line(exc)}; "
            f"{way_out}"
        ) from exc


def _read(stored: StoredModel) -> Any:  # noqa: ANN401
    record = stored.record
    try:
        return _FLAVOURS[record.format].load(stored)
    except RaymlError:
        raise
    except ImportError as exc:
        or_else = ", or put the code where Python finds it" if record.needs_trust else ""
        raise SpecError(_missing(record.name, exc, _needed(record) + or_else)) from exc
    except Exception as exc:
        raise SpecError(
            f"model {record.name!r} has the bytes that were logged and cannot be read here: "
            f"{first_line(exc)}; pip install {_needed(record)}, as where it was logged"
        ) from exc


def _missing(name: str, exc: ImportError, packages: str) -> str:
    wanted = (exc.name or first_line(exc)).partition(".")[0]
    return f"model {name!r} needs {wanted}, which is not installed; pip install {packages}"


def _needed(record: ArtifactRecord) -> str:
    """Return what pip is to install; records of a rayml before this one do not say."""
    known: Any = record.meta.get("requirements")
    if known:
        return " ".join(known)
    is_pickle = record.format == "pickle"
    return str(record.meta["library"]) if is_pickle else f"'rayml[{_EXTRAS[record.format]}]'"


def _load_mlflow(store: Store, record: ArtifactRecord) -> Any:  # noqa: ANN401
    """Return a model that MLflow has logged, as the library's own class where MLflow knows it."""
    try:
        import mlflow  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise SpecError(
            f"model {record.name!r} was logged by MLflow, which is not installed; "
            "pip install 'rayml[mlflow]'"
        ) from exc
    from rayml.artifacts import Artifact  # noqa: PLC0415 - it imports this module

    path = str(Artifact(record, store).path())
    loader = record.meta.get("class")
    if isinstance(loader, str) and loader.startswith("mlflow."):
        module = importlib.import_module(loader)
        if hasattr(module, "load_model"):
            return module.load_model(path)
    return mlflow.pyfunc.load_model(path)


def _no_format(name: str, model: object, format: str | None) -> str:  # noqa: A002
    if format is not None:
        return f"model {name!r} has no format {format!r}; {suggestion(format, _FLAVOURS)}"
    return (
        f"model {name!r} is a {type_name(model)}, which no flavour is for; "
        "say format='pickle', which only those who trust you can load, or format='skops'"
    )


def _meta(model: Any) -> dict[str, object]:  # noqa: ANN401
    library = type(model).__module__.partition(".")[0]
    is_estimator = is_a(model, "sklearn.base.BaseEstimator")
    return {
        "class": type_name(model),
        "library": library,
        "library_version": str(getattr(sys.modules.get(library), "__version__", "")),
        "python_version": platform.python_version(),
        "params": json_safe(_by_name(model.get_params())) if is_estimator else {},
    }


def _by_name(value: object) -> object:
    """Return parameters with each estimator among them as its name.

    What it was made with is there too, under longer names; scikit-learn takes seconds to write the
    whole of an ensemble of pipelines at each level.
    """
    if is_a(value, "sklearn.base.BaseEstimator"):
        return type(value).__name__
    if isinstance(value, dict):
        return {name: _by_name(item) for name, item in value.items()}
    return [_by_name(item) for item in value] if isinstance(value, list | tuple) else value
