"""Hugging Face transformers: a model's or pipeline's own folder, weights as safetensors.

What is read back is of the library's classes, or of one that is imported already: code in the
folder stays unread, as do weights in a pickle.
"""

from __future__ import annotations

import copy
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rayml.artifacts.flavours.torch import arrays, evaluated, unwrap
from rayml.artifacts.packages import requirements
from rayml.artifacts.record import is_a, type_name
from rayml.artifacts.signature import values_of
from rayml.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rayml.artifacts.flavours import StoredModel

_MODEL = "transformers.modeling_utils.PreTrainedModel"
_PIPELINE = "transformers.pipelines.base.Pipeline"


def fits(model: object) -> bool:
    """Whether it is a model of the library's kind, or a pipeline around one."""
    return is_a(model, _PIPELINE) or is_a(unwrap(model), _MODEL)


def save(model: Any, folder: Path, _example: object) -> dict[str, object]:  # noqa: ANN401
    """Write the folder that the library itself reads, and note what a pipeline is for."""
    inner = unwrap(model)
    is_pipeline = is_a(inner, _PIPELINE)
    if is_pipeline and not inner.task:
        raise ValueError("it has no task, which transformers.pipeline(task, …) gives it")
    with _unchanged(inner.model if is_pipeline else inner), _without_bars():
        inner.save_pretrained(folder)
    needed = requirements("safetensors", "torch", "transformers")
    meta: dict[str, object] = {"class": type_name(inner), "requirements": needed}
    return {**meta, "task": inner.task} if is_pipeline else meta


def load(stored: StoredModel) -> Any:  # noqa: ANN401
    """Return the model or the pipeline; a class of somebody's own has to be imported before.

    Raises:
        SpecError: It is not.
    """
    import transformers  # noqa: PLC0415 - an extra

    with _without_bars():
        if task := stored.record.meta.get("task"):
            weights = {"use_safetensors": True}
            return transformers.pipeline(
                task, model=str(stored.folder), model_kwargs=weights, trust_remote_code=False
            )
        kind = _class_of(stored)
        return kind.from_pretrained(stored.folder, local_files_only=True, use_safetensors=True)


def predict(model: Any, data: Any) -> Any:  # noqa: ANN401
    """Return what a pipeline says of each row, or a model's scores, which are called logits.

    A model takes a column for each of its inputs, or an array of the first one's rows.
    """
    if is_a(model, _PIPELINE):
        asked = copy.copy(model)
        asked.model = evaluated(model.model)
        return _table(asked(_rows(data)))
    import torch  # noqa: PLC0415 - loaded: there is a model

    module = evaluated(unwrap(model))
    with torch.no_grad():
        told = module(**_inputs(module, data))
    if "logits" in told:
        return arrays(told["logits"])
    return arrays({name: one for name, one in told.items() if is_a(one, "torch.Tensor")})


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:  # noqa: ANN401
    """Leave a model's configuration as it is: to write it sets its class and precision there."""
    config = vars(model.config)
    before = dict(config)
    try:
        yield
    finally:
        config.clear()
        config.update(before)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Let the library draw no bars of its progress; nobody waits for what is logged."""
    from transformers.utils import logging  # noqa: PLC0415 - an extra

    settings = vars(logging)
    before = settings["_tqdm_active"]
    settings["_tqdm_active"] = False
    try:
        yield
    finally:
        settings["_tqdm_active"] = before


def _class_of(stored: StoredModel) -> Any:  # noqa: ANN401
    """Return the class among those that are loaded: to import another would run its code."""
    import transformers  # noqa: PLC0415 - an extra

    record = stored.record
    module, _, name = str(record.meta["class"]).rpartition(".")
    is_own = module.partition(".")[0] != "transformers"
    kind = getattr(sys.modules.get(module) if is_own else transformers, name, None)
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        return kind
    raise SpecError(
        f"model {record.name!r} is a {module}.{name}, which is not imported; import it and load "
        "the model again, or read its path() as the library does"
    )


def _rows(data: Any) -> list[Any]:  # noqa: ANN401
    """Return a list with an item for each row; a row of one column is what is in it."""
    values = values_of(data)
    return list(values[:, 0]) if values.ndim == 2 and values.shape[1] == 1 else list(values)


def _inputs(module: Any, data: Any) -> dict[str, Any]:  # noqa: ANN401
    is_frame = is_a(data, "pandas.DataFrame")
    given: Mapping[Any, Any] = data if is_frame else {module.main_input_name: data}
    return {str(name): _tensor(module, column) for name, column in given.items()}


def _tensor(module: Any, values: Any) -> Any:  # noqa: ANN401
    """Return rows where the model is, and floats in its precision."""
    import torch  # noqa: PLC0415 - loaded: there is a model

    rows = values if isinstance(values, torch.Tensor) else torch.tensor(values.tolist())
    return rows.to(module.device, module.dtype if rows.is_floating_point() else None)


def _table(told: Any) -> Any:  # noqa: ANN401
    """Return the columns of what is a dict for each row, and else an array of what is said."""
    import numpy as np  # noqa: PLC0415 - the library has it

    rows = list(told) if isinstance(told, list) else [told]
    if all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        return {str(name): np.array([row[name] for row in rows]) for name in rows[0]}
    table = np.empty(len(rows), dtype=object)
    table[:] = rows
    return table
