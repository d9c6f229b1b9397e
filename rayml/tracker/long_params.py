"""Parameters too long for the journal: it shows how they begin, and a blob holds them whole."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import msgspec

from rayml.redaction import redact_strings
from rayml.spec import is_long, plain_value
from rayml.store import read_blob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rayml.redaction import Redactor
    from rayml.store import Store


def keep_long(
    params: Mapping[str, object], store: Store, redactor: Redactor | None = None
) -> dict[str, str]:
    """Store the parameters that `describe_params` cuts; return their names and blobs' digests.

    Raises:
        StoreError: The store refused.
    """
    long = {name: plain_value(value) for name, value in params.items() if is_long(value)}
    clean = long if redactor is None else redact_strings(long, redactor.redact)
    return {name: _keep(value, store) for name, value in clean.items()}


def load_long(digest: str, store: Store) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return such a parameter as JSON can hold it.

    Raises:
        StoreError: The store cannot be read.
        ArtifactCorrupt: The blob has been changed.
    """
    return msgspec.json.decode(b"".join(read_blob(store, digest)))


def _keep(value: object, store: Store) -> str:
    return store.add(BytesIO(msgspec.json.encode(value))).digest
