"""Keeps secrets out of whatever rayml writes down."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = b"***"


class Redactor:
    """Replaces secret values in bytes, also in the forms that `repr` and JSON give them.

    Encoded forms such as base64 are not recognised.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        # The longest first, so that a secret which contains another is hidden whole.
        self._forms = sorted(forms, key=len, reverse=True)

    def redact(self, data: bytes) -> bytes:
        """Return the data with every secret replaced by `***`."""
        for form in self._forms:
            data = data.replace(form, MASK)
        return data

    def redact_text(self, text: str) -> str:
        """Return the text with every secret replaced by `***`."""
        return self.redact(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def held_back(self, data: bytes) -> int:
        """Return how many bytes at the end of `data` may be the beginning of a secret."""
        longest = max((len(form) for form in self._forms), default=1) - 1
        for count in range(min(longest, len(data)), 0, -1):
            if any(form.startswith(data[-count:]) for form in self._forms):
                return count
        return 0


def _forms(secret: str) -> set[bytes]:
    once = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}
    once |= {json.dumps(secret, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(form)[1:-1] for form in once}
    # A secret of several lines may be printed line by line.
    lines = {line.strip() for line in secret.splitlines() if len(line.strip()) >= 8}  # noqa: PLR2004
    return {form.encode("utf-8", "surrogatepass") for form in once | twice | lines if form}
