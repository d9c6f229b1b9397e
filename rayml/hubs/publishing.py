"""A user's own hub functions: made from a template, checked, and put into a hub for others."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

import rayml
from rayml.errors import NotFound, RaymlError, SpecError
from rayml.hubs.folder import (
    CATEGORIES,
    CODE,
    DIGEST,
    EXAMPLE,
    SETTINGS,
    HubFunction,
    files_of,
    is_name,
    public_functions,
    read_folder,
)
from rayml.hubs.needs import missing_packages
from rayml.hubs.sources import is_git, is_store, list_hubs, local_folder
from rayml.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_FILE = 16 * 1024 * 1024
_EXAMPLE_S = 600
_TEMPLATE = {
    CODE: '''\
"""{name}: one sentence of what it does."""

from __future__ import annotations

import pandas as pd

import rayml


def {name}(context: rayml.Context, table: pd.DataFrame, column: str, limit: float = 0.0) -> float:
    """Count the rows of a table that are above a limit.

    It logs their share as the metric `share`.

    Args:
        table: The rows.
        column: Which of their numbers is compared.
        limit: What it must exceed.

    Raises:
        rayml.SpecError: There is no such column.
    """
    if column not in table:
        raise rayml.SpecError(f"there is no column {{column!r}}; known: {{list(table.columns)}}")
    share = float((table[column] > limit).mean())
    context.log_metric("share", share)
    return share
''',
    SETTINGS: """\
version = "0.1.0"
category = "{category}"
keywords = []
requirements = []
""",
    EXAMPLE: """\
import pandas as pd

import rayml

rows = pd.DataFrame({{"amount": [1.0, -2.0, 3.0]}})
run = rayml.submit("hub://{name}", inputs={{"table": rows}}, params={{"column": "amount"}})
print(run.wait().metrics)
""",
}


def make_folder(folder: Path, category: str = "training") -> Path:
    """Write a new function's folder, which works as it is; return it.

    Args:
        folder: Where; its last part is the function's name.
        category: What it is for.

    Raises:
        SpecError: It is there already, or its name is none that a function can have.
    """
    name = folder.name
    if not is_name(name):
        raise SpecError(f"{name!r} cannot name a hub function; use small letters, digits and _")
    if category not in CATEGORIES:
        raise SpecError(f"there is no category {category!r}; known: {', '.join(CATEGORIES)}")
    if folder.exists():
        raise SpecError(f"{folder} is there already; choose another name")
    folder.mkdir(parents=True)
    for file, text in _TEMPLATE.items():
        (folder / file).write_text(text.format(name=name, category=category), "utf-8")
    return folder


def check_folder(folder: Path, *, run_example: bool = True) -> Iterator[str]:
    """Yield what is wrong with a function's folder, a sentence each.

    Args:
        folder: Of the function.
        run_example: Run its example as well, as its users will.
    """
    folder = folder.resolve()
    try:
        function = read_folder(folder, folder.parent.name, folder.name)
        missing = missing_packages(function.requirements)
    except RaymlError as exc:
        yield str(exc)
        return
    yield from _wrong_in_text(function)
    yield from _wrong_in_files(folder)
    yield from filter(None, map(_wrong_requirement, function.requirements))
    if not function.example:
        yield f"it has no {EXAMPLE}; write a script that uses it on real data"
    elif run_example and missing:
        yield f"its example cannot run here: {', '.join(missing)} is missing; install it"
    elif run_example:
        yield from _wrong_in_example(function)


def publish(folder: Path, place: str, *, run_example: bool = True) -> tuple[str, HubFunction]:
    """Put a function into a hub, below its name and version, and return where it lies there.

    A version is published once: with other files it is refused. One that was cut off is
    completed when it is published again.

    Args:
        folder: Of the function.
        place: The name of a hub of the project, a folder, or a store's URI.
        run_example: Run its example before.

    Raises:
        SpecError: Something is wrong with it, or that version is there with other files.
        StoreError: The hub cannot be written.
    """
    if wrong := list(check_folder(folder, run_example=run_example)):
        raise SpecError(f"{folder} is not published: {'; '.join(wrong)}")
    folder = folder.resolve()
    function = read_folder(folder, folder.parent.name, folder.name)
    location = _location(place)
    store = open_store(location)
    below = f"{function.name}/{function.version}"
    claim = f"{function.digest}\n".encode()
    if not store.create(f"{below}/{DIGEST}", claim) and store.get(f"{below}/{DIGEST}") != claim:
        raise SpecError(
            f"{location} has {function.name} {function.version} with other files; raise the "
            f"version in {folder / SETTINGS}"
        )
    for name, path in files_of(folder):
        store.put(f"{below}/{name}", path.read_bytes())
    return f"{location.rstrip('/')}/{below}", function


def _location(place: str) -> str:
    url = next((hub.url for hub in list_hubs()[1:] if hub.name == place), place)
    if is_git(url):
        raise SpecError(
            f"{place!r} is a git repository; publish to a folder of a checkout, and commit it"
        )
    if is_store(url):
        return url
    if url == place and "/" not in place and not Path(place).is_dir():
        raise NotFound(
            f"there is no hub {place!r} in [tool.rayml.hubs], and no such folder; name one of "
            "them, a path, or a store's URI"
        )
    return str(Path(place).resolve() if url == place else local_folder(url))


def _wrong_in_text(function: HubFunction) -> Iterator[str]:
    if not function.summary:
        yield "its function has no docstring; its first line is what `rayml hub list` shows"
    known = function.signature.named
    said = function.arguments
    for name, parameter in known.items():
        if parameter.annotation is inspect.Parameter.empty:
            yield f"its parameter {name!r} has no annotation; say what it takes"
        if name not in said:
            yield f"its docstring says nothing of the parameter {name!r}; put it into Args:"
    for name in said.keys() - known.keys() - {"context"}:
        yield f"its docstring speaks of a parameter {name!r}, which it has not; leave it out"
    others = [name for name in public_functions(function.folder / CODE) if name != function.name]
    if others:
        yield (
            f"its {CODE} has the public functions {', '.join(others)} as well; begin their names "
            "with _, or move them to a module beside it"
        )
    if function.signature.takes_any_name:
        yield "its function takes any name (**…, or it is decorated); let it name what it takes"


def _wrong_requirement(text: str) -> str | None:
    try:
        Requirement(text)
    except InvalidRequirement:
        return f"its requirement {text!r} is none; write it as 'name>=1.0'"
    return None


def _wrong_in_files(folder: Path) -> Iterator[str]:
    for name, path in files_of(folder):
        if path.stat().st_size > _LONGEST_FILE:
            yield f"its file {name} has {path.stat().st_size:,} bytes; data belongs into inputs"
        elif name.endswith(".py") and name != EXAMPLE:
            yield from _wrong_imports(name, ast.parse(path.read_bytes()))


def _wrong_imports(name: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or "", *_not_public(node)]
        for module in names:
            if module.startswith("rayml.") and module != "rayml.hub":
                yield f"its file {name} imports {module}; use what `import rayml` gives"
        if isinstance(node, ast.ImportFrom) and node.level > 1:
            yield f"its file {name} imports from outside of its folder; a function is on its own"


def _not_public(node: ast.ImportFrom) -> list[str]:
    """Return what is taken from rayml itself that is no part of its API, such as its modules."""
    if node.module != "rayml":
        return []
    known = (*rayml.__all__, "*", "__version__", "marketplace")
    return [f"rayml.{alias.name}" for alias in node.names if alias.name not in known]


def _wrong_in_example(function: HubFunction) -> Iterator[str]:
    root = function.folder.parent
    environment = {**os.environ, "RAYML_HUBS": f"checked={root}"}
    try:
        done = subprocess.run(
            [sys.executable, str(function.folder / EXAMPLE)],
            check=False, stdout=sys.stderr, env=environment, timeout=_EXAMPLE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield f"its example did not end in {_EXAMPLE_S} s; let it be short"
        return
    if done.returncode != 0:
        yield f"its example ended with exit code {done.returncode}; see above"
