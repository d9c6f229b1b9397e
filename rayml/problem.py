"""What ended user code, in words that its author understands."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rayml.ranks import RankFailed
from rayml.tracker.records import Problem

if TYPE_CHECKING:
    from rayml.redaction import Redactor

_PACKAGE = str(Path(__file__).parent)
_MAX_CHARACTERS = 2000
# Whoever runs a function on Ray's behalf calls it through these.
_CALLERS = ("<frozen importlib", "<frozen runpy")


def describe_exception(exc: BaseException, name: str = "the function") -> Problem:
    """Return what user code raised as a problem, with the traceback as its author would see it."""
    if isinstance(exc, KeyboardInterrupt):
        return Problem(kind="cancelled", message="it was interrupted")
    if isinstance(exc, SystemExit):
        shown = f"code {exc.code}" if isinstance(exc.code, int) else repr(exc.code)
        return Problem(kind="exit", message=f"{name} exited with {shown}")
    text = "".join(_user_traceback(exc).format())
    summary = _short(traceback.format_exception_only(exc)[-1].strip())
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        package = exc.name.partition(".")[0]
        summary += f"; give requirements=[{package!r}], or an image that has it"
    return Problem(kind="error", message=summary, traceback=text)


def encode_end(exc: BaseException, name: str) -> bytes:
    """Return what ended a script, as JSON; nothing if its exit code says it all."""
    if isinstance(exc, SystemExit):
        if isinstance(exc.__cause__, RankFailed):  # of its engine's session
            return msgspec.json.encode(exc.__cause__.problem)
        if exc.code is None or isinstance(exc.code, int):
            return b""
    return msgspec.json.encode(describe_exception(exc, name))


def redacted(problem: Problem, redactor: Redactor) -> Problem:
    """Return a problem without secrets in its words."""
    return msgspec.structs.replace(
        problem,
        message=redactor.redact_text(problem.message),
        traceback=redactor.redact_text(problem.traceback),
    )


def _user_traceback(exc: BaseException) -> traceback.TracebackException:
    """Return an exception's traceback, causes included, with the user's own frames only."""
    whole = traceback.TracebackException.from_exception(exc)
    pending = [whole]
    while pending:
        part = pending.pop()
        part.stack[:] = [frame for frame in part.stack if not _is_ours(frame.filename)]
        pending += [p for p in (part.__cause__, part.__context__) if p is not None]
        pending += part.exceptions or []
    return whole


def _is_ours(filename: str) -> bool:
    return filename.startswith((_PACKAGE, *_CALLERS))


def _short(text: str) -> str:
    if len(text) <= _MAX_CHARACTERS:
        return text
    return f"{text[:_MAX_CHARACTERS]}… ({len(text):,} characters in all)"
