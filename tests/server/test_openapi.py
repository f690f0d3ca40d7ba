"""The OpenAPI document, and what schemathesis makes of it: good and bad requests of every kind."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncGenerator, Iterator
from typing import Any
from unittest import mock

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import Route
from starlette.testclient import TestClient

from quintet import AsyncLLM
from quintet.engine.output import OutputChunk
from quintet.hub.download import Retries
from quintet.hub.manifest import Manifest
from quintet.hub.pull import pull
from quintet.hub.store import Store
from quintet.sampling.params import SamplingParams
from quintet.server.app import create_app
from quintet.server.keys import ApiKey
from quintet.server.models import LoadPolicy, Models
from quintet.server.settings import Settings

from .harness import serving_in_thread

NUM_EXAMPLES = 20  # of good and of bad requests each; twice that where there are no bad ones
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    status_code_conformance,
    response_schema_conformance,
]
# Their names stay as they come: the others are of the model there is.
MANAGEMENT = {f"POST /api/{verb}" for verb in ("pull", "push", "create", "copy")}
# These answer 501, for they are not supported, or 502, for there is no hub.
REFUSED = {f"POST {path}" for path in ("/props", "/slots/{index}", "/infill")} | {
    f"POST /api/{verb}" for verb in ("push", "pull")
}


def described(**options: Any) -> dict[str, Any]:
    """The document of an app under these settings."""
    app = create_app(Models.of({}), Settings(**options))
    return TestClient(app, base_url="http://localhost").get("/openapi.json").json()


SCHEMA = schemathesis.openapi.from_dict(described())
OPERATIONS = {result.ok().label: result.ok() for result in SCHEMA.get_all_operations()}


def has_json(label: str) -> bool:
    return any(body.media_type == "application/json" for body in OPERATIONS[label].body)


class Brisk(AsyncLLM):
    """The demo model, which says no more than four tokens."""

    def stream(
        self, prompt: Any, params: SamplingParams | None = None, **options: Any
    ) -> AsyncGenerator[OutputChunk, None]:
        return super().stream(prompt, brief(params), **options)

    def stream_chat(
        self, messages: Any, params: SamplingParams | None = None, **options: Any
    ) -> AsyncGenerator[OutputChunk, None]:
        return super().stream_chat(messages, brief(params), **options)


def brief(params: SamplingParams | None) -> SamplingParams:
    params = params or SamplingParams()
    return dataclasses.replace(
        params, max_tokens=min(params.max_tokens or 4, 4), min_tokens=min(params.min_tokens, 4)
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server over a store in a directory of its own; the hub cannot be reached."""
    root = tmp_path_factory.mktemp("store")

    async def load(manifest: Manifest) -> AsyncLLM:
        return await Brisk(manifest.name, num_threads=1).__aenter__()

    with (
        mock.patch.dict(os.environ, QUINTET_HOME=str(root), HF_ENDPOINT="http://127.0.0.1:9"),
        mock.patch.dict(pull.__kwdefaults__, retries=Retries(max_failures=0)),
        serving_in_thread(Models(Store(root), load, LoadPolicy())) as address,
    ):
        yield address


def test_the_document_is_valid():
    """By OpenAPI's own schema."""
    assert SCHEMA.raw_schema["openapi"].startswith("3.1.")
    SCHEMA.validate()


@pytest.mark.parametrize("dialect", ["quintet", "nano", "densecore", "woolly", "llamacpp"])
def test_every_route_is_in_the_document(dialect: str):
    """With its methods; whatever takes a body says which."""
    document = described(dialect=dialect)
    schemathesis.openapi.from_dict(document).validate()
    app = create_app(Models.of({}), Settings(dialect=dialect))
    bodiless = {"/props", "/slots/{index}", "/v1/responses/{id}/cancel"}
    for route in app.routes:
        if not isinstance(route, Route) or route.path == "/openapi.json":
            continue
        path = route.path.replace(":path}", "}").replace(":int}", "}")
        for method in (route.methods or set()) - {"HEAD"}:
            operation = document["paths"][path][method.lower()]
            has_body = method == "POST" and path not in bodiless
            assert ("requestBody" in operation) == (has_body or path == "/api/delete")


def test_keys_are_told_where_they_are_asked_for():
    """And not on the open paths; the document itself is behind the key."""
    digests = (ApiKey.of("secret"),)
    app = create_app(Models.of({}), Settings(keys=digests))
    client = TestClient(app, base_url="http://localhost")
    assert client.get("/openapi.json").status_code == 401
    document = client.get("/openapi.json", headers={"X-Api-Key": "secret"}).json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert document["paths"]["/health"]["get"]["security"] == []
    assert "security" not in document["paths"]["/v1/models"]["get"]
    assert "security" not in described()


@pytest.mark.parametrize(
    ("label", "mode"),
    [(label, GenerationMode.POSITIVE) for label in OPERATIONS]
    + [(label, GenerationMode.NEGATIVE) for label in OPERATIONS if has_json(label)],
    ids=lambda value: value if isinstance(value, str) else value.name.lower(),
)
def test_no_request_breaks_the_server(label: str, mode: GenerationMode, url: str):
    """Never a 5xx but where that is the answer, always a documented form; a bad body is refused."""
    operation = OPERATIONS[label]
    session = requests.Session()

    @settings(
        max_examples=NUM_EXAMPLES if has_json(label) else 2 * NUM_EXAMPLES,
        phases=[Phase.generate],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def exchange(case: schemathesis.Case) -> None:
        if label not in MANAGEMENT and isinstance(case.body, dict) and case.body.get("model"):
            case.body = {**case.body, "model": "demo"}
        response = case.call(base_url=url, session=session, timeout=20)
        checks = CHECKS[label in REFUSED :]
        if mode is GenerationMode.NEGATIVE:
            checks = [*checks, negative_data_rejection]
        case.validate_response(response, checks=checks)

    exchange()
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
