"""Documentation of responses: errors, and an example of every JSON body.

Examples are computed from the schemas: from `examples` of fields, then defaults, then placeholders. So they cannot
contradict the classes. Not here: what fields mean (core.schemas).
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from typing_extensions import override

from api.errors import error_type
from core.schemas.problems import ErrorReply

Responses = dict[int | str, dict[str, Any]]
"""The type of FastAPI's `responses`."""
Json = dict[str, Any]

_ERRORS: dict[int, tuple[str, str, str]] = {
    400: ("The request cannot be processed as it is", "invalid_parameter", "name: at most 200 printable characters."),
    401: ("No valid API key", "invalid_api_key", "This API key is not valid."),
    403: ("The key lacks a right, or the gate withholds the file", "missing_right", "The key lacks this right."),
    404: ("Not found", "not_found", "There is no such job."),
    409: ("The job is in the wrong state", "job_not_finished", "The job is running: it has no files yet."),
    413: ("Too large", "too_large", "The request is larger than 1048576 bytes, the limit of this server."),
    416: ("The range begins after the end of the file", "range_not_satisfiable", "The file has 614400 bytes."),
    422: ("A field is missing, unknown or invalid", "invalid_parameter", "strategy.ratio: Input should be at most 1"),
    503: ("A part of the service is unavailable; try again", "database_unavailable", "The database cannot be reached."),
    507: ("The disk of the server is full", "storage_full", "The server's disk is full. Nothing was stored."),
}
_PLACEHOLDERS: dict[str, object] = {"string": "string", "integer": 1, "number": 0.5, "boolean": False, "array": []}


def errors(*statuses: int) -> Responses:
    """Documentation of error responses."""
    found: Responses = {}
    for status in statuses:
        description, code, message = _ERRORS[status]
        error = {"message": message, "type": error_type(status), "param": None, "code": code}
        content = {"application/json": {"example": {"error": error}}}
        found[status] = {"model": ErrorReply, "description": description, "content": content}
    return found


class DocumentedApp(FastAPI):
    """An app whose OpenAPI document has an example of every JSON body."""

    @override
    def openapi(self) -> Json:
        if self.openapi_schema is None:
            document = super().openapi()
            for body in _bodies(document):
                if "example" not in body and "examples" not in body:
                    body["example"] = sample(body["schema"], document["components"]["schemas"])
        return self.openapi_schema or {}


def _bodies(document: Json) -> Iterator[Json]:
    for path in document["paths"].values():
        for operation in path.values():
            for owner in (operation.get("requestBody", {}), *operation["responses"].values()):
                for body in owner.get("content", {}).values():
                    if body.get("schema", {}).get("format") != "binary":
                        yield body


def sample(schema: Json, schemas: Json) -> object:
    """An example of a JSON schema; `schemas` are the components that it refers to."""
    found: object
    match schema:
        case {"examples": [first, *_]} | {"const": first} | {"default": first} | {"enum": [first, *_]}:
            found = first
        case {"$ref": str(ref)}:
            found = sample(schemas[ref.rpartition("/")[2]], schemas)
        case {"anyOf": [first, *_]} | {"oneOf": [first, *_]} | {"allOf": [first, *_]}:
            found = sample(first, schemas)
        case {"type": "object"}:
            found = {name: sample(each, schemas) for name, each in schema.get("properties", {}).items()}
        case {"type": "array", "items": items}:
            found = [sample(items, schemas)]
        case {"type": "array", "prefixItems": items}:
            found = [sample(each, schemas) for each in items]
        case {"type": "string", "format": "date-time"}:
            found = "2026-03-02T09:30:00Z"
        case _:
            found = _PLACEHOLDERS.get(schema.get("type", ""))
    return found
