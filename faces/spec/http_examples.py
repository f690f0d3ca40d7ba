"""JSON blocks of an HTTP interface: requests are sent, responses compared in their shape."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

from spec.blocks import Block
from spec.outcome import Verdict, checked, not_run, ran

_ENDPOINT = re.compile(r"(GET|POST|PUT|DELETE) (/\S*)")


class HTTPExamples:
    """
    Sends requests as their blocks come, and compares the response blocks that follow.

    Args:
        base_url: of a running server.
    """

    def __init__(self, base_url: str) -> None:
        self._client = httpx.Client(base_url=base_url, timeout=30)
        self._latest: tuple[str, httpx.Response] | None = None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def check(self, block: Block) -> Verdict:
        """Send or compare a JSON block under a heading such as "POST /v1/completions"."""
        endpoint = _ENDPOINT.fullmatch(block.headings[-1])
        if endpoint is None:
            return not_run("it stands under no endpoint")
        method, path = endpoint.groups()
        content = json.loads(block.text.replace("{...}", "{}").replace(", ...]", "]"))
        if "request" in block.label.lower():
            self._latest = path, self._client.request(method, path, json=content)
            return ran(_failure(self._latest[1]))
        settle = checked
        if self._latest is None or self._latest[0] != path:
            self._latest, settle = (path, self._client.request(method, path)), ran
        response = self._latest[1]
        return settle(_failure(response) or json_mismatches(content, response.json()))


def _failure(response: httpx.Response) -> list[str]:
    return [] if response.is_success else [f"{response.status_code}: {response.text}"]


def json_mismatches(expected: Any, actual: Any, where: str = "$") -> list[str]:
    """What an example has that an answer has not: keys, and types of values."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        missing = [f"{where}.{key} is missing" for key in expected if key not in actual]
        return missing + [
            error
            for key, value in expected.items()
            if key in actual
            for error in json_mismatches(value, actual[key], f"{where}.{key}")
        ]
    if isinstance(expected, list) and isinstance(actual, list):
        if not expected:
            return []
        return [
            error
            for index, value in enumerate(actual)
            for error in json_mismatches(expected[0], value, f"{where}[{index}]")
        ]
    if isinstance(expected, bool) or not isinstance(expected, int | float):
        same = type(expected) is type(actual)
    else:
        same = isinstance(actual, int | float) and not isinstance(actual, bool)
    return [] if same else [f"{where}: expected {expected!r}, found {actual!r}"]
