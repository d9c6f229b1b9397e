"""Runs a script as `python script.py …` would, and tells by what error it ended.

    python …/rayml/launch.py FILE script.py …

It is run as a file and loads nothing of rayml before the script has failed: a script finds a
process as it knows it. The error goes to FILE as a `Problem`; nothing does if there was none.
"""

from __future__ import annotations

import builtins
import os
import sys
from _thread import get_ident
from contextlib import ExitStack, nullcontext, suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

# What a script is told, and what `rayml.autolog` would hook as soon as the script imports it.
AUTOLOG = "RAYML_AUTOLOG"
_FRAMEWORKS = (
    *("sklearn.base", "xgboost", "lightgbm", "keras", "torch"),
    *("lightning.pytorch", "pytorch_lightning", "transformers.trainer", "accelerate.accelerator"),
    "ray.train.v2.api.data_parallel_trainer",
    "ray.train.v2._internal.execution.train_fn_utils",
)
# What a script is told: in which placement group of which Ray runs what it starts there, if any.
GROUP = "RAYML_RAY_GROUP"


class ImportWatch:
    """Calls a function once a module is imported, until it is stopped; it imports nothing itself.

    It is here because a script's process must not load rayml for it. There, this file is run and
    not imported, and `rayml.autolog` has another class of this name.
    """

    def __init__(self, module: str, then: Callable[[], None]) -> None:
        self._module = module
        self._then = then
        self._finding: set[int] = set()
        sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Watch no more."""
        with suppress(ValueError):
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module as the others do, and have its execution end with the call."""
        thread = get_ident()
        if name != self._module or thread in self._finding:  # another one has come round to here
            return None
        # Others that watch for the module are among them: each is told.
        others = [finder for finder in sys.meta_path if finder is not self]
        finds = [finder.find_spec for finder in others if hasattr(finder, "find_spec")]
        self._finding.add(thread)
        try:
            spec = next((found for find in finds if (found := find(name, path, target))), None)
        finally:
            self._finding.discard(thread)
        if spec is not None and hasattr(spec.loader, "__dict__"):
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:  # noqa: ANN401 - whatever kind it is
        """Have the loader tell; it stays the module's own, which others look at and wrap."""
        if isinstance(loader, type) or not hasattr(loader, "exec_module"):
            return
        execute = loader.exec_module

        def execute_and_tell(module: ModuleType) -> None:
            execute(module)
            if module.__name__ != self._module:  # a loader of several modules
                return
            if vars(loader).get("exec_module") is execute_and_tell:
                del loader.exec_module
            if self in sys.meta_path:
                self.stop()
                self._then()

        with suppress(AttributeError, TypeError):  # a loader that takes no other method
            loader.exec_module = execute_and_tell


def main(around: AbstractContextManager[None] | None = None) -> None:
    """Run the script that the command line names, in a block if one is given."""
    file, *sys.argv = sys.argv[1:]
    script, process = sys.argv[0], os.getpid()
    if not sys.flags.safe_path:  # there, Python puts no folder in front
        sys.path[0] = str(Path(script).resolve().parent)
    if os.environ.get(AUTOLOG) == "1":
        for module in _FRAMEWORKS:
            ImportWatch(module, lambda: _log_automatically(process))
    held = ExitStack()
    if group := os.environ.pop(GROUP, ""):
        ImportWatch("ray", lambda: _hold_together(held, group))
    try:
        with around or nullcontext():
            _run(script)
    except BaseException as exc:
        if os.getpid() == process:  # and not a child that the script has forked
            _tell(exc, Path(script).name, Path(file))
        _show_own_frames_no_more()
        raise


def _log_automatically(process: int) -> None:
    if os.getpid() != process:  # a child that the script has forked
        return
    with suppress(Exception):  # the script goes on, whatever is wrong with it
        from rayml.autologging import autolog  # noqa: PLC0415 - see above

        autolog()


def _hold_together(held: ExitStack, group: str) -> None:
    try:
        from rayml._ray.own_tasks import held_together  # noqa: PLC0415 - see above

        held.enter_context(held_together(group))
    except Exception as exc:  # noqa: BLE001 - the script goes on, whatever is wrong with it
        sys.stderr.write(f"rayml: what it starts on Ray may wait for ever: {exc!r}\n")


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
