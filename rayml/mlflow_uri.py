"""The URIs by which MLflow knows a store, its runs and their artifacts.

    rayml:                          the run that this code is part of, else the project's own store
    rayml:///home/ada/work/.rayml   a folder
    rayml+s3://bucket/prefix        a bucket; also rayml+gs, rayml+az and rayml+file

An artifact's is `<store>/runs/<run>/artifacts/<path>`.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from rayml.errors import SpecError

SCHEME = "rayml"
_ARTIFACT = re.compile(
    r"(?P<store>.*?)/runs/(?P<run>\d{8}-\d{6}-\w+)/artifacts(?:/(?P<path>.*))?", re.DOTALL
)


class ArtifactLocation(NamedTuple):
    """Where MLflow keeps artifacts of one run; the path is empty for all of them."""

    store: str | None
    run: str
    path: str


def tracking_uri(store_uri: str) -> str:
    """Return the URI by which MLflow opens a store.

    >>> tracking_uri("/home/ada/.rayml"), tracking_uri("s3://bucket/prefix")
    ('rayml:///home/ada/.rayml', 'rayml+s3://bucket/prefix')
    """
    if "://" in store_uri:
        return f"{SCHEME}+{store_uri}"
    return f"{SCHEME}://{quote(store_uri)}"


def parse_tracking_uri(uri: str) -> str | None:
    """Return the location of the store that a tracking URI names; None for `rayml:` alone.

    >>> parse_tracking_uri("rayml:///home/ada/my%20runs"), parse_tracking_uri("rayml+gs://bucket")
    ('/home/ada/my runs', 'gs://bucket')

    Raises:
        SpecError: It is not such a URI.
    """
    scheme, _, rest = uri.partition(":")
    if scheme.startswith(f"{SCHEME}+"):
        return f"{scheme.removeprefix(f'{SCHEME}+')}:{rest}"
    path = rest.removeprefix("//")
    if scheme != SCHEME or (path and not path.startswith("/")):
        raise SpecError(
            f"{uri!r} is not the URI of a store; write rayml:///<folder>, rayml+s3://<bucket>, or "
            "rayml: for the project's own"
        )
    return unquote(path) or None


def artifact_uri(store_uri: str, run: str, path: str = "") -> str:
    """Return the URI by which MLflow finds the artifacts of a run.

    >>> artifact_uri("/s", "20261123-181110-95b9fc", "model")
    'rayml:///s/runs/20261123-181110-95b9fc/artifacts/model'
    """
    root = f"{tracking_uri(store_uri)}/runs/{run}/artifacts"
    return f"{root}/{path}" if path else root


def parse_artifact_uri(uri: str) -> ArtifactLocation:
    """Take an artifact's URI apart.

    >>> parse_artifact_uri("rayml+s3://b/p/runs/20261123-181110-95b9fc/artifacts/a/b")
    ArtifactLocation(store='s3://b/p', run='20261123-181110-95b9fc', path='a/b')

    Raises:
        SpecError: It is not such a URI.
    """
    found = _ARTIFACT.fullmatch(uri)
    if found is None:
        raise SpecError(
            f"{uri!r} is not the URI of a run's artifacts; write <store>/runs/<run>/artifacts"
        )
    store = parse_tracking_uri(found["store"])
    return ArtifactLocation(store, found["run"], (found["path"] or "").strip("/"))
