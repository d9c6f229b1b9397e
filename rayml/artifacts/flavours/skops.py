"""scikit-learn estimators as skops, which runs no code when it is read.

Why not trust every name below `sklearn.`, `numpy.`, `scipy.`: skops calls what a file names, and
among those names are functions that evaluate strings (`numpy.f2py.crackfortran.myeval`), download
files (`sklearn.datasets.fetch_file`) and overwrite them (`numpy.memmap`). A forged file would be a
program.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any

from rayml.artifacts.flavours import lightgbm, xgboost
from rayml.artifacts.packages import requirements
from rayml.artifacts.record import is_a
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rayml.artifacts.flavours import StoredModel

_FILE = "model.skops"
_ARRAY_LIBRARIES = frozenset(
    f"sklearn.externals.array_api_compat.{name}" for name in ("cupy", "dask", "jax", "torch")
)
_CLASSES_OF = "sklearn."
_NOT_CLASSES_OF = ("sklearn.datasets.", "sklearn.externals.", "sklearn.utils._testing.")
# Outside of scikit-learn's classes, what its fitted estimators and their usual parameters are made
# of: numbers in, numbers out. The boosters read their model from text or a buffer in the file.
_TRUSTED = frozenset(
    {
        *lightgbm.TYPES,
        *xgboost.TYPES,
        "collections.OrderedDict",
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
        # Read and bound the numbers and dates of rows; pandas 2 knows them by the longer names.
        "numpy.asarray",
        "numpy.clip",
        "numpy.expand_dims",
        "pandas.DataFrame",
        "pandas.Series",
        "pandas.core.frame.DataFrame",
        "pandas.core.series.Series",
        "pandas.core.tools.datetimes.to_datetime",
        "pandas.core.tools.numeric.to_numeric",
        "pandas.to_datetime",
        "pandas.to_numeric",
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.feature_selection._mutual_info.mutual_info_classif",
        "sklearn.feature_selection._mutual_info.mutual_info_regression",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
    }
)


def fits(model: object) -> bool:
    """Whether it is an estimator, of any library."""
    return is_a(model, "sklearn.base.BaseEstimator")


def save(model: Any, folder: Path, _example: object) -> dict[str, object]:  # noqa: ANN401
    """Write its file, and note which types in it a reader has to trust."""
    with _without_array_libraries():
        import skops.io  # noqa: PLC0415 - an extra

    skops.io.dump(model, folder / _FILE)
    lightgbm.save_beside(model, folder)
    found = skops.io.get_untrusted_types(file=folder / _FILE)
    libraries = {name.partition(".")[0] for name in found}
    return {
        "untrusted_types": _untrusted(found),
        "requirements": requirements("sklearn", "skops", *libraries),
    }


def load(stored: StoredModel) -> Any:  # noqa: ANN401
    """Return the estimator.

    Raises:
        SpecError: It has types of others, and no trust.
    """
    with _without_array_libraries():
        import skops.io  # noqa: PLC0415 - an extra

    path = stored.folder / _FILE
    found = skops.io.get_untrusted_types(file=path)
    if (unknown := _untrusted(found)) and not stored.trusted:
        raise SpecError(
            f"model {stored.record.name!r} has types outside of scikit-learn: "
            f"{', '.join(unknown)}; load(trusted=True) if you trust whoever logged it"
        )
    return skops.io.load(path, trusted=found)


class _Refusal:
    """Finds that what a thread looks for is not there."""

    def __init__(self) -> None:
        self._thread = get_ident()

    def find_spec(self, name: str, *_: object) -> None:
        """Refuse scikit-learn's ways to other libraries' arrays."""
        if get_ident() == self._thread and name in _ARRAY_LIBRARIES:
            raise ModuleNotFoundError(f"{name} is not needed to write a model", name=name)


@contextmanager
def _without_array_libraries() -> Iterator[None]:
    """Let skops not load PyTorch and Dask: it imports whatever is a part of scikit-learn."""
    refusal: Any = _Refusal()
    sys.meta_path.insert(0, refusal)
    try:
        yield
    finally:
        sys.meta_path.remove(refusal)


def predict(model: Any, data: Any) -> Any:  # noqa: ANN401
    """Return what the estimator's `predict` does."""
    return model.predict(data)


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
