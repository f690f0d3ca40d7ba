"""The OpenAPI document: every route, its body and the shape of its errors, from the code itself.

Bodies are pydantic's schemas of what the routes parse; the schema of an error is read off errors
made by the dialect's own writer.  What a good answer holds is not told here: each interface's own
reference does.

Source: OpenAPI Specification 3.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, Route

from quintet import __version__
from quintet.server.dialect import Dialect, Operation
from quintet.server.errors import ErrorReply

OPENAPI_VERSION: Final = "3.1.1"
PATH: Final = "/openapi.json"
_SCHEMAS: Final = "#/components/schemas/"
_JSON: Final = "application/json"
_KEYS: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}
_PARAMETER: Final = re.compile(r"\{(\w+)(?::(\w+))?\}")
_TYPES: Final = {str: "string", int: "integer", bool: "boolean", type(None): "null"}
# Between them every field of an error has each of its types.
_ERRORS: Final = (
    ErrorReply(400, "message", code="code", param="param"),
    ErrorReply(500, "message"),
)


def document(
    dialects: Sequence[Dialect], probes: Iterable[BaseRoute], *, has_keys: bool, open_paths: object
) -> dict[str, Any]:
    """
    The document of an app.

    Args:
        dialects: what it speaks.
        probes: its routes besides, which have no bodies.
        has_keys: whether it asks for one.
        open_paths: a container of the paths where it does not.
    """
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}
    for dialect in dialects:
        refs = _add_schemas(schemas, dialect)
        other_names = {path: alias for alias, path in dialect.aliases.items()}
        for route, method in _operations(dialect.routes):
            known = dialect.operations.get(f"{method} {route.path}", Operation())
            item = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
            if method.lower() in item:  # an earlier dialect's route wins, as in the router
                continue
            described = _operation(route, method, known, dialect, refs)
            if route.path in other_names:
                described["description"] = f"Also at {other_names[route.path]}."
            item[method.lower()] = described
    for route, method in _operations(probes):
        item = paths.setdefault(route.path, {})
        item[method.lower()] = {
            "operationId": _operation_id(method, route.path),
            "tags": ["server"],
            "responses": {"default": {"description": "The state of the server."}},
        }
    for path, item in paths.items():
        for described in item.values() if path in open_paths else ():  # type: ignore[operator]
            described["security"] = []
    found: dict[str, Any] = {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "Quintet", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if has_keys:
        found["components"]["securitySchemes"] = _KEYS
        found["security"] = [{name: []} for name in _KEYS]
    return found


def _operations(routes: Iterable[BaseRoute]) -> Iterable[tuple[Route, str]]:
    """Each method of each route; WebSockets have no place in the document."""
    for route in routes:
        if isinstance(route, Route):
            methods = set(route.methods or ())
            for method in sorted(methods - {"HEAD"} if "GET" in methods else methods):
                yield route, method


def _add_schemas(schemas: dict[str, Any], dialect: Dialect) -> Mapping[Any, Any]:
    """Add a dialect's bodies and its error under its name; references to the bodies."""
    bodies = {known.body for known in dialect.operations.values() if known.body is not None}
    keyed, definitions = models_json_schema(
        [(body, "validation") for body in sorted(bodies, key=lambda body: body.__name__)],
        ref_template=f"{_SCHEMAS}{dialect.name}.{{model}}",
    )
    for name, schema in definitions.get("$defs", {}).items():
        schemas[f"{dialect.name}.{name}"] = schema
    schemas[f"{dialect.name}.error"] = schema_of([dialect.error_body(e) for e in _ERRORS])
    return {body: schema for (body, _), schema in keyed.items()}


def schema_of(samples: Sequence[Any]) -> dict[str, Any]:
    """A schema that these values fit: their types, and the fields that all of them have."""
    if all(isinstance(sample, dict) for sample in samples):
        names = dict.fromkeys(name for sample in samples for name in sample)
        return {
            "type": "object",
            "required": [name for name in names if all(name in sample for sample in samples)],
            "properties": {
                name: schema_of([sample[name] for sample in samples if name in sample])
                for name in names
            },
        }
    types = sorted({_TYPES[type(sample)] for sample in samples})
    return {"type": types[0] if len(types) == 1 else types}


def _operation(
    route: Route, method: str, known: Operation, dialect: Dialect, refs: Mapping[Any, Any]
) -> dict[str, Any]:
    media_types = list(known.media_types)
    if known.body is not None and "stream" in known.body.model_fields:
        media_types.append(dialect.stream_type)
    good: dict[str, Any] = {"description": "As asked."}
    if media_types:
        good["content"] = {media_type: {} for media_type in media_types}
    error = {"schema": {"$ref": f"{_SCHEMAS}{dialect.name}.error"}}
    described: dict[str, Any] = {
        "operationId": _operation_id(method, route.path),
        "tags": [dialect.name],
        "responses": {
            **{str(status): good for status in known.statuses},
            # HTTP allows no body in an answer to HEAD (RFC 9110, section 9.3.2).
            "default": {"description": "An error."}
            | ({} if method == "HEAD" else {"content": {_JSON: error}}),
        },
    }
    if known.summary:
        described["summary"] = known.summary
    parameters = [
        {
            "name": match[1],
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0}
            if match[2] == "int"
            else {"type": "string", "minLength": 1},
        }
        for match in _PARAMETER.finditer(route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": dict(schema)}
        for name, schema in known.query.items()
    ]
    if parameters:
        described["parameters"] = parameters
    if known.body is not None:
        content: dict[str, Any] = {_JSON: {"schema": refs[known.body]}}
        described["requestBody"] = {"required": known.is_body_required, "content": content}
    elif known.raw_type is not None:
        described["requestBody"] = {"required": True, "content": {known.raw_type: {}}}
    return described


def _operation_id(method: str, path: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", _PARAMETER.sub(r"\1", path).lower()).strip("_")
    return f"{method.lower()}_{words or 'root'}"
