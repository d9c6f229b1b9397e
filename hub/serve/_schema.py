"""What an endpoint says about itself: the model's signature, an example, and OpenAPI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._replica import Served
    from ._rows import Signature

_TYPES = {"float": "number", "int": "integer", "uint": "integer", "bool": "boolean"}


def describe(served: Served, signature: Signature) -> dict[str, Any]:
    """Return what the model takes and gives, with a request that can be sent as it is."""
    example = signature.example
    return {
        "model": served.name,
        "version": served.version,
        "artifact": served.artifact.uri,
        "class": served.artifact.meta.get("class"),
        "inputs": signature.inputs,
        "outputs": signature.outputs,
        "forms": ["rows", "columns"] if signature.is_table else ["rows"],
        "example": example[:2] if example else None,
    }


def openapi(served: Served, signature: Signature, *, needs_token: bool) -> dict[str, Any]:
    """Return the endpoint as OpenAPI 3.1."""
    rows = _rows(signature)
    answer = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "version": {"type": ["integer", "null"]},
            "predictions": {},
            "probabilities": {"type": "array"},
            "classes": {"type": "array"},
        },
        "required": ["model", "version", "predictions"],
    }
    error = {"type": "object", "properties": {"error": {"type": "string"}}}
    content: dict[str, Any] = {"schema": rows}
    if signature.example:
        content["example"] = signature.example[:2]
    predict = {
        "summary": f"Predict rows by {served}",
        "parameters": [
            {"name": "probabilities", "in": "query", "schema": {"type": "boolean"}},
        ],
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "200": _response("A prediction for each row", answer),
            **{str(code): _response(text, error) for code, text in _ERRORS.items()},
        },
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": str(served.name), "version": str(served.version or "")},
        "paths": {
            "/predict": {"post": predict},
            "/schema": {"get": _get("What the model takes and gives")},
            "/health": {"get": _get("Whether it answers")},
            "/metrics": {"get": _get("Figures for Prometheus")},
            "/reload": {"post": _get("Look now where the alias points")},
        },
    }
    if needs_token:
        document["components"] = {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
        }
        document["security"] = [{"token": []}]
    return document


_ERRORS = {
    400: "The body is not JSON",
    401: "The token is missing or wrong",
    413: "The body is too large",
    422: "The rows are not those that the model takes",
    503: "Too many requests wait",
}


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _get(text: str) -> dict[str, Any]:
    return {"summary": text, "responses": {"200": {"description": text}}}


def _rows(signature: Signature) -> dict[str, Any]:
    if not signature.is_table:
        return {"type": "array"}
    columns = {entry["name"]: _column(entry["dtype"]) for entry in signature.inputs}
    record: dict[str, Any] = {"type": "object", "properties": columns, "required": [*columns]}
    lists = {name: {"type": "array", "items": column} for name, column in columns.items()}
    table = {"type": "object", "properties": lists, "required": [*columns]}
    return {"oneOf": [{"type": "array", "items": record}, record, table]}


def _column(dtype: str) -> dict[str, Any]:
    kind = dtype.lower().rstrip("0123456789")
    if dtype.startswith("datetime"):
        return {"type": ["string", "null"], "format": "date-time"}
    if kind in _TYPES:
        return {"type": ["number", "null"] if kind == "float" else _TYPES[kind]}
    return {"type": ["string", "null"]} if dtype in ("str", "string") else {}
