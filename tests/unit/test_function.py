"""From what the user names to what runs: found, read and checked without running any of it."""

from __future__ import annotations

import enum
import functools
import inspect
import math
import sys
import textwrap
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rayml
from rayml.errors import SpecError
from rayml.function import (
    Signature,
    call,
    callable_signature,
    check_values,
    find_target,
    load_function,
    parse_word,
    read_signature,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A user's project; what is imported from it is forgotten afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def signature_of(source: str, folder: Path, name: str = "f") -> Signature:
    write(folder, "job.py", source)
    signature = read_signature(find_target(f"job.py:{name}", folder), None)
    assert signature is not None
    return signature


def check(function: Callable[..., object], params: dict[str, Any], **inputs: object) -> None:
    signature = callable_signature(function)
    assert signature is not None
    check_values(signature, params, inputs)


# Callables


def test_a_function_knows_where_it_was_written() -> None:
    target = find_target(write, Path("/"))
    assert (target.kind, target.function, target.file) == ("callable", "write", __file__)
    assert target.text.endswith("test_function.write")


def test_a_nested_function_and_a_lambda_are_found() -> None:
    def nested() -> None: ...

    assert find_target(nested, Path("/")).function == "nested"
    assert find_target(lambda: 1, Path("/")).function == "<lambda>"


class Trainer:
    def __call__(self, depth: int, *, rate: float = 0.1) -> tuple[int, float]:
        return depth, rate

    def fit(self, depth: int) -> int:
        return depth


@pytest.mark.parametrize(
    ("function", "name", "parameters"),
    [
        (Trainer(), "Trainer", ["depth", "rate"]),
        (Trainer().fit, "fit", ["depth"]),
        (functools.partial(Trainer(), depth=3), "partial", ["depth", "rate"]),
        (Trainer, "Trainer", []),
    ],
    ids=["instance", "method", "partial", "class"],
)
def test_whatever_can_be_called_can_be_a_job(
    function: Callable[..., object], name: str, parameters: list[str]
) -> None:
    target = find_target(function, Path("/"))
    signature = read_signature(target, function)
    assert target.function == name
    assert signature is not None
    assert list(signature.named) == parameters


def test_a_partial_runs_with_what_it_was_made_with() -> None:
    function = functools.partial(Trainer(), depth=3)
    assert call(function, {"rate": 0.5}, None) == (3, 0.5)


# Files


def test_a_function_in_a_file_is_found_without_running_it(folder: Path) -> None:
    path = write(folder, "job.py", "raise SystemExit\ndef train(depth): ...\n")
    target = find_target("job.py:train", folder)

    assert (target.kind, target.file, target.function) == ("file", str(path), "train")
    assert target == find_target(Path("job.py:train"), folder)


def test_a_script_is_found_and_parsed_only(folder: Path) -> None:
    path = write(folder, "sub/job.py", "raise SystemExit\n")
    target = find_target("sub/job.py", folder)
    assert (target.kind, target.file, target.function) == ("script", str(path), "")
    assert read_signature(target, None) is None


def test_a_missing_file_names_the_nearest_one(folder: Path) -> None:
    write(folder, "train.py", "")
    with pytest.raises(SpecError, match=r"no file .*/trian.py; did you mean 'train.py'\?"):
        find_target("trian.py:f", folder)
    with pytest.raises(SpecError, match=r"no file .*/no/where.py; there are none"):
        find_target("no/where.py", folder)


def test_a_missing_function_names_the_nearest_one(folder: Path) -> None:
    write(folder, "job.py", "def train(): ...\ndef test(): ...\nDEPTH = 3\n")
    with pytest.raises(SpecError, match=r"job.py has no function 'trian'; did you mean 'train'\?"):
        find_target("job.py:trian", folder)
    with pytest.raises(SpecError, match="known: 'test', 'train'"):
        find_target("job.py:zzzzz", folder)


@pytest.mark.parametrize("named", ["job.py", "job.py:f", "job:f"])
def test_a_syntax_error_names_the_file_and_the_line(folder: Path, named: str) -> None:
    write(folder, "job.py", "x = 1\ndef f(:\n    pass\n")
    with pytest.raises(SpecError, match=r"job.py:2 is not valid Python: .* in 'def f\(:'"):
        find_target(named, folder)


@pytest.mark.parametrize("content", [b"\0", b"\xff = 1", b"# coding: klingon\n"])
def test_a_file_that_is_no_text_is_refused(folder: Path, content: bytes) -> None:
    (folder / "job.py").write_bytes(content)
    with pytest.raises(SpecError, match=r"job.py.* is not valid Python"):
        find_target("job.py", folder)


@pytest.mark.parametrize(
    "source",
    [
        "def f(): ...",
        "async def f(): ...",
        "class f: ...",
        "f = lambda: 1",
        "f: object = print",
        "import math as f",
        "from math import sqrt as f",
        "from .other import *",
        "try:\n    from a import f\nexcept ImportError:\n    def f(): ...",
        "if True:\n    def f(): ...",
    ],
)
def test_every_way_to_define_a_name_counts(folder: Path, source: str) -> None:
    write(folder, "job.py", source)
    assert find_target("job.py:f", folder).function == "f"


def test_the_last_definition_is_the_one_that_counts(folder: Path) -> None:
    signature = signature_of("def f(first): ...\ndef f(second): ...\n", folder)
    assert list(signature.named) == ["second"]


# Modules


def test_a_module_is_found_in_the_folder_and_not_imported(folder: Path) -> None:
    write(folder, "pkg/__init__.py", "raise SystemExit\n")
    path = write(folder, "pkg/deep/__init__.py", "raise SystemExit\n").parent / "job.py"
    path.write_text("raise SystemExit\ndef train(depth: int): ...\n")
    target = find_target("pkg.deep.job:train", folder)

    assert (target.kind, target.module, target.file) == ("module", "pkg.deep.job", str(path))
    assert "pkg" not in sys.modules
    assert str(folder) not in sys.path


@pytest.mark.parametrize("named", ["math:sqrt", "os.path:join", "json.decoder:JSONDecoder"])
def test_a_module_of_python_itself_is_found(named: str, folder: Path) -> None:
    target = find_target(named, folder)
    assert target.module == named.partition(":")[0]
    assert callable(load_function(target, folder))


@pytest.mark.parametrize("named", ["no_such:f", "json.no_such:f", "math.no:f", "__main__.x:f"])
def test_a_missing_module_is_named(named: str, folder: Path) -> None:
    with pytest.raises(SpecError, match=f"no module '{named[:-2]}'"):
        find_target(named, folder)


def test_the_program_that_runs_is_no_module_for_a_job(folder: Path) -> None:
    with pytest.raises(SpecError, match="__main__"):
        find_target("__main__:no_such_function", folder)


def test_a_missing_function_of_a_module_is_named(folder: Path) -> None:
    with pytest.raises(
        SpecError, match="textwrap has no function 'dedant'; did you mean 'dedent'"
    ):
        find_target("textwrap:dedant", folder)


@pytest.mark.parametrize(
    "text",
    ["", ":", "train", "a b:f", "job.py:f:g", "hub://x", "a/b:f", "x" * 300 + ".py", "\0.py"],
)
def test_weird_text_is_refused_with_the_forms_that_work(text: str, folder: Path) -> None:
    with pytest.raises(SpecError, match=r"; (give a callable|check its name|there are none)"):
        find_target(text, folder)


@given(st.text(max_size=8).map(lambda text: f"{text}.py:f") | st.text(max_size=8))
def test_no_text_breaks_the_search(text: str) -> None:
    with pytest.raises(SpecError):
        find_target(text, Path("/nowhere"))


# Signatures

SHAPES = [
    "",
    "a",
    "a, b=1",
    "a, /, b, *, c",
    "a=1, /, b=2, *args, c, d=3, **kwargs",
    "*, c: int = 3, d",
    "a: int, b: 'float' = 1.0, c: list[int] | None = None",
    "x: Literal['a', 'b'] = 'a', y: Optional[int] = None",
    "*args: int, **kwargs: str",
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_a_file_that_is_read_says_what_the_live_function_says(
    shape: str, future: str, folder: Path
) -> None:
    source = f"{future}from typing import Literal, Optional\ndef f({shape}): ...\n"
    read = signature_of(source, folder)
    live = callable_signature(load_function(find_target("job.py:f", folder), folder))

    assert live is not None
    assert [(p.name, p.kind, p.annotation) for p in read.parameters] == [
        (p.name, p.kind, p.annotation) for p in live.parameters
    ]
    empty = inspect.Parameter.empty
    assert [p.default is empty for p in read.parameters] == [
        p.default is empty for p in live.parameters
    ]
    assert read.takes_any_name == live.takes_any_name


PLAIN_KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


@st.composite
def shapes(draw: st.DrawFn) -> inspect.Signature:
    """Any signature whose defaults are the number 1."""
    kinds = sorted(draw(st.lists(st.sampled_from(list(PLAIN_KINDS)), max_size=6)))
    parameters: list[inspect.Parameter] = []
    for name, kind in zip("abcdef", kinds, strict=False):
        follows = parameters and parameters[-1].default == 1 and kind != PLAIN_KINDS[-1]
        default = 1 if follows or draw(st.booleans()) else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(shape=shapes(), data=st.data())
def test_any_signature_is_read_and_called_as_it_is(
    shape: inspect.Signature, data: st.DataObject, folder: Path
) -> None:
    space: dict[str, Any] = {}
    exec(f"def f{shape}: return locals()", space)  # noqa: S102 - made right above
    parameters = list(shape.parameters.values())
    chosen = {
        p.name: p.name for p in parameters if p.default is p.empty or data.draw(st.booleans())
    }

    read = signature_of(f"def f{shape}: ...\n", folder)
    check_values(read, chosen, {})
    assert [(p.name, p.kind) for p in read.parameters] == [(p.name, p.kind) for p in parameters]
    assert call(space["f"], chosen, None) == {p.name: chosen.get(p.name, 1) for p in parameters}


def test_a_decorated_function_may_take_anything(folder: Path) -> None:
    signature = signature_of("import click\n@click.command()\ndef f(depth: int): ...\n", folder)
    assert not signature.is_exact
    check_values(signature, {"anything": 1}, {})
    with pytest.raises(SpecError, match="wants int"):
        check_values(signature, {"depth": "x"}, {})


def test_a_class_or_an_imported_name_has_no_signature_to_read(folder: Path) -> None:
    write(folder, "job.py", "from math import sqrt\nclass C: ...\n")
    for name in ("sqrt", "C"):
        assert read_signature(find_target(f"job.py:{name}", folder), None) is None


def test_a_foreign_annotation_stays_text(folder: Path) -> None:
    signature = signature_of("def f(a: np.ndarray, b: 'no such', c: open('x')): ...\n", folder)
    assert [p.annotation for p in signature.parameters] == ["np.ndarray", "no such", "open('x')"]
    check_values(signature, {"a": 1, "b": 2, "c": 3}, {})


# Values


def train(data: pd.DataFrame, depth: int, rate: float = 0.1, *, on: bool = True) -> None: ...


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"takes no parameter 'dept'; did you mean 'depth'\?"):
        check(train, {"dept": 4}, data=1)
    with pytest.raises(SpecError, match=r"takes no parameter 'dat'; did you mean 'data'\?"):
        check(train, {"depth": 4}, dat=1)


def test_a_function_without_parameters_says_that_it_has_none() -> None:
    with pytest.raises(SpecError, match="takes no parameter 'a'; there are none"):
        check(lambda: None, {"a": 1})


def test_missing_values_are_named() -> None:
    with pytest.raises(
        SpecError, match="needs a value for 'data', 'depth'; give it in params= or"
    ):
        check(train, {})
    check(train, {"depth": 3}, data="flights.csv")


def test_a_value_can_be_given_once() -> None:
    with pytest.raises(SpecError, match="'depth' is given both as a parameter and as an input"):
        check(train, {"depth": 3}, depth="a", data="b")


def test_any_name_is_taken_where_the_function_takes_any() -> None:
    def f(a: int, **rest: object) -> None: ...

    check(f, {"a": 1, "other": "x"})
    with pytest.raises(SpecError, match="needs a value for 'a'"):
        check(f, {"other": "x"})


class Color(enum.Enum):
    RED = "red"


@dataclass
class Shape:
    size: int


OPTIONAL_INT = typing.Optional[int]  # noqa: UP045 - the older way to write it

FITTING: list[tuple[object, object]] = [
    (int, 3),
    (int, np.int64(3)),
    (float, 3),
    (float, math.nan),
    (float, np.float32(0.5)),
    (bool, True),
    (bool, np.bool_(False)),
    (str, ""),
    (OPTIONAL_INT, None),
    (int | None, np.int8(1)),
    (int | str, "a"),
    (Literal["a", 1], 1),
    (list[int], []),
    (list[int], (1, 2)),
    (list[float], [np.float64(1), 2]),
    (dict[str, list[int]], {"a": [np.int64(1)]}),
    (list[np.float64], [np.float64(1)]),
    (tuple[int, str], (1, "a")),
    (set[int], {1}),
    (Color, Color.RED),
    (Color | None, Color.RED),
    (Shape, Shape(1)),
    (list[Shape], [Shape(1)]),
    (np.ndarray, np.zeros(2)),
    (pd.DataFrame, pd.DataFrame()),
    (Path, Path("a")),
    (str | Path, 5),  # what msgspec cannot tell is not refused
    (Any, ...),
    (object, ...),
    (complex, 1j),
    ("no such type", 5),
]

WRONG: list[tuple[object, object]] = [
    (int, True),
    (int, 1.0),
    (int, "3"),
    (int, None),
    (int, np.float64(1)),
    (float, "nan"),
    (float, True),
    (bool, 1),
    (str, b"a"),
    (str, 3),
    (Literal["a", "b"], "c"),
    (list[int], [1, "a"]),
    (list[int], 3),
    (dict[str, int], {"a": "b"}),
    (OPTIONAL_INT, "x"),
    (np.ndarray, [1]),
    (pd.DataFrame, {"a": 1}),
    (complex, "1j"),
]


def takes(annotation: object) -> Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return Signature((inspect.Parameter("x", kind, annotation=annotation),))


@pytest.mark.parametrize(
    ("annotation", "value"), FITTING, ids=lambda v: repr(v)[:40] + str(type(v))[7:20]
)
def test_a_value_of_its_type_is_taken(annotation: object, value: object) -> None:
    check_values(takes(annotation), {"x": value}, {})


@pytest.mark.parametrize(("annotation", "value"), WRONG, ids=lambda v: repr(v)[:40])
def test_a_value_of_another_type_is_refused(annotation: object, value: object) -> None:
    with pytest.raises(
        SpecError, match=r"parameter 'x' is .* of type \w+, and the function wants"
    ):
        check_values(takes(annotation), {"x": value}, {})


def test_a_long_wrong_value_is_cut_in_the_message() -> None:
    with pytest.raises(SpecError) as caught:
        check_values(takes(int), {"x": "y" * 10_000}, {})
    assert len(str(caught.value)) < 250


def test_annotations_that_are_text_are_checked_too(folder: Path) -> None:
    source = "from __future__ import annotations\ndef f(n: int | None, kind: 'str' = ''): ...\n"
    signature = signature_of(source, folder)
    check_values(signature, {"n": None, "kind": "x"}, {})
    for wrong in ({"n": "3"}, {"n": 1, "kind": 2}):
        with pytest.raises(SpecError, match="wants"):
            check_values(signature, wrong, {})


# The context


def test_a_context_is_known_by_its_name_and_by_its_annotation(folder: Path) -> None:
    for shape in ("context", "run: rayml.Context", "run: 'Context'", "*, run: Context"):
        signature = signature_of(f"def f(depth, {shape}): ...", folder)
        assert list(signature.named) == ["depth"], shape


def test_the_class_of_the_context_is_known_too() -> None:
    assert takes(rayml.Context).named == {}
    assert list(takes(int).named) == ["x"]


def test_the_context_is_given_to_who_asks_for_it() -> None:
    def by_name(depth: int, context: object) -> object:
        return depth, context

    def by_type(run: rayml.Context, /, depth: int) -> object:
        return depth, run

    assert call(by_name, {"depth": 3}, "the context") == (3, "the context")
    assert call(by_type, {"depth": 3}, "the context") == (3, "the context")
    assert call(lambda depth: depth, {"depth": 3}, "the context") == 3


# Calls


def test_positional_parameters_keep_their_places() -> None:
    def f(a: int = 1, b: int = 2, /, c: int = 3, *, d: int = 4) -> tuple[int, ...]:
        return a, b, c, d

    assert call(f, {"b": 20}, None) == (1, 20, 3, 4)
    assert call(f, {"d": 40, "a": 10}, None) == (10, 2, 3, 40)


def test_a_call_that_does_not_fit_the_real_function_is_refused() -> None:
    with pytest.raises(SpecError, match="takes no parameter 'b'"):
        call(lambda a: a, {"a": 1, "b": 2}, None)


def test_a_builtin_without_a_signature_is_called_as_it_is() -> None:
    assert call(dict, {"a": 1}, None) == {"a": 1}


def test_a_loaded_file_can_use_its_neighbours_and_its_own_classes(folder: Path) -> None:
    write(folder, "sub/neighbour_of_job.py", "VALUE = 7\n")
    source = """
        from dataclasses import dataclass
        import neighbour_of_job

        @dataclass
        class Point:
            x: int

        def train(x: int):
            return Point(x + neighbour_of_job.VALUE)
    """
    write(folder, "sub/own_job.py", source)
    function = load_function(find_target("sub/own_job.py:train", folder), folder)

    assert repr(call(function, {"x": 1}, None)) == "Point(x=8)"
    assert sys.modules["own_job"].train is function


def test_what_is_no_function_is_refused_when_it_is_loaded(folder: Path) -> None:
    write(folder, "not_a_job.py", "f = 3\n")
    target = find_target("not_a_job.py:f", folder)
    with pytest.raises(SpecError, match=r"'not_a_job\.py:f' is not a function in this run"):
        load_function(target, folder)


# Words of the command line


@pytest.mark.parametrize(
    ("annotation", "word", "value"),
    [
        (int, "4", 4),
        (float, "1e-3", 0.001),
        (float, "4", 4.0),
        (float, "-inf", -math.inf),
        (bool, "true", True),
        (bool, "False", False),
        (bool, "0", False),
        (str, "007", "007"),
        (str, "true", "true"),
        (str, "", ""),
        (int | None, "4", 4),
        (int | None, "None", None),
        (int | None, "null", None),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], "2", 2),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, float], '{"a": 1}', {"a": 1.0}),
        (list[str], '["x"]', ["x"]),
        ("np.ndarray", "[1]", [1]),
        (inspect.Parameter.empty, "4", 4),
        (inspect.Parameter.empty, "0.5", 0.5),
        (inspect.Parameter.empty, "True", True),
        (inspect.Parameter.empty, "true", True),
        (inspect.Parameter.empty, "None", None),
        (inspect.Parameter.empty, "adam", "adam"),
        (inspect.Parameter.empty, '{"a": [1]}', {"a": [1]}),
        (inspect.Parameter.empty, "[1,", "[1,"),
        (Any, "4", 4),
        (object, "4", 4),
    ],
    ids=repr,
)
def test_a_word_is_read_by_the_annotation(annotation: object, word: str, value: object) -> None:
    parsed = parse_word("x", word, takes(annotation))
    assert (type(parsed), parsed) == (type(value), value)


@pytest.mark.parametrize(
    ("annotation", "word"),
    [
        (int, "four"),
        (int, "4.5"),
        (bool, "maybe"),
        (Literal["a"], "b"),
        (list[int], "1,2"),
        (float, ""),
    ],
    ids=repr,
)
def test_a_word_that_does_not_fit_is_refused(annotation: object, word: str) -> None:
    with pytest.raises(SpecError, match=f"parameter 'x' is '{word}'"):
        parse_word("x", word, takes(annotation))


def test_a_word_for_an_unknown_name_is_guessed() -> None:
    assert parse_word("y", "4", takes(str)) == 4
    assert parse_word("y", "4", None) == 4
