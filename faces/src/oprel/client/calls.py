"""The calls of Ollama's interface as values: what to send, and what the answer is.

`Client` and `AsyncClient` send them, one with and one without waiting.

Source: ollama/ollama, docs/api.md; ollama/ollama-python, ollama/_client.py (names and defaults).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oprel.aliases import download_name, users_alias
from oprel.core.exceptions import BackendError, OprelError, ValidationError, from_status
from oprel.responses import (
    ChatResponse,
    EmbeddingsResponse,
    EmbedResponse,
    GenerateResponse,
    ListResponse,
    ProcessResponse,
    ProgressResponse,
    Record,
    ShowResponse,
    StatusResponse,
)
from quintet.hub.files import default_root

# Loading a model may take long before the first byte of an answer; finding nobody may not.
CONNECT_TIMEOUT_S = 10.0
# What Oprel calls options that Ollama has other names for.
_OPTIONS = {"max_tokens": "num_predict", "repetition_penalty": "repeat_penalty"}


@dataclass(frozen=True)
class Call:
    """
    One request.

    Args:
        method, path, body: what is sent.
        answer: what comes back, or each line of it.
        is_streamed: the answer comes line by line.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None
    answer: type[Record]
    is_streamed: bool = False


def chat(model: str, messages: Sequence[Any] | None, stream: bool, **fields: Any) -> Call:
    """POST /api/chat."""
    converted = [_message(message) for message in messages or ()]
    body = {"model": model, "messages": converted, "stream": stream, **_fields(fields)}
    return Call("POST", "/api/chat", body, ChatResponse, stream)


def generate(model: str, prompt: str, stream: bool, **fields: Any) -> Call:
    """POST /api/generate."""
    images = fields.pop("images", None)
    fields["images"] = None if images is None else [_image(image) for image in images]
    body = {"model": model, "prompt": prompt, "stream": stream, **_fields(fields)}
    return Call("POST", "/api/generate", body, GenerateResponse, stream)


def embed(model: str, input: str | Sequence[str], **fields: Any) -> Call:
    """POST /api/embed."""
    body = {"model": model, "input": input, **_fields(fields)}
    return Call("POST", "/api/embed", body, EmbedResponse)


def embeddings(model: str, prompt: str, **fields: Any) -> Call:
    """POST /api/embeddings."""
    body = {"model": model, "prompt": prompt, **_fields(fields)}
    return Call("POST", "/api/embeddings", body, EmbeddingsResponse)


def list_models() -> Call:
    """GET /api/tags."""
    return Call("GET", "/api/tags", None, ListResponse)


def ps() -> Call:
    """GET /api/ps."""
    return Call("GET", "/api/ps", None, ProcessResponse)


def show(model: str) -> Call:
    """POST /api/show."""
    return Call("POST", "/api/show", {"model": model}, ShowResponse)


def pull(model: str, stream: bool) -> Call:
    """POST /api/pull."""
    name = users_alias(model, default_root())
    body = {"model": download_name(name), "stream": stream}
    return Call("POST", "/api/pull", body, ProgressResponse, stream)


def create(model: str, modelfile: str | None, stream: bool, fields: Mapping[str, Any]) -> Call:
    """
    POST /api/create.

    Args:
        modelfile: its text, or its path.
        fields: what Ollama's client sends instead of one, or beside it: `from`, `system`...

    Raises:
        ValidationError: the Modelfile is none.
    """
    read = {} if modelfile is None else _modelfile_fields(modelfile)
    body = {"model": model, "stream": stream, **read, **_fields(fields)}
    return Call("POST", "/api/create", body, ProgressResponse, stream)


def delete(model: str) -> Call:
    """DELETE /api/delete."""
    name = users_alias(model, default_root())
    return Call("DELETE", "/api/delete", {"model": name}, StatusResponse)


def copy(source: str, destination: str) -> Call:
    """POST /api/copy."""
    body = {"source": source, "destination": destination}
    return Call("POST", "/api/copy", body, StatusResponse)


def read_answer(call: Call, status: int, data: bytes) -> Any:
    """
    The answer as its class.

    Raises:
        OprelError: it is an error, or no JSON object.
    """
    if status >= 400:
        raise read_error(status, data)
    if not data and call.answer is StatusResponse:
        return StatusResponse(status="success")
    return read_line(call, data)


def read_line(call: Call, data: bytes | str) -> Any:
    """
    A line of a streamed answer, or a whole one.

    Raises:
        OprelError: it is an error, or no JSON object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BackendError(f"expected a JSON object from {call.path}, found {data[:80]!r}")
    if isinstance(value.get("error"), str):
        raise from_status(500, value["error"])
    return call.answer(value)


def read_error(status: int, data: bytes) -> OprelError:
    """The error of an answer that is one, in whichever dialect."""
    try:
        error = json.loads(data)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        text = data[:200].decode(errors="replace") or f"status {status}"
    return from_status(status, str(text))


def _fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, under Ollama's names."""
    given = {name: value for name, value in fields.items() if value is not None}
    if isinstance(given.get("options"), Mapping):
        options = given["options"]
        given["options"] = {_OPTIONS.get(name, name): value for name, value in options.items()}
    if "from_" in given:
        given["from"] = given.pop("from_")
    if isinstance(given.get("tools"), Sequence):
        given["tools"] = [_tool(tool) for tool in given["tools"]]
    return given


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        dump = getattr(message, "model_dump", None)
        if dump is None:
            raise ValidationError(f"messages: expected role and content, found {message!r:.80}")
        message = dump(exclude_none=True)
    converted = {name: value for name, value in message.items() if value is not None}
    if converted.get("images"):
        converted["images"] = [_image(image) for image in converted["images"]]
    return converted


def _image(image: Any) -> str:
    """An image as base64: from bytes, from a file, or as it is."""
    if isinstance(image, bytes):
        return base64.b64encode(image).decode()
    if isinstance(image, os.PathLike) or (len(image) < 4096 and Path(image).is_file()):
        return base64.b64encode(Path(image).read_bytes()).decode()
    return str(image)


def _tool(tool: Any) -> Any:
    """A tool as a JSON schema; of a function of Python's, by its signature."""
    if not callable(tool):
        return tool.model_dump(exclude_none=True) if hasattr(tool, "model_dump") else tool
    import inspect

    kinds = {"int": "integer", "float": "number", "bool": "boolean", "list": "array"}
    kinds |= {"dict": "object"}
    parameters = inspect.signature(tool).parameters
    properties = {}
    for name, parameter in parameters.items():
        annotation = parameter.annotation
        kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "str")
        properties[name] = {"type": kinds.get(kind, "string")}
    required = [n for n, parameter in parameters.items() if parameter.default is parameter.empty]
    schema = {"type": "object", "properties": properties, "required": required}
    description = inspect.getdoc(tool) or ""
    function = {"name": tool.__name__, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


def _modelfile_fields(text: str) -> dict[str, Any]:
    """A Modelfile as the fields of the body."""
    from quintet.errors import RequestError
    from quintet.hub.modelfile import parse_modelfile

    if "\n" not in text and len(text) < 4096 and Path(text).is_file():
        text = Path(text).read_text()
    try:
        modelfile = parse_modelfile(text)
    except RequestError as error:
        raise ValidationError(str(error)) from error
    fields: dict[str, Any] = {
        "from": modelfile.base,
        "template": modelfile.template,
        "system": modelfile.system,
        "parameters": dict(modelfile.parameters) or None,
        "messages": [dict(message) for message in modelfile.messages] or None,
        "license": modelfile.license,
    }
    return {name: value for name, value in fields.items() if value is not None}
