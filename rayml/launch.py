"""Runs a script as `python script.py …` would, and tells by what error it ended.

    python …/rayml/launch.py FILE script.py …

It is run as a file and loads nothing of rayml before the script has failed: a script finds a
process as it knows it. The error goes to FILE as a `Problem`; nothing does if there was none.
"""

from __future__ import annotations

import builtins
import os
import sys
from contextlib import nullcontext, suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType


def main(around: AbstractContextManager[None] | None = None) -> None:
    """Run the script that the command line names, in a block if one is given."""
    file, *sys.argv = sys.argv[1:]
    script, process = sys.argv[0], os.getpid()
    if not sys.flags.safe_path:  # there, Python puts no folder in front
        sys.path[0] = str(Path(script).resolve().parent)
    try:
        with around or nullcontext():
            _run(script)
    except BaseException as exc:
        if os.getpid() == process:  # and not a child that the script has forked
            _tell(exc, Path(script).name, Path(file))
        _show_own_frames_no_more()
        raise


def _run(script: str) -> None:
    # A module of its own, and not this one: what the script defines is all that is in `__main__`.
    module = sys.modules["__main__"] = ModuleType("__main__")
    loader = module.__loader__ = SourceFileLoader("__main__", script)
    vars(module).update(__builtins__=builtins, __file__=script, __cached__=None)
    code = compile(loader.get_data(script), script, "exec", dont_inherit=True)
    exec(code, vars(module))  # noqa: S102 - what a launcher is for


def _tell(exc: BaseException, name: str, file: Path) -> None:
    with suppress(Exception):  # else its exit code has to do
        from rayml.problem import encode_end  # noqa: PLC0415 - see above

        file.write_bytes(encode_end(exc, name))


def _show_own_frames_no_more() -> None:
    """Let what shows the error that ends this process begin where the script does."""
    show = sys.excepthook

    def show_rest(
        kind: type[BaseException], exc: BaseException, trace: TracebackType | None
    ) -> None:
        rest = _from_script_on(trace)
        show(kind, exc.with_traceback(rest), rest)

    sys.excepthook = show_rest


def _from_script_on(trace: TracebackType | None) -> TracebackType | None:
    part = trace
    while part is not None and part.tb_frame.f_code is not _run.__code__:
        part = part.tb_next
    return trace if part is None else part.tb_next


if __name__ == "__main__":
    main()
