"""Token ids to text, one at a time.

Tokens are bytes; a character may span several.  Text goes out as soon as its bytes are certain
and never before, so no reader ever sees half a character.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quintet.tokenizer.tokenizer import Tokenizer

_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """The text of one growing sequence; constant work per token.

    The pushes and the flush together are exactly `tokenizer.decode(ids)`.

    Args:
        tokenizer: whose ids these are.
        skip_special: leave control tokens out of the text.
        visible_ids: control tokens that stay in the text even so.
        prompt_ids: what the sequence continues.  After a prompt that has text, a leading space
            is part of the answer; at the start of a text SentencePiece's is not.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special: bool = True,
        visible_ids: frozenset[int] = frozenset(),
        prompt_ids: Sequence[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._visible_ids = visible_ids
        self._decoder = _utf8_decoder(errors="replace")
        self._is_at_start = tokenizer.drops_leading_space and not any(
            self._visible_bytes(token_id) for token_id in prompt_ids
        )

    def push(self, token_id: int) -> str:
        """The text that this token makes certain, perhaps none.

        Raises:
            IndexError: no such token.
        """
        data = self._visible_bytes(token_id)
        if self._is_at_start and data:
            self._is_at_start = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: an unfinished character becomes U+FFFD."""
        return self._decoder.decode(b"", True)

    def _visible_bytes(self, token_id: int) -> bytes:
        is_hidden = self._skip_special and token_id not in self._visible_ids
        if is_hidden and self._tokenizer.is_special(token_id):
            return b""
        return self._tokenizer.token_bytes(token_id)
