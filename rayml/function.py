"""From what the user names to what runs: find the function, read its signature, check the values.

A file or module is parsed, never imported, before the run starts: a wrong call is refused without
running any of the user's code, and without waiting for heavy imports.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import sys
import typing
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec

from rayml.errors import SpecError, suggestion
from rayml.launch import ImportWatch
from rayml.spec import Target, is_numpy_scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.machinery import ModuleSpec

_TYPING_NAMES = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")}
_BUILTIN_TYPES = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type)}
_SAYS_NOTHING = (inspect.Parameter.empty, typing.Any, object)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Signature:
    """What a function takes, as far as it can be told without running anything.

    Attributes:
        parameters: In order; annotations are types where they could be resolved, else text or
            None.
        is_exact: False where a decorator may change it; then names are not checked.
    """

    parameters: tuple[inspect.Parameter, ...]
    is_exact: bool = True

    @property
    def takes_any_name(self) -> bool:
        """It has `**kwargs`, or may have."""
        kinds = {parameter.kind for parameter in self.parameters}
        return not self.is_exact or inspect.Parameter.VAR_KEYWORD in kinds

    @property
    def named(self) -> dict[str, inspect.Parameter]:
        """The parameters that take a value, by name; the context is not one of them."""
        return {
            p.name: p for p in self.parameters if p.kind not in _VARIADIC and not is_context(p)
        }


def is_context(parameter: inspect.Parameter) -> bool:
    """Tell whether a parameter takes the run's context: by its name or its annotation."""
    annotation = parameter.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__qualname__", "")
    return parameter.name == "context" or name in ("Context", "rayml.Context")


def find_target(function: Callable[..., object] | str | Path | Target, folder: Path) -> Target:
    """Return what a job's function is and where.

    Args:
        function: A callable, `file.py:function`, `file.py` (a script), or
            `package.module:function`.
        folder: Where relative paths and modules are looked for.

    Raises:
        SpecError: There is no such file, module or function, or its source has a syntax error.
    """
    if isinstance(function, Target):
        return function
    if callable(function):
        return _callable_target(function)
    text = str(function)
    place, _, name = text.rpartition(":") if ":" in text else (text, "", "")
    if place.endswith(".py"):
        return _file_target(text, place, name, folder)
    if name and all(part.isidentifier() for part in place.split(".")):
        return _module_target(text, place, name, folder)
    raise SpecError(
        f"{text!r} is not a function that rayml can run; give a callable, 'file.py:function', "
        "'file.py' or 'package.module:function'"
    )


def _callable_target(function: Callable[..., object]) -> Target:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(inspect.unwrap(function), "__code__", None)
    file = code.co_filename if code is not None else ""
    text = f"{getattr(function, '__module__', '')}.{name}"
    return Target(kind="callable", text=text, file=file, function=name.rpartition(".")[2])


def _file_target(text: str, place: str, name: str, folder: Path) -> Target:
    path = _existing_file(folder / place)
    tree = _parse(path)
    if not name:
        return Target(kind="script", text=text, file=str(path))
    _find_definition(tree, name, str(path))
    return Target(kind="file", text=text, file=str(path), function=name)


def _existing_file(named: Path) -> Path:
    try:
        path = named.resolve()
        if path.is_file():
            return path
        siblings = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
    except (OSError, ValueError) as exc:
        raise SpecError(f"{str(named)!r} cannot be read: {exc}; check its name") from exc
    raise SpecError(f"there is no file {path}; {suggestion(path.name, siblings)}")


def _module_target(text: str, module: str, name: str, folder: Path) -> Target:
    file = _module_file(module, folder)
    if file is not None:
        _find_definition(_parse(file), name, module)
    return Target(kind="module", text=text, file=str(file or ""), module=module, function=name)


def _module_file(module: str, folder: Path) -> Path | None:
    """Return a module's source file, or None for one without (an extension, a builtin)."""
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        found = _find_spec(module)
    except ValueError:  # `__main__` and the like, which no file is known for
        found = None
    finally:
        sys.path.remove(str(folder))
    if found is None:
        raise SpecError(
            f"there is no module {module!r} in {folder} or on Python's path; check its name"
        )
    return Path(found.origin) if found.origin and found.origin.endswith(".py") else None


def _find_spec(module: str) -> ModuleSpec | None:
    """Find a module as `importlib.util.find_spec` does, but without importing its packages."""
    if module in sys.modules:
        return importlib.util.find_spec(module)
    name, *rest = module.split(".")
    found = importlib.util.find_spec(name)
    for part in rest:
        if found is None or found.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        found = PathFinder.find_spec(name, found.submodule_search_locations)
    return found


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as exc:
        line = getattr(exc, "lineno", None)
        place = f"{path}:{line}" if line else str(path)
        source = (getattr(exc, "text", None) or "").strip()
        shown = f" in {source!r}" if source else ""
        reason = getattr(exc, "msg", None) or exc
        raise SpecError(
            f"{place} is not valid Python: {reason}{shown}; mend it and submit again"
        ) from exc
    except OSError as exc:
        raise SpecError(f"{path} cannot be read: {exc.strerror}; check its permissions") from exc


def _find_definition(tree: ast.Module, name: str, place: str) -> ast.AST:
    """Return the last top-level statement that binds a name."""
    bound = {n: node for node in tree.body for n in _bound_names(node)}
    if name in bound:
        return bound[name]
    if "*" in bound:
        return bound["*"]
    functions = [n for n, node in bound.items() if isinstance(node, ast.FunctionDef)]
    raise SpecError(f"{place} has no function {name!r}; {suggestion(name, functions)}")


def _bound_names(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Import() | ast.ImportFrom():
            return [(a.asname or a.name).partition(".")[0] for a in node.names]
        case ast.Assign():
            return [t.id for t in node.targets if isinstance(t, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.If() | ast.Try() | ast.With():
            return [
                n
                for child in ast.walk(node)
                if child is not node and isinstance(child, ast.stmt)
                for n in _bound_names(child)
            ]
    return []


def read_signature(target: Target, function: object) -> Signature | None:
    """Return the signature of a target, or None where it cannot be told (a script, a class).

    Args:
        target: As `find_target` returned it.
        function: The callable itself, for a `callable` target.
    """
    if target.kind == "callable":
        return callable_signature(function) if callable(function) else None
    if target.kind == "script" or not target.file:
        return None
    node = _find_definition(_parse(Path(target.file)), target.function, target.file)
    return _ast_signature(node) if isinstance(node, ast.FunctionDef) else None


def callable_signature(function: Callable[..., object]) -> Signature | None:
    """Return a live function's signature with its annotations resolved, or None if it has none."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - user annotations may name anything, or nothing that exists
        hints = {}
    parameters = (
        p.replace(annotation=hints.get(p.name, p.annotation))
        for p in signature.parameters.values()
    )
    return Signature(tuple(parameters))


def _ast_signature(node: ast.FunctionDef) -> Signature:
    args, kinds = node.args, inspect.Parameter
    positional: list[tuple[ast.arg, inspect._ParameterKind]]
    positional = [(a, kinds.POSITIONAL_ONLY) for a in args.posonlyargs]
    positional += [(a, kinds.POSITIONAL_OR_KEYWORD) for a in args.args]
    missing = [None] * (len(positional) - len(args.defaults))
    rows: list[tuple[ast.arg, inspect._ParameterKind, ast.expr | None]]
    rows = [(a, k, d) for (a, k), d in zip(positional, [*missing, *args.defaults], strict=True)]
    if args.vararg:
        rows.append((args.vararg, kinds.VAR_POSITIONAL, None))
    rows += [
        (a, kinds.KEYWORD_ONLY, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True)
    ]
    if args.kwarg:
        rows.append((args.kwarg, kinds.VAR_KEYWORD, None))
    return Signature(tuple(_ast_parameter(*row) for row in rows), is_exact=not node.decorator_list)


def _ast_parameter(
    argument: ast.arg, kind: inspect._ParameterKind, default: ast.expr | None
) -> inspect.Parameter:
    text = ast.unparse(argument.annotation) if argument.annotation else None
    return inspect.Parameter(
        argument.arg,
        kind,
        default=inspect.Parameter.empty if default is None else ast.unparse(default),
        annotation=inspect.Parameter.empty if text is None else _resolve_annotation(text),
    )


def _resolve_annotation(text: str) -> object:
    """Return the type an annotation's text names, if builtins and a few of typing's are enough."""
    text = text.strip("'\"")
    try:
        tree = ast.parse(text.replace("typing.", ""), mode="eval")
        names = {**_BUILTIN_TYPES, **_TYPING_NAMES, "None": None, "__builtins__": {}}
        if any(isinstance(n, ast.Call | ast.Attribute | ast.Lambda) for n in ast.walk(tree)):
            return text
        return eval(compile(tree, "<annotation>", "eval"), names)  # noqa: S307 - types only, see above
    except (SyntaxError, NameError, TypeError):
        return text


def check_values(
    signature: Signature, params: Mapping[str, object], inputs: Mapping[str, object]
) -> None:
    """Check that every value has a parameter, every parameter a value, and the types fit.

    Raises:
        SpecError: Otherwise; it names the nearest known name.
    """
    named = signature.named
    for name in (*params, *inputs):
        if name not in named and not signature.takes_any_name:
            raise SpecError(f"the function takes no parameter {name!r}; {suggestion(name, named)}")
    if twice := sorted(params.keys() & inputs.keys()):
        raise SpecError(f"{twice[0]!r} is given both as a parameter and as an input; give it once")
    missing = [
        p.name
        for p in named.values()
        if p.default is inspect.Parameter.empty and p.name not in params and p.name not in inputs
    ]
    if missing and signature.is_exact:
        names = ", ".join(map(repr, missing))
        raise SpecError(f"the function needs a value for {names}; give it in params= or inputs=")
    for name, value in params.items():
        if name in named:
            _check_type(name, value, named[name].annotation)


def _check_type(name: str, value: object, annotation: object) -> None:
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return
    if not (_fits(value, annotation) or _fits(_without_numpy(value), annotation)):
        raise _wrong_type(name, value, annotation)


def _fits(value: object, annotation: object) -> bool:
    try:
        msgspec.convert(value, annotation)
    except msgspec.ValidationError:
        # Python counts bools as integers; a person who gives one for a number is mistaken.
        is_instance = isinstance(annotation, type) and isinstance(value, annotation)
        return is_instance and not isinstance(value, bool)
    except TypeError:  # msgspec does not know this type
        return not isinstance(annotation, type) or isinstance(value, annotation)
    return True


def _without_numpy(value: object) -> object:
    """Return plain data with Python's own numbers where it has numpy's."""
    if isinstance(value, list | tuple):
        return [_without_numpy(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_numpy(item) for key, item in value.items()}
    return value.item() if is_numpy_scalar(value) else value  # type: ignore[attr-defined]


def _wrong_type(name: str, value: object, annotation: object) -> SpecError:
    wanted = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:80]}…"
    return SpecError(
        f"parameter {name!r} is {shown}, of type {type(value).__name__}, and the function wants "
        f"{wanted}; convert it first"
    )


def parse_word(name: str, word: str, signature: Signature | None) -> object:
    """Return the value that a word of the command line stands for, by the parameter's annotation.

    Without an annotation, what reads as JSON is JSON, `True False None` are themselves, and the
    rest is text.

    Raises:
        SpecError: The word does not fit the annotation.
    """
    parameter = signature.named.get(name) if signature else None
    annotation = parameter.annotation if parameter else inspect.Parameter.empty
    if annotation in _SAYS_NOTHING or isinstance(annotation, str):
        return _guess(word)
    try:
        return msgspec.convert(word, annotation, strict=False)
    except TypeError:  # msgspec does not know this type
        return _guess(word)
    except msgspec.ValidationError:
        return _convert_guess(name, word, annotation)


def _convert_guess(name: str, word: str, annotation: object) -> object:
    try:
        return msgspec.convert(_guess(word), annotation)
    except msgspec.ValidationError as exc:
        raise _wrong_type(name, word, annotation) from exc


def _guess(word: str) -> object:
    if word in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[word]
    try:
        return msgspec.json.decode(word)
    except msgspec.DecodeError:
        return word


def load_function(target: Target, folder: Path) -> Callable[..., object]:
    """Import a `file` or `module` target anew and return its function.

    The file's own folder comes first on Python's path, as it does for a script. A hub function's
    folder is a package instead.

    Raises:
        SpecError: The module has no such function, or it is not callable.
    """
    if target.kind == "module":
        sys.path.insert(0, str(folder))
        module = importlib.import_module(target.module)
    elif target.digest:
        module = import_package(Path(folder, target.file), target.digest)
    else:
        module = _import_file(Path(folder, target.file))
    function = getattr(module, target.function, None)
    if not callable(function):
        raise SpecError(f"{target.text!r} is not a function in this run; check that it is defined")
    return typing.cast("Callable[..., object]", function)


def _import_file(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SpecError(f"{path} cannot be imported; is it a Python file?")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, so that its classes can be pickled and its dataclasses resolved.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def import_package(file: Path, digest: str) -> ModuleType:
    """Import a file as part of a package that its folder makes, and return it.

    The package's name tells its version from others, and what is sent of it to Ray's workers is
    sent with its code: they have no such package.
    """
    name = f"rayml_hub_{file.parent.name.replace('.', '_')}_{digest.removeprefix('sha256:')[:12]}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(file.parent)]
        sys.modules[name] = package
        for pickler in ("cloudpickle", "ray.cloudpickle"):
            _send_with_code(package, pickler)
    return importlib.import_module(f"{name}.{file.stem}")


def _send_with_code(package: ModuleType, pickler: str) -> None:
    """Have a pickler send a package's code along, from when on it is imported by whoever needs it.

    Ray takes longer to import than many a call of a hub function takes, which never needs it.
    """

    def register() -> None:
        sys.modules[pickler].register_pickle_by_value(package)

    if pickler in sys.modules:
        register()
    else:
        ImportWatch(pickler, register)


def call(function: Callable[..., object], values: Mapping[str, object], context: object) -> object:
    """Call a function with values by name; its context parameter gets the context.

    Raises:
        SpecError: The values do not fit the function as it really is.
    """
    signature = callable_signature(function)
    if signature is None:
        return function(**values)
    check_values(signature, {}, values)
    given = dict(values)
    given |= {p.name: context for p in signature.parameters if is_context(p)}
    first = [
        given.pop(p.name, p.default)
        for p in signature.parameters
        if p.kind is inspect.Parameter.POSITIONAL_ONLY
    ]
    return function(*first, **given)
