"""PyTorch: weights as safetensors; with an input example also a program that needs no class.

The program is what `torch.export` makes of the model on a CPU. Reading one unpickles what is in it
and evaluates its expressions, so that it takes trust; the weights never do.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from rayml.artifacts.packages import requirements
from rayml.artifacts.record import first_line, is_a, type_name
from rayml.artifacts.signature import values_of
from rayml.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from rayml.artifacts.flavours import StoredModel

_WEIGHTS = "weights.safetensors"
_PROGRAM = "program.pt2"
_WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}


def fits(model: object) -> bool:
    """Whether it is a module."""
    return is_a(model, "torch.nn.modules.module.Module")


def save(model: Any, folder: Path, example: Any) -> dict[str, object]:  # noqa: ANN401
    """Write the weights, and the program if there is an example and the model can be exported."""
    from safetensors.torch import save_model  # noqa: PLC0415 - an extra

    inner = unwrap(model)
    save_model(inner, str(folder / _WEIGHTS))
    needed = requirements("safetensors", "torch")
    meta: dict[str, object] = {"class": type_name(inner), "requirements": needed}
    if example is None:
        return {**meta, "not_exported": "it was logged without an input example"}
    try:
        _export(inner, example, folder / _PROGRAM)
    except Exception as exc:  # noqa: BLE001 - any model's own code runs, of which weights are kept
        (folder / _PROGRAM).unlink(missing_ok=True)
        return {**meta, "not_exported": f"torch.export failed: {first_line(exc)}"}
    return {**meta, "exported": True}


def load(stored: StoredModel) -> Any:  # noqa: ANN401
    """Return the program as a module; of a model without one the state dict.

    Raises:
        SpecError: There is a program, and no trust.
    """
    import torch  # noqa: PLC0415 - an extra

    if not (stored.folder / _PROGRAM).exists():
        return _state_dict(stored.folder / _WEIGHTS)
    if not stored.trusted:
        raise SpecError(
            f"model {stored.record.name!r} is a program of torch.export, and reading it runs "
            "whatever code is in it; load(trusted=True) if you trust whoever logged it, or read "
            f"{_WEIGHTS} in its path() by safetensors, which runs none"
        )
    return torch.export.load(stored.folder / _PROGRAM).module()


def predict(model: Any, data: Any) -> Any:  # noqa: ANN401
    """Return what the module does, as if evaluated: no dropout, no gradients, no changed state."""
    import torch  # noqa: PLC0415 - an extra

    module = evaluated(unwrap(model))
    with torch.no_grad():
        return arrays(module(_tensor(module, data)))


def unwrap(model: Any) -> Any:  # noqa: ANN401
    """Return the user's own module, whose weights have the names that the user knows."""
    for wrapper, inner in _WRAPPERS.items():
        if is_a(model, wrapper):
            return unwrap(getattr(model, inner))
    return model


def evaluated(module: Any) -> Any:  # noqa: ANN401
    """Return the module, or a copy of one that is in training; an exported one has no modes."""
    if not module.training or is_a(module, "torch.fx.graph_module.GraphModule"):
        return module
    return copy.deepcopy(module).eval()


def _export(module: Any, example: Any, path: Path) -> None:  # noqa: ANN401
    """Write a program for any number of rows."""
    import torch  # noqa: PLC0415 - loaded: there is a module

    module = copy.deepcopy(module).cpu().eval()
    rows = _tensor(module, example)
    if len(rows) == 1:  # of one row, the number would become a part of the program
        rows = torch.cat([rows, rows])
    shapes = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(module, (rows,), dynamic_shapes=shapes), path)


def _tensor(module: Any, data: Any) -> Any:  # noqa: ANN401
    """Return the data where the module's weights are, and floats in their precision."""
    import torch  # noqa: PLC0415 - loaded: there is a module

    values = values_of(data)
    rows = values if isinstance(values, torch.Tensor) else torch.tensor(values)
    weights = next((one for one in module.parameters() if one.is_floating_point()), None)
    if weights is None:
        return rows
    return rows.to(weights.device, weights.dtype if rows.is_floating_point() else None)


def arrays(result: Any) -> Any:  # noqa: ANN401
    """Return what a module has said in numpy's arrays, in whatever it is packed."""
    if isinstance(result, tuple | list):
        return tuple(map(arrays, result))
    if isinstance(result, dict):
        return {name: arrays(value) for name, value in result.items()}
    if not is_a(result, "torch.Tensor"):
        return result
    if str(result.dtype) == "torch.bfloat16":  # numpy has none
        result = result.float()
    return result.numpy(force=True)


def _state_dict(path: Path) -> dict[str, Any]:
    """Return all weights by name; those that several names share are in the file once."""
    from safetensors import safe_open  # noqa: PLC0415 - an extra

    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        shared = file.metadata() or {}
    return weights | {name: weights[kept] for name, kept in shared.items() if kept in weights}
