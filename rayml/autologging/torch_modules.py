"""Which modules there are, and which of them an optimizer trains; none is kept alive for that."""

from __future__ import annotations

import gc
import sys
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from rayml.artifacts.record import is_a

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_COMPILED = "torch._dynamo.eval_frame.OptimizedModule"
_known: dict[int, ref[Any]] = {}


def remember(module: Any, _name: str, _part: object) -> None:  # noqa: ANN401
    """Know a module, which is about to get a parameter or another module."""
    key = id(module)
    if key not in _known:
        _known[key] = ref(module, partial(_forget, key))


def _forget(key: int, _: object) -> None:
    _known.pop(key, None)


def model_of(optimizer: Any) -> tuple[Any, bool]:  # noqa: ANN401
    """Return the outermost module with the most of an optimizer's parameters; None if none has.

    Modules that have come as copies, by pickle or before there were hooks, are not known: they are
    looked for among all objects, which takes a tenth of a second. Told, too, is whether some
    parameters are in other modules alone.
    """
    wanted = {id(one) for group in optimizer.param_groups for one in group["params"]}
    known = [module for watched in list(_known.values()) if (module := watched()) is not None]
    owners = _owners(wanted, known)
    if len(set().union(*owners.values())) < len(wanted):
        known = _living(sys.modules["torch"].nn.Module)
        owners = _owners(wanted, known)
    outermost = _outermost(owners, known)
    if not outermost:
        return None, False
    # Modules that replace others, as for quantisation, may share their parameters with them.
    model, has = max(outermost, key=lambda one: (len(one[1]), len(list(one[0].modules()))))
    return model, len(has) < len(set().union(*owners.values()))


def is_any_compiled() -> bool:
    """Tell whether there is a module that is compiled, which hooks for all would disturb."""
    known = [watched() for watched in list(_known.values())]
    return any(
        is_a(one, _COMPILED) or "_compiled_call_impl" in vars(one)
        for one in known
        if one is not None
    )


def scheduler_of(optimizer: Any) -> Any:  # noqa: ANN401
    """Return what changes an optimizer's learning rate; None if nothing of PyTorch's does."""
    kind = sys.modules["torch"].optim.lr_scheduler.LRScheduler
    holders = gc.get_referrers(optimizer)
    if states := [one for one in holders if type(one) is dict and "optimizer" in one]:
        holders += gc.get_referrers(*states)  # those objects' own
    found = [one for one in holders if issubclass(type(one), kind)]
    parts = {id(part) for one in found for part in vars(one).get("_schedulers", ())}
    return next((one for one in found if id(one) not in parts), None)


def _owners(wanted: set[int], modules: Iterable[Any]) -> dict[int, set[int]]:
    """Return which of these parameters each module has itself, all by their identity."""
    owners = {}
    for module in modules:
        if own := wanted & set(map(id, _parts(module, "_parameters"))):
            owners[id(module)] = own
    return owners


def _outermost(owners: dict[int, set[int]], modules: Iterable[Any]) -> list[tuple[Any, set[int]]]:
    """Return the modules that are in no other, each with the parameters of what is in it."""
    by_id, parents = {}, defaultdict(set)
    for module in modules:
        by_id[id(module)] = module
        for part in _parts(module, "_modules"):
            parents[id(part)].add(id(module))
    found: defaultdict[int, set[int]] = defaultdict(set)
    for owner, own in owners.items():
        for top in _tops(owner, parents):
            found[top] |= own
    return [(by_id[key], own) for key, own in found.items()]


def _tops(key: int, parents: dict[int, set[int]]) -> Iterator[int]:
    waiting, seen = [key], {key}
    while waiting:
        above = parents.get(one := waiting.pop())
        if not above:
            yield one
        waiting += (above or set()) - seen
        seen |= above or set()


def _parts(module: Any, name: str) -> list[Any]:  # noqa: ANN401
    """Return a module's own parameters or modules; one that is being made may have none yet."""
    parts = vars(module).get(name)
    return [part for part in parts.values() if part is not None] if type(parts) is dict else []


def _living(kind: type) -> list[Any]:
    kinds = {kind, *_derived(kind)}
    return [one for one in gc.get_objects() if type(one) in kinds]


def _derived(kind: type) -> Iterator[type]:
    below: type
    for below in kind.__subclasses__():
        yield below
        yield from _derived(below)
