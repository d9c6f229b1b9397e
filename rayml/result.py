"""What a function returned, encoded so that it comes back as it was."""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING

import cloudpickle

from rayml.errors import SpecError
from rayml.redaction import redact_strings
from rayml.spec import is_numpy_scalar
from rayml.store import read_blob
from rayml.tracker.records import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from rayml.store import Store

_INLINE_BYTES = 64 * 1024
_JSON_INT_BITS = 14_000  # Python writes and reads integers of up to 4,300 digits


def encode_result(value: object, store: Store, redact: Callable[[bytes], bytes]) -> Result:
    """Return a value in an open format where that keeps it exactly as it is, else as a pickle.

    Raises:
        SpecError: It cannot be pickled, or it holds a secret.
        StoreError: It is large and the store refused it.
    """
    format_, data = _encode(value)
    if format_ == "json":
        data = json.dumps(redact_strings(value, redact)).encode()
    elif redact(data) != data:
        raise SpecError(
            f"the returned {type(value).__name__} holds the value of a secret; return it without"
        )
    if len(data) <= _INLINE_BYTES:
        return Result(format=format_, inline=data)
    return Result(format=format_, digest=store.add(io.BytesIO(data)).digest)


def decode_result(result: Result, store: Store, *, trusted: bool) -> object:
    """Return the value again.

    Raises:
        SpecError: It is a pickle, which can run code, and was not trusted.
        ArtifactCorrupt: The store holds other bytes than were returned.
    """
    if result.format == "pickle" and not trusted:
        raise SpecError(
            "the result is stored as a pickle, and loading a pickle runs the code in it; "
            "call load_result(trusted=True) if you trust whoever ran it"
        )
    data = result.inline
    if data is None:
        data = b"".join(read_blob(store, result.digest or ""))
    return _decode(result.format, data)


def result_metrics(value: object) -> Iterator[tuple[str, float]]:
    """Yield what a returned value says in numbers: a scalar as `result`, a dict's scalars by name.

    >>> list(result_metrics({"auc": 0.9, "test": {"loss": 1}, "note": "ok"}))
    [('auc', 0.9), ('test/loss', 1.0)]
    """
    yield from _numbers("", value)


def _numbers(name: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str) and key:
                yield from _numbers(f"{name}/{key}" if name else key, item)
    elif isinstance(value, int | float) or _is_real_scalar(value):
        try:
            yield name or "result", float(value)  # type: ignore[arg-type]
        except OverflowError:
            return


def _is_real_scalar(value: object) -> bool:
    return is_numpy_scalar(value) and getattr(value, "dtype").kind in "iufb"  # noqa: B009


def _encode(value: object) -> tuple[str, bytes]:
    if _is_plain(value):
        return "json", json.dumps(value).encode()
    if (data := _encode_numpy(value)) is not None:
        return "numpy", data
    if (data := _encode_frame(value)) is not None:
        return "parquet", data
    try:
        return "pickle", cloudpickle.dumps(value)
    except Exception as exc:  # any object's own pickling code may raise anything
        raise SpecError(
            f"the returned {type(value).__name__} cannot be stored: {exc}; return plain values, "
            "and log the rest with log_model or log_artifact"
        ) from exc


def _is_plain(value: object) -> bool:
    """Tell whether JSON gives exactly this value back; subclasses such as numpy's do not count."""
    if value is None or type(value) in (bool, str):
        return True
    if type(value) is int:
        return value.bit_length() < _JSON_INT_BITS
    if type(value) is float:
        return math.copysign(1, value) > 0 or not math.isnan(value)
    if type(value) is list:
        return all(map(_is_plain, value))
    return type(value) is dict and all(type(k) is str and _is_plain(v) for k, v in value.items())


def _encode_numpy(value: object) -> bytes | None:
    is_array = type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"
    if not (is_array or is_numpy_scalar(value)):
        return None
    import numpy as np  # noqa: PLC0415 - the value shows that it is loaded

    array = np.asarray(value)
    if array.dtype.hasobject or (is_array and array.ndim == 0):
        return None
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _encode_frame(value: object) -> bytes | None:
    if type(value).__name__ != "DataFrame" or not type(value).__module__.startswith("pandas"):
        return None
    import pandas as pd  # noqa: PLC0415 - the value shows that it is loaded

    try:
        data = value.to_parquet()  # type: ignore[attr-defined]
        back = pd.read_parquet(io.BytesIO(data))
        pd.testing.assert_frame_equal(back, value)  # type: ignore[arg-type]
        _check_objects(back, value)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - whatever Parquet cannot hold exactly is pickled
        return None
    return bytes(data)


def _check_objects(back: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Raise if Parquet gives objects of another type, as it does for lists, alone or in dicts."""
    for column in (name for name, kind in frame.dtypes.items() if kind.kind == "O"):
        for old, new in zip(frame[column], back[column], strict=True):
            if type(old) is not type(new) or isinstance(old, dict):
                raise TypeError(f"{old!r} becomes {new!r}")


def _decode(format_: str, data: bytes) -> object:
    if format_ == "json":
        return json.loads(data)
    if format_ == "pickle":
        return cloudpickle.loads(data)
    if format_ == "numpy":
        import numpy as np  # noqa: PLC0415 - only for a numpy result

        return np.load(io.BytesIO(data), allow_pickle=False)[()]
    if format_ == "parquet":
        import pandas as pd  # noqa: PLC0415 - only for a DataFrame result

        return pd.read_parquet(io.BytesIO(data))
    raise SpecError(f"the result has the format {format_!r}, which a newer rayml wrote; upgrade")
