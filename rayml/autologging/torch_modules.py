"""Which modules there are, and which of them an optimizer trains; none is kept alive for that."""

from __future__ import annotations

import gc
import sys
from collections import Counter, defaultdict
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


def models_of(optimizer: Any) -> list[Any]:  # noqa: ANN401
    """Return the outermost modules that have parameters of an optimizer, the most of them first.

    Modules that have come as copies, by pickle or before there were hooks, are not known: they are
    looked for among all objects, which takes a tenth of a second.
    """
    wanted = {id(one) for group in optimizer.param_groups for one in group["params"]}
    known = [module for watched in list(_known.values()) if (module := watched()) is not None]
    owners = _owners(wanted, known)
    if sum(owners.values()) < len(wanted):
        known = _living(sys.modules["torch"].nn.Module)
        owners = _owners(wanted, known)
    return _outermost(owners, known)


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


def _owners(wanted: set[int], modules: Iterable[Any]) -> Counter[int]:
    """Return how many of these parameters each module has itself, by the modules' identity."""
    counts: Counter[int] = Counter()
    for module in modules:
        if found := sum(id(one) in wanted for one in _parts(module, "_parameters")):
            counts[id(module)] = found
    return counts


def _outermost(owners: Counter[int], modules: Iterable[Any]) -> list[Any]:
    """Return the modules that are in no other and have one of these in them."""
    by_id, parents = {}, defaultdict(set)
    for module in modules:
        by_id[id(module)] = module
        for part in _parts(module, "_modules"):
            parents[id(part)].add(id(module))
    counts: Counter[int] = Counter()
    for owner, count in owners.items():
        for outer in _tops(owner, parents):
            counts[outer] += count
    return [by_id[key] for key, _ in counts.most_common()]


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
