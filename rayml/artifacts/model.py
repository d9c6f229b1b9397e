"""Models: scikit-learn estimators as skops, which runs no code when it is read; else pickle.

Why not trust every name below `sklearn.`, `numpy.`, `scipy.`: skops calls what a file names, and
among those names are functions that evaluate strings (`numpy.f2py.crackfortran.myeval`), download
files (`sklearn.datasets.fetch_file`) and overwrite them (`numpy.memmap`). A forged file would be a
program.
"""

from __future__ import annotations

import importlib
import pickle
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayml.artifacts.file import load_file
from rayml.artifacts.record import ArtifactRecord, add_file, check_name, is_a, json_safe, type_name
from rayml.errors import SpecError, suggestion

if TYPE_CHECKING:
    from types import ModuleType

    from rayml.store import Store

_FILES = {"skops": "model.skops", "pickle": "model.pkl"}
_BY_CODE = {"pickle": "a pickle", "mlflow": "a model of MLflow's"}
_CLASSES_OF = "sklearn."
_NOT_CLASSES_OF = ("sklearn.datasets.", "sklearn.externals.", "sklearn.utils._testing.")
# Outside of scikit-learn's classes, what its fitted estimators and their usual parameters are made
# of: numbers in, numbers out.
_TRUSTED = frozenset(
    {
        "numpy.dtype",
        "numpy.max",
        "numpy.mean",
        "numpy.median",
        "numpy.min",
        "numpy.sum",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        *(
            f"scipy.sparse._{kind}.{kind}_{form}"
            for kind in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
            for form in ("array", "matrix")
        ),
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.feature_selection._mutual_info.mutual_info_classif",
        "sklearn.feature_selection._mutual_info.mutual_info_regression",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
    }
)


def save_model(
    store: Store,
    name: str,
    model: object,
    format: str | None = None,  # noqa: A002
) -> ArtifactRecord:
    """Store a model and return its record, with its class, library, versions and parameters.

    Args:
        store: Where the bytes go; nothing is recorded unless all of them got there.
        name: The artifact's name.
        model: A scikit-learn estimator, or any object together with a format.
        format: `skops`, or `pickle`, which whoever loads it must trust; None takes skops for
            scikit-learn estimators, and nothing else.

    Raises:
        SpecError: There is no such format, or the model needs another one.
    """
    check_name(name)
    is_estimator = is_a(model, "sklearn.base.BaseEstimator")
    format = format or ("skops" if is_estimator else None)  # noqa: A001
    if format not in _FILES:
        raise SpecError(_no_format(name, model, format))
    meta = _meta(model, is_estimator=is_estimator)
    with tempfile.TemporaryDirectory(prefix="rayml-") as folder:
        path = Path(folder) / _FILES[format]
        if format == "skops":
            meta["untrusted_types"] = _dump_skops(name, model, path)
        else:
            _dump_pickle(name, model, path)
        files = [add_file(store, path, path.name)]
    return ArtifactRecord(name=name, kind="model", format=format, files=files, meta=meta)


def load_model(store: Store, record: ArtifactRecord, *, trusted: bool = False) -> Any:  # noqa: ANN401
    """Return the model; unless it is trusted, no code that it brings along is run.

    That is a promise about code, not about numbers: scikit-learn checks no bounds in the arrays
    of a tree, so that a forged one can crash the process that predicts with it.

    Raises:
        SpecError: It is a pickle, or has types of other libraries, and `trusted` is not True.
        ArtifactCorrupt: The stored bytes are not those that were logged.
    """
    if record.format == "skops":
        return _load_skops(record.name, load_file(store, record), trusted=trusted)
    if not trusted:
        raise SpecError(
            f"model {record.name!r} is {_BY_CODE[record.format]}, and reading it runs whatever "
            "code is in it; load(trusted=True) if you trust whoever logged it"
        )
    if record.format == "mlflow":
        return _load_mlflow(store, record)
    return pickle.loads(load_file(store, record))  # noqa: S301 - trusted, by an explicit yes


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
        return f"model {name!r} has no format {format!r}; {suggestion(format, _FILES)}"
    return (
        f"model {name!r} is a {type_name(model)}, not a scikit-learn estimator; "
        "say format='pickle', which only those who trust you can load, or format='skops'"
    )


def _meta(model: Any, *, is_estimator: bool) -> dict[str, object]:  # noqa: ANN401
    library = type(model).__module__.partition(".")[0]
    return {
        "class": type_name(model),
        "library": library,
        "library_version": str(getattr(sys.modules.get(library), "__version__", "")),
        "python_version": platform.python_version(),
        "params": json_safe(model.get_params()) if is_estimator else {},
    }


def _dump_skops(name: str, model: object, path: Path) -> list[str]:
    skops = _skops(name)
    try:
        skops.dump(model, path)
        return _untrusted(skops.get_untrusted_types(file=path))
    except Exception as exc:
        raise SpecError(
            f"model {name!r} ({type_name(model)}) cannot be kept as skops: {exc}; "
            "say format='pickle', which only those who trust you can load"
        ) from exc


def _dump_pickle(name: str, model: object, path: Path) -> None:
    import cloudpickle  # noqa: PLC0415

    try:
        with path.open("wb") as file:
            cloudpickle.dump(model, file)
    except (pickle.PicklingError, TypeError, AttributeError, NotImplementedError) as exc:
        raise SpecError(
            f"model {name!r} ({type_name(model)}) cannot be pickled: {exc}; "
            "save it with its own library and log the file with log_artifact"
        ) from exc


def _load_skops(name: str, content: bytes, *, trusted: bool) -> Any:  # noqa: ANN401
    skops = _skops(name)
    found = skops.get_untrusted_types(data=content)
    if (unknown := _untrusted(found)) and not trusted:
        raise SpecError(
            f"model {name!r} has types outside of scikit-learn: {', '.join(unknown)}; "
            "load(trusted=True) if you trust whoever logged it"
        )
    return skops.loads(content, trusted=found)


def _skops(name: str) -> ModuleType:
    try:
        return importlib.import_module("skops.io")
    except ImportError as exc:
        raise SpecError(
            f"model {name!r} needs skops, which is not installed; pip install 'rayml[sklearn]'"
        ) from exc


def _untrusted(names: list[str]) -> list[str]:
    return [name for name in names if name not in _TRUSTED and not _is_class_of_sklearn(name)]


def _is_class_of_sklearn(name: str) -> bool:
    """Whether it is a class, not a function, and defined in the module that the name says."""
    module, _, member = name.rpartition(".")
    if not name.startswith(_CLASSES_OF) or name.startswith(_NOT_CLASSES_OF):
        return False
    try:
        found = getattr(importlib.import_module(module), member, None)
    except (ImportError, ValueError):
        return False
    return isinstance(found, type) and found.__module__ == module
