"""Tools of a response: which of them are offered to the model, and under what names.

Source: OpenAI API reference, "Create a model response", tools: function and namespace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from quintet.errors import RequestError
from quintet.server.dialects.openai.responses.bodies import FunctionTool


class OfferedTools:
    """
    Functions, alone or in a namespace, as agents group those of an MCP server.

    Agents such as Codex list tools that only OpenAI runs (web_search, image_generation...) with
    their own in every request, and can do without: these are left out.

    Args:
        tools: of the body.

    Raises:
        RequestError: a function or a namespace without a name.
    """

    def __init__(self, tools: Sequence[FunctionTool] | None) -> None:
        self._sent = [
            (tool, f"tools.{index}")
            for index, tool in enumerate(tools or ())
            if tool.type in ("function", "namespace")
        ]
        self._origins: dict[str, tuple[str | None, str]] = {}
        self._functions: list[dict[str, Any]] = []
        for namespace, tool in self._flat():
            name = tool.name or ""
            # Models know names alone; a name that is taken gets its namespace before it.
            shown = name if name not in self._origins else f"{namespace}.{name}"
            if shown in self._origins:
                continue
            self._origins[shown] = namespace, name
            rest = tool.model_dump(include={"description", "parameters"}, exclude_none=True)
            self._functions.append({"type": "function", "function": {"name": shown, **rest}})

    @property
    def chat_tools(self) -> list[dict[str, Any]] | None:
        """In the shape of chat completions; None where there are none."""
        return self._functions or None

    @property
    def echoed(self) -> list[dict[str, Any]]:
        """As they are told in the response: those that were left out are missing."""
        return [
            {"parameters": None, "strict": None, **tool.model_dump(exclude_none=True)}
            if tool.type == "function"
            else {
                **tool.model_dump(include={"type", "name", "description"}),
                "tools": [inner.model_dump(exclude_none=True) for inner in _inner(tool)],
            }
            for tool, _ in self._sent
        ]

    def origin(self, shown: str) -> tuple[str | None, str]:
        """Namespace and name of a function that the model calls by this name."""
        return self._origins.get(shown, (None, shown))

    def shown(self, namespace: str | None, name: str) -> str:
        """What the model knows it by."""
        for shown, origin in self._origins.items():
            if origin == (namespace, name):
                return shown
        return name

    def _flat(self) -> Iterator[tuple[str | None, FunctionTool]]:
        for tool, where in self._sent:
            if tool.name is None:
                raise RequestError("expected a name", parameter=where)
            if tool.type == "function":
                yield None, tool
                continue
            for inner in _inner(tool):
                if inner.name is None:
                    raise RequestError("expected functions with a name", parameter=where)
                yield tool.name, inner


def _inner(namespace: FunctionTool) -> list[FunctionTool]:
    return [tool for tool in namespace.tools or () if tool.type == "function"]
