"""`rayml hub list`, `search`, `show`, `run`, `new`, `check` and `publish`."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from rayml.cli.exits import say
from rayml.cli.options import JsonOption
from rayml.cli.output import console, emit_json, print_facts, table

if TYPE_CHECKING:
    from rayml.hubs import HubFunction

FunctionArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="name, hub://name@1.0, or the path of its folder.")
]
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="The function's folder.")]
ExampleOption = Annotated[bool, typer.Option("--example/--no-example", help="Run its example.")]


def list_functions(
    *,
    hub: Annotated[str | None, typer.Option(metavar="HUB", help="Of this hub only.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List the functions of all hubs that the project knows."""
    from rayml import hubs  # noqa: PLC0415 - not for --help

    return _print_functions(hubs.list_functions(hub), as_json=as_json)


def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS...", help="All are to be found.")],
    *,
    as_json: JsonOption = False,
) -> int:
    """List the functions in whose name, keywords or documentation all words are found."""
    from rayml import hubs  # noqa: PLC0415 - not for --help

    found = hubs.search_functions(" ".join(words))
    if not found and not as_json:
        say(f"no hub function has to do with {' '.join(words)!r}; rayml hub list shows all")
        return 0
    return _print_functions(found, as_json=as_json)


def show(name: FunctionArgument, *, as_json: JsonOption = False) -> int:
    """Show what a function does, takes, logs and needs, and an example."""
    from rayml import hubs  # noqa: PLC0415 - not for --help

    function = hubs.find_function(name)
    if as_json:
        emit_json({**_facts(function), "parameters": _parameters(function), "text": function.text})
        return 0
    print_facts(
        [
            ("function", function.uri),
            ("summary", function.summary),
            ("category", function.category),
            ("keywords", ", ".join(function.keywords)),
            ("requirements", ", ".join(function.requirements)),
            ("resources", repr(function.resources) if function.resources else ""),
            ("engine", repr(function.engine) if function.engine else ""),
            ("pinned", function.pinned),
            ("folder", str(function.folder)),
        ]
    )
    print(f"\n{function.text}\n")
    rows = table("parameter", "type", "default", "")
    for row in _parameters(function):
        rows.add_row(row["name"], row["type"], row["default"] or "", row["text"])
    console().print(rows)
    if function.example:
        print(f"\nexample\n\n{function.example.rstrip()}")
    return 0


def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The function's name.")],
) -> int:
    """Run a function as a job: the same as `rayml run hub://NAME`, with its options."""
    from rayml.cli import app  # noqa: PLC0415 - which imports this module
    from rayml.hubs import is_hub_name  # noqa: PLC0415 - not for --help

    is_whole = is_hub_name(name) or Path(name).is_dir()
    words = ["run", name if is_whole else f"hub://{name}", *context.args]
    return int(app(words, prog_name="rayml", standalone_mode=False) or 0)


def new(
    folder: Annotated[Path, typer.Argument(help="Where; its last part is the function's name.")],
    *,
    category: Annotated[
        str, typer.Option(help="preparation, analysis, training or deployment.")
    ] = "training",
) -> int:
    """Write the folder of a new function, which works as it is."""
    from rayml.hubs.publishing import make_folder  # noqa: PLC0415 - not for --help

    print(make_folder(folder, category))
    print(f"rayml hub check {folder}")
    return 0


def check(folder: FolderArgument, *, example: ExampleOption = True) -> int:
    """Tell what is wrong with a function's folder, and run its example."""
    from rayml.hubs.publishing import check_folder  # noqa: PLC0415 - not for --help

    wrong = list(check_folder(folder, run_example=example))
    for sentence in wrong:
        say(sentence)
    if wrong:
        return 2
    print(f"{folder} is a hub function")
    return 0


def publish(
    folder: FolderArgument,
    to: Annotated[
        str, typer.Option("--to", metavar="HUB", help="A hub's name, a folder or a store's URI.")
    ],
    *,
    example: ExampleOption = True,
) -> int:
    """Check a function and put this version of it into a hub, for good."""
    from rayml.hubs.publishing import publish  # noqa: PLC0415 - not for --help

    place, function = publish(folder, to, run_example=example)
    print(place)
    print(f"hub://{function.name}@{function.version}#{function.digest}")
    return 0


def _print_functions(functions: list[HubFunction], *, as_json: bool) -> int:
    if as_json:
        emit_json([_facts(function) for function in functions])
        return 0
    rows = table("function", "version", "category", "")
    for function in functions:
        rows.add_row(_short(function), function.version, function.category, function.summary)
    console().print(rows)
    return 0


def _short(function: HubFunction) -> str:
    """Return a function's name as it is found without its version."""
    return function.uri.removeprefix("hub://").partition("@")[0]


def _facts(function: HubFunction) -> dict[str, Any]:
    return {
        "name": function.name,
        "hub": function.hub,
        "version": function.version,
        "uri": function.uri,
        "digest": function.digest,
        "category": function.category,
        "keywords": list(function.keywords),
        "requirements": list(function.requirements),
        "summary": function.summary,
    }


def _parameters(function: HubFunction) -> list[dict[str, Any]]:
    said = function.arguments
    return [
        {
            "name": name,
            "type": _type_text(parameter.annotation),
            "default": _default_text(parameter),
            "text": said.get(name, ""),
        }
        for name, parameter in function.signature.named.items()
    ]


def _type_text(annotation: Any) -> str:  # noqa: ANN401 - a type, or the text of one
    """Return an annotation as its user reads it: choices instead of what they are called.

    >>> _type_text(Literal["a", "b"] | None), _type_text(list[str]), _type_text("pd.DataFrame")
    ("'a' | 'b' | None", 'list[str]', 'pd.DataFrame')
    """
    parts = get_args(annotation)
    if annotation is inspect.Parameter.empty:
        return ""
    if get_origin(annotation) is Literal:
        return " | ".join(map(repr, parts))
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(_type_text, parts))
    if annotation is NoneType:
        return "None"
    is_plain = isinstance(annotation, type) and not parts
    return annotation.__name__ if is_plain else str(annotation).replace("typing.", "")


def _default_text(parameter: inspect.Parameter) -> str | None:
    """Return a default as its source writes it; None where there is none."""
    is_needed = parameter.default is inspect.Parameter.empty
    return None if is_needed else str(parameter.default)
