"""Keeps secrets out of whatever rayml writes down."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

MASK = b"***"
_MAX_OVERLAP = 64 * 1024
# Long text is shown cut, by rayml and by others, and the cut may go through a secret.
_ELLIPSES = (b"...", "…".encode(), b"\\u2026")
# Only the first three of many dots: output may be full of them.
_ELLIPSIS = re.compile(rb"(?<!\.)" + b"|".join(map(re.escape, _ELLIPSES)))
_LEAST_SHOWN = 4
# What rayml itself put there; a short secret may turn up in a digest by chance.
_OWN_FIELDS = frozenset(
    {"run", "digest", "kind", "format", "state", "long", "long_params", "packages"}
)

_SECRET_WORDS = frozenset(
    {"apikey", "credential", "credentials", "passphrase", "passwd", "password", "pwd", "secret"}
)
_SECRET_ENDS = ("access_key", "api_key", "auth", "private_key", "secret_key", "token")


def is_secret_name(name: str) -> bool:
    """Tell whether something that is called so is a secret.

    >>> [is_secret_name(name) for name in ("api_key", "hf_token", "DB_PASSWORD")]
    [True, True, True]
    >>> [is_secret_name(name) for name in ("token_pattern", "tokenizer", "key")]
    [False, False, False]
    """
    lower = name.lower()
    is_ended = any(lower == end or lower.endswith(f"_{end}") for end in _SECRET_ENDS)
    return is_ended or not _SECRET_WORDS.isdisjoint(lower.split("_"))


class Redactor:
    """Replaces secret values in bytes, also in the forms that `repr` and JSON give them.

    Where an ellipsis says that one was cut, its first four or more bytes are hidden as well.
    Encoded forms such as base64 are not recognised.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # The longest first, so that a secret which contains another is hidden whole.
        self._forms = sorted(forms, key=len, reverse=True)
        self._longest = len(self._forms[0]) if self._forms else 0

    def redact(self, data: bytes) -> bytes:
        """Return the data with every secret replaced by `***`."""
        for form in self._forms:
            data = data.replace(form, MASK)
        return self._without_cut_ones(data)

    def redact_text(self, text: str) -> str:
        """Return the text with every secret replaced by `***`."""
        return self.redact(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def held_back(self, data: bytes) -> int:
        """Return how many bytes at the end of `data` must wait for what follows them.

        They may be the beginning of a secret. The cut before them does not go through a whole one,
        unless secrets overlap each other for more than 64 KiB.
        """
        cut = len(data) - self._waiting(data)
        least = cut - _MAX_OVERLAP
        while cut > least and (earlier := self._start_of_secret_at(data, cut)) < cut:
            cut = earlier
        return len(data) - cut

    def _without_cut_ones(self, data: bytes) -> bytes:
        kept, parts = 0, []
        for found in _ELLIPSIS.finditer(data):
            end = found.start()
            if shown := self._shown(data[max(kept, end - self._longest) : end]):
                parts += [data[kept : end - shown], MASK]
                kept = end
        return b"".join([*parts, data[kept:]])

    def _shown(self, data: bytes) -> int:
        """Return how many bytes at the end are what is left of a cut secret; none, if too few."""
        # Output may be full of ellipses: count only where something can be found.
        if not any(data[-_LEAST_SHOWN:] in form for form in self._forms):
            return 0
        begun = self._begun(data)
        return begun if begun >= _LEAST_SHOWN else 0

    def _waiting(self, data: bytes) -> int:
        """Return how many bytes at the end may become a secret, or a cut one and its ellipsis."""
        waiting = self._begun(data)
        for mark in _ELLIPSES:
            for dots in range(1, len(mark)):
                if data.endswith(mark[:dots]) and (cut := self._begun(data[:-dots])):
                    waiting = max(waiting, cut + dots)
        return waiting

    def _begun(self, data: bytes) -> int:
        """Return how many bytes at the end are the beginning of a secret, as many as can be."""
        for count in range(min(self._longest - 1, len(data)), 0, -1):
            if any(form.startswith(data[-count:]) for form in self._forms):
                return count
        return 0

    def _start_of_secret_at(self, data: bytes, cut: int) -> int:
        """Return where the earliest secret begins that a cut would divide, or the cut itself."""
        nearby = ((form, max(0, cut - len(form) + 1)) for form in self._forms)
        found = (data.find(form, start, cut + len(form) - 1) for form, start in nearby)
        return min((at for at in found if at >= 0), default=cut)


def redact_strings(value: T, redact: Callable[[bytes], bytes]) -> T:
    """Return plain data or a record with all text in it redacted, and its shape and numbers kept.

    To redact encoded JSON would break it where a secret is also a number or a field's name.
    """
    return cast("T", _redact_strings(value, redact))


def _redact_strings(value: object, redact: Callable[[bytes], bytes]) -> object:
    match value:
        case str():
            return redact(value.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
        case list():
            return [_redact_strings(item, redact) for item in value]
        case tuple():
            return tuple(_redact_strings(item, redact) for item in value)
        case dict():
            return {
                _redact_strings(key, redact): _redact_strings(item, redact)
                for key, item in value.items()
            }
        case msgspec.Struct():
            fields = [name for name in value.__struct_fields__ if name not in _OWN_FIELDS]
            texts = {name: _redact_strings(getattr(value, name), redact) for name in fields}
            return msgspec.structs.replace(value, **texts)
    return value


def _forms(secret: str) -> set[bytes]:
    once = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}
    once |= {json.dumps(secret, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(form)[1:-1] for form in once}
    # A secret of several lines may be printed line by line.
    lines = {line.strip() for line in secret.splitlines() if len(line.strip()) >= 8}
    return {form.encode("utf-8", "surrogatepass") for form in once | twice | lines if form}
