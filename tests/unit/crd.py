"""A walk through an object along the schema of KubeRay's CRD: unknown fields and wrong types."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
}


def check_against_crd(path: Path, cluster: dict[str, Any]) -> None:
    """Assert that a RayCluster, or as much of it as is given, is one that the CRD describes."""
    _check(cluster["spec"], _schema(path)["properties"]["spec"], "spec")


@lru_cache(maxsize=1)
def _schema(path: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(path.read_text("utf-8"), loader)  # noqa: S506 - a safe one
    (version,) = [v for v in crd["spec"]["versions"] if v["storage"]]
    return version["schema"]["openAPIV3Schema"]


def _check(value: Any, schema: Any, where: str) -> None:
    if value is None:
        return
    if schema.get("x-kubernetes-int-or-string"):
        assert isinstance(value, int | str), f"{where}: {value!r}"
        return
    expected = schema.get("type")
    if expected is not None:
        assert isinstance(value, _TYPES[expected]), f"{where} is {value!r} and no {expected}"
    if "enum" in schema:
        assert value in schema["enum"], f"{where} is {value!r} and none of {schema['enum']}"
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, schema["items"], f"{where}[{index}]")
    elif isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        _check_fields(value, schema, where)


def _check_fields(value: dict[str, Any], schema: Any, where: str) -> None:
    for name in schema.get("required", []):
        assert name in value, f"{where} lacks {name}"
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
    for name, item in value.items():
        known = properties.get(name, rest)
        assert known is not None, f"{where} has the unknown field {name}"
        if isinstance(known, dict):
            _check(item, known, f"{where}.{name}")
