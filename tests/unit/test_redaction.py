"""No secret gets through, in whatever form it was printed and however the output is cut."""

from __future__ import annotations

import json
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayml.artifacts.record import json_safe
from rayml.problem import describe_exception, redacted
from rayml.redaction import Redactor, redact_strings
from rayml.spec import describe_value
from rayml.tracker.records import Problem
from tests.unit.journals import logged

KEY = "-----BEGIN KEY-----\nMIIabc+def/ghi=\njklmnopqrstuvw\n-----END KEY-----\n"

secret_text = st.text(st.characters(codec="utf-8", exclude_characters="*\r\n"), min_size=4)
few_letters = st.text("ab", min_size=4, max_size=8)


@pytest.mark.parametrize(
    "secret", ["hunter2", "ünï✓🔑key", 'quo"te\\d', "tab\tand\nline", "a'b\"c"]
)
def test_a_secret_is_hidden_in_every_form_that_code_prints(secret: str) -> None:
    redactor = Redactor([secret])
    twice = json.dumps({"log": json.dumps({"env": secret})})
    forms = [
        secret,
        repr(secret),
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        twice,
    ]
    forms += [repr({"k": secret}), msgspec.json.encode(secret).decode()]

    for text in forms:
        shown = redactor.redact_text(f"<{text}>")
        assert "***" in shown
        assert secret not in shown
        assert json.dumps(secret)[1:-1] not in shown


def test_the_rest_of_the_text_stays() -> None:
    assert (
        Redactor(["hunter2"]).redact_text("pw=hunter2; user=é🚀\udcff") == "pw=***; user=é🚀\udcff"
    )
    assert Redactor([]).redact(b"\xff anything") == b"\xff anything"
    assert Redactor([""]).redact(b"anything") == b"anything"


def test_the_lines_of_a_long_secret_are_hidden_one_by_one() -> None:
    shown = Redactor([KEY]).redact_text("first: MIIabc+def/ghi= then: jklmnopqrstuvw")
    assert shown == "first: *** then: ***"


def test_a_secret_that_contains_another_is_hidden_whole() -> None:
    assert Redactor(["pass", "password1"]).redact_text("password1 pass") == "*** ***"


@pytest.mark.parametrize("mark", ["…", "...", "\\u2026"])
@pytest.mark.parametrize("secret", ["hunter2-and-more", 'quo"te\\d-and-more', "ünï✓🔑key"])
def test_a_secret_that_was_cut_is_hidden(secret: str, mark: str) -> None:
    redactor = Redactor([secret])
    for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        for count in range(4, len(form)):
            shown = redactor.redact_text(f"a.b {form[:count]}{mark} (99)")
            assert shown == f"a.b ***{mark} (99)"


def test_an_ellipsis_after_other_text_changes_nothing() -> None:
    text = "hun... loading... ........ hunter..… unter2… \\u2026 hunte ..."
    assert Redactor(["hunter2"]).redact_text(text) == text


@pytest.mark.parametrize("limit", range(1900, 2100, 7))
def test_a_shortened_error_shows_no_part_of_a_secret(limit: int) -> None:
    secret = "0123456789abcdefghijklmnopqrstuvwxyz" * 5
    shown = redacted(describe_exception(ValueError("-" * limit + secret)), Redactor([secret]))
    assert "0123" not in shown.message
    assert "0123" not in shown.traceback


@pytest.mark.parametrize("length", range(190, 4200, 397))
def test_a_shortened_parameter_shows_no_part_of_a_secret(length: int) -> None:
    secret = "0123456789abcdefghijklmnopqrstuvwxyz" * 20
    redact = Redactor([secret]).redact
    for show in (json_safe, partial(describe_value, "p")):
        assert "0123" not in str(redact_strings(show("-" * length + secret), redact))


@given(st.lists(secret_text, min_size=1, max_size=3), st.data())
def test_no_secret_is_ever_in_the_output(secrets: list[str], data: st.DataObject) -> None:
    pieces = st.sampled_from(secrets) | st.text(st.characters(codec="utf-8"), max_size=5)
    text = "".join(data.draw(st.lists(pieces, max_size=8)))

    shown = Redactor(secrets).redact_text(text)
    assert not any(secret in shown for secret in secrets)


def ship(redactor: Redactor, chunks: list[bytes]) -> bytes:
    """Redact output as it comes, as the shipper of logs does."""
    shown, rest = b"", b""
    for chunk in chunks:
        rest += chunk
        safe = len(rest) - redactor.held_back(rest)
        shown, rest = shown + redactor.redact(rest[:safe]), rest[safe:]
    return shown + redactor.redact(rest)


@pytest.mark.parametrize("secret", ["hunter2", "s3cr3ts", "abcabc", "ünï🔑", "aaaa"])
def test_a_secret_in_two_chunks_is_hidden(secret: str) -> None:
    text = f"before {secret} after".encode()
    for cut in range(len(text) + 1):
        assert ship(Redactor([secret]), [text[:cut], text[cut:]]) == b"before *** after"


@pytest.mark.parametrize("mark", ["…", "...", "\\u2026"])
def test_a_cut_secret_in_two_chunks_is_hidden(mark: str) -> None:
    text = f"before hunt{mark} after".encode()
    for cut in range(len(text) + 1):
        shown = ship(Redactor(["hunter2"]), [text[:cut], text[cut:]])
        assert shown == f"before ***{mark} after".encode()


@given(
    st.lists(few_letters, min_size=1, max_size=3), st.lists(st.text("abc", max_size=6), max_size=8)
)
def test_no_secret_is_in_output_that_came_in_chunks(secrets: list[str], chunks: list[str]) -> None:
    shown = ship(Redactor(secrets), [chunk.encode() for chunk in chunks]).decode()
    assert not any(secret in shown for secret in secrets)


@given(few_letters, st.text("abc", max_size=30))
def test_what_is_held_back_is_what_matters(secret: str, text: str) -> None:
    held = Redactor([secret]).held_back(text.encode())
    assert 0 <= held <= len(text)
    assert Redactor([secret]).held_back(text.encode() + b"c") == 0


def test_text_inside_of_data_is_hidden_and_the_rest_kept() -> None:
    redact = Redactor(["1234", "note"]).redact
    data = {"note": "a 1234", "n": 1234, "deep": [{"x": ("note 1234", None, 0.1234)}]}

    assert redact_strings(data, redact) == {
        "***": "a ***",
        "n": 1234,
        "deep": [{"x": ("*** ***", None, 0.1234)}],
    }


def test_a_record_keeps_its_shape_when_a_secret_looks_like_part_of_it() -> None:
    record = logged("sent to prod", run="prod-1", name="stage")
    assert redact_strings(record, Redactor(["prod"]).redact) == logged(
        "sent to ***", run="prod-1", name="stage"
    )

    problem = Problem(kind="error", message="no error 1234")
    assert redact_strings(problem, Redactor(["error"]).redact) == Problem(
        kind="error", message="no *** 1234"
    )
