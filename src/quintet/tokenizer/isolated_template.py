"""A chat template that is compiled and rendered in a helper process.

Same text as `ChatTemplate` in this process, bit for bit.  A template that loops, recurses or grows
beyond the limits ends its helper, and is an error of the one request that met it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quintet.errors import RequestError
from quintet.sandbox.helper import Limits
from quintet.sandbox.pool import Pool, Refused
from quintet.tokenizer.chat import plain_json


class IsolatedTemplate:
    """
    As `ChatTemplate`, but what is wrong with the source is found when it is first rendered.

    Args:
        source, bos_token, eos_token, tool_use: as for `ChatTemplate`.
        limits: of one rendering; the first one compiles as well.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        tool_use: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.source = source
        setup = {
            "source": source,
            "bos_token": bos_token,
            "eos_token": eos_token,
            "tool_use": tool_use,
        }
        self._pool = Pool("quintet.tokenizer.template_helper", setup, limits)

    def render(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """The conversation as text; see `ChatTemplate.render`.

        Raises:
            RequestError: also where rendering takes too long or too much memory.
            CapacityError: too many others wait for a template that takes long.
        """
        task = {**plain_json(options, "options"), "messages": plain_json(messages, "messages")}
        try:
            text = self._pool.run(task)
        except Refused as error:
            raise RequestError(f"the chat template {error.reason}", parameter="messages") from None
        if not isinstance(text, str):
            raise RequestError("the chat template gives no text", parameter="messages")
        return text

    def start(self) -> None:
        """Start a helper in the background, so that the first conversation need not wait."""
        self._pool.start()

    def close(self) -> None:
        """End the helpers.  Idempotent."""
        self._pool.close()
