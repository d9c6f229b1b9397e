"""One hub function's folder: what it says of itself, read without running any of it."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from rayml.config import Resources
from rayml.engine import Engine, parse_engine
from rayml.errors import SpecError, suggestion
from rayml.function import Signature, read_signature
from rayml.hubs.docs import arguments_of, summary_of, text_of
from rayml.spec import Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CODE, SETTINGS, EXAMPLE, DIGEST = "function.py", "hub.toml", "example.py", "digest"
CATEGORIES = ("preparation", "analysis", "training", "deployment")
OWN = "rayml"
VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LEFT_OUT = ("__pycache__", DIGEST)
_CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints", ".rayml", ".git")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `hub.toml` says.

    Attributes:
        version: Three numbers with dots between them.
        category: One of `CATEGORIES`.
        keywords: Words to find it by.
        requirements: Packages that it needs besides rayml's own.
        resources: Fields of `rayml.Resources`: what it gets if nobody says otherwise.
        engine: `name` and settings of the engine that it needs.
    """

    version: str
    category: str
    keywords: list[str] = []
    requirements: list[str] = []
    resources: dict[str, Any] = {}
    engine: dict[str, Any] = {}


@dataclass(frozen=True, eq=False, repr=False)
class HubFunction:
    """A reusable function: call it, or submit it as a job by its `uri`.

    Called inside of a run it logs there; called anywhere else it is tracked as a run of its own.
    It takes its parameters by position or name; tables and models may be given as objects, paths,
    or URIs.

    Attributes:
        hub: Which hub it is from; `rayml` for what comes with the library.
        name: Of the function and of its folder.
        version: Three numbers with dots between them.
        category: What it is for: preparation, analysis, training or deployment.
        keywords: Words to find it by.
        requirements: Packages that it needs besides rayml's own.
        resources: What a job of it gets if nobody says otherwise; None for the usual.
        engine: The engine of a job of it if nobody says otherwise; None for none.
        folder: Where it lies on this machine.
        digest: `sha256:` and the digest of its files' names and contents.
        signature: What it takes.
        docstring: What it says of itself.
    """

    hub: str
    name: str
    version: str
    category: str
    keywords: tuple[str, ...]
    requirements: tuple[str, ...]
    resources: Resources | None
    engine: Engine | None
    folder: Path
    digest: str
    signature: Signature
    docstring: str

    def __post_init__(self) -> None:
        """Let `help()` and notebooks show what the function says of itself."""
        object.__setattr__(self, "__doc__", self.docstring)
        object.__setattr__(self, "__name__", self.name)
        object.__setattr__(self, "__signature__", _callers_signature(self.signature))

    def __repr__(self) -> str:
        return f"<hub function {self.name} {self.version}: {self.summary}>"

    def __call__(self, *args: object, **values: object) -> Any:  # noqa: ANN401 - what it returns
        """Call the function; see the class for where it is tracked.

        Raises:
            SpecError: It takes no such values, or it needs a package that is not installed.
        """
        from rayml.hubs.calls import call_function  # noqa: PLC0415 - a job needs no more than its data

        return call_function(self, args, values)

    @property
    def uri(self) -> str:
        """What names it in `rayml.submit` and `rayml run`, with its version."""
        place = "" if self.hub == OWN else f"{self.hub}/"
        return f"hub://{place}{self.name}@{self.version}"

    @property
    def pinned(self) -> str:
        """The same with its digest: this finds these very files, or fails."""
        return f"{self.uri}#{self.digest}"

    @property
    def target(self) -> Target:
        """What a job of it runs."""
        file = str(self.folder / CODE)
        return Target(
            kind="file", text=self.uri, file=file, function=self.name, digest=self.digest
        )

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return summary_of(self.docstring)

    @property
    def text(self) -> str:
        """What it does and logs, at length."""
        return text_of(self.docstring)

    @property
    def arguments(self) -> dict[str, str]:
        """What it says of each of its parameters."""
        return arguments_of(self.docstring)

    @property
    def example(self) -> str:
        """A script that uses it, on real data; empty if there is none."""
        file = self.folder / EXAMPLE
        return file.read_text("utf-8") if file.is_file() else ""


def read_folder(folder: Path, hub: str, name: str) -> HubFunction:
    """Return the function that lies in a folder.

    Args:
        folder: It holds `function.py` and `hub.toml`.
        hub: The name of the hub that the folder is of.
        name: The function's.

    Raises:
        SpecError: Something of it is missing or wrong, so that it could not run.
    """
    settings = _settings(folder / SETTINGS)
    target = Target(kind="file", text=name, file=str(folder / CODE), function=name)
    definition = _definition(folder / CODE, name)
    signature = read_signature(target, None) or Signature(())
    return HubFunction(
        hub=hub,
        name=name,
        version=settings.version,
        category=settings.category,
        keywords=tuple(settings.keywords),
        requirements=tuple(settings.requirements),
        resources=_resources(settings.resources, folder / SETTINGS),
        engine=_engine(settings.engine, folder / SETTINGS),
        folder=folder,
        digest=digest_of(folder),
        signature=signature,
        docstring=ast.get_docstring(definition) or "",
    )


def is_function(folder: Path) -> bool:
    """Tell whether a folder holds a hub function."""
    return (folder / SETTINGS).is_file()


def is_name(text: str) -> bool:
    """Tell whether a hub function can have this name."""
    return _NAME.fullmatch(text) is not None


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that belong to a function, by name, in order."""
    found = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    for name in sorted(found):
        parts = name.split("/")
        if not any(part in _LEFT_OUT or part in _CACHES for part in parts):
            yield name, found[name]


def digest_of(folder: Path) -> str:
    """Return the digest of a function's files: of their names, lengths and contents."""
    digest = hashlib.sha256()
    for name, path in files_of(folder):
        data = path.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return f"sha256:{digest.hexdigest()}"


def _settings(file: Path) -> Settings:
    try:
        settings = msgspec.toml.decode(file.read_bytes(), type=Settings)
    except FileNotFoundError as exc:
        raise SpecError(f"{file.parent} has no {SETTINGS}; rayml hub new makes one") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:  # a wrong field is one as well
        raise SpecError(f"{file} is not what a hub function needs: {exc}; mend it") from exc
    if VERSION.fullmatch(settings.version) is None:
        raise SpecError(f"{file}: version {settings.version!r} is not one; write it as '1.0.0'")
    if settings.category not in CATEGORIES:
        known = suggestion(settings.category, CATEGORIES)
        raise SpecError(f"{file}: there is no category {settings.category!r}; {known}")
    return settings


def public_functions(file: Path) -> dict[str, ast.FunctionDef]:
    """Return the functions of a file whose names begin with no _.

    Raises:
        SpecError: There is no such file, or it is not Python.
    """
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except FileNotFoundError as exc:
        raise SpecError(f"{file.parent} has no {CODE}; rayml hub new makes one") from exc
    except (SyntaxError, ValueError) as exc:
        raise SpecError(f"{file} is not valid Python: {exc}; mend it") from exc
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def _definition(file: Path, name: str) -> ast.FunctionDef:
    public = public_functions(file)
    if name not in public:
        raise SpecError(f"{file} has no function {name!r}; {suggestion(name, public)}")
    return public[name]


def _resources(words: dict[str, Any], file: Path) -> Resources | None:
    known = inspect.signature(Resources).parameters
    for word in words:
        if word not in known:
            raise SpecError(f"{file}: no resource is called {word!r}; {suggestion(word, known)}")
    return Resources(**words) if words else None


def _engine(words: dict[str, Any], file: Path) -> Engine | None:
    if not words:
        return None
    if "name" not in words:
        raise SpecError(f"{file}: [engine] says not which; give its name")
    settings = {word: str(value) for word, value in words.items() if word != "name"}
    return parse_engine(words["name"], settings)


def _callers_signature(signature: Signature) -> inspect.Signature:
    """Return what a caller sees: all but the context."""
    named = [_with_value(parameter) for parameter in signature.named.values()]
    return inspect.Signature(named, __validate_parameters__=False)


def _with_value(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(default=default_of(parameter))


def default_of(parameter: inspect.Parameter) -> object:
    """Return the default that a parameter's source says; where it is no plain value, its text."""
    try:
        return ast.literal_eval(parameter.default)
    except (ValueError, SyntaxError, TypeError):
        return parameter.default
