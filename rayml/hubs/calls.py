"""Calling a hub function in this process: with its inputs as it wants them, and tracked."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayml.errors import SpecError
from rayml.function import call, callable_signature, check_values, load_function
from rayml.hubs.needs import missing_packages, words_to_install
from rayml.inputs import Input, convert, describe_input, is_input_form
from rayml.registry import pin
from rayml.run_context import find_context_around
from rayml.store import open_store
from rayml.tracker.reader import find_artifact
from rayml.tracking import start_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.function import Signature
    from rayml.hubs.folder import HubFunction
    from rayml.run_context import Context
    from rayml.store import Store


def call_function(
    function: HubFunction, args: tuple[object, ...], values: Mapping[str, object]
) -> Any:  # noqa: ANN401 - what it returns
    """Call a hub function with values by position and name.

    Raises:
        SpecError: It takes no such values, or it needs a package that is not installed.
    """
    given = _by_name(function, args, values)
    check_values(function.signature, {}, given)
    if missing := missing_packages(function.requirements):
        raise SpecError(
            f"hub function {function.name!r} needs {', '.join(missing)}; pip install "
            f"{words_to_install(missing)}, or submit it as {function.uri!r}, which installs them "
            "for its run alone"
        )
    loaded = load_function(function.target, Path.cwd())
    live = callable_signature(loaded) or function.signature
    store = _store()
    # Before the run records them, and once: what an alias names may change in between.
    inputs = {n: pin(value, store) for n, value in given.items() if _is_input(n, value, live)}
    params = {name: value for name, value in given.items() if name not in inputs}
    labels = {"hub": function.uri}
    tracked = start_run(function.name, params=params, inputs=inputs, labels=labels, store=store)
    with tracked as context:
        read = {n: _read(n, given[n], pinned, context) for n, pinned in inputs.items()}
        wanted = {n: convert(one, live.named[n].annotation) for n, one in read.items()}
        return call(loaded, {**given, **wanted}, context)


def _store() -> Store:
    """Return where the call is recorded: in the store of the run around it, or the project's."""
    around = find_context_around()
    return open_store() if around is None else around.store


def _by_name(
    function: HubFunction, args: tuple[object, ...], values: Mapping[str, object]
) -> dict[str, object]:
    names = list(function.signature.named)
    if len(args) > len(names):
        raise SpecError(
            f"hub function {function.name!r} takes {len(names)} values and got {len(args)}; give "
            "them by name"
        )
    first = dict(zip(names, args, strict=False))
    if twice := sorted(first.keys() & values.keys()):
        raise SpecError(f"{twice[0]!r} is given by position and by name; give it once")
    return {**first, **values}


def _is_input(name: str, value: object, signature: Signature) -> bool:
    parameter = signature.named.get(name)
    return value is not None and parameter is not None and is_input_form(parameter.annotation)


def _read(name: str, given: object, pinned: object, context: Context) -> Input:
    """Return what reads an input: that which there is already, for it may have been fetched."""
    if isinstance(given, Input):
        return given
    if name in context.inputs and context.inputs[name].value is pinned:
        return context.inputs[name]
    record = describe_input(name, pinned, Path.cwd())
    return Input(record, pinned, partial(find_artifact, context.store))
