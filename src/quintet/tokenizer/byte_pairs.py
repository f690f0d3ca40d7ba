"""Byte-level byte pair encoding: the `tokenizers` library cuts the text, native code merges.

The library's own model makes a `str` of every token and every half of a merge, and two hash maps
of them: a third of a second for 150,000 tokens.  The native one reads them where they lie.

What a piece becomes: Sennrich et al. 2016, arXiv:1508.07909, with the bytes of Radford et al.
2019; as `tokenizers` does it where these leave a choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from quintet import _native
from quintet.errors import ModelFormatError
from quintet.formats.string_array import StringArray
from quintet.tokenizer.pieces import byte_alphabet
from quintet.tokenizer.vocabulary import CONTROL_KINDS, PREFIX, halves


class BytePairs:
    """A vocabulary with its merges.  Immutable.

    Args:
        tokens: spelled in the byte alphabet, all different.
        merges: each two tokens with a space between, best first.
        cutter: cuts a text into the pieces that no merge crosses.
        ignores_merges: a whole piece that is a token is taken as it stands.

    Raises:
        ModelFormatError: a merge that is not two tokens whose join is a third.
    """

    def __init__(
        self,
        tokens: StringArray,
        merges: StringArray,
        cutter: pre_tokenizers.PreTokenizer,
        *,
        ignores_merges: bool,
    ) -> None:
        alphabet = list(byte_alphabet().values())
        self._native = _native.BytePairs(tokens.finder, *merges.encoded, alphabet)
        bad = self._native.first_bad_merge()
        if bad >= 0:
            left, right = halves(merges[bad])
            raise ModelFormatError(
                f"expected two tokens that join into a third, found {left!r} and {right!r}"
                f" at {bad}",
                part=PREFIX + "merges",
            )
        self._cutter = cutter
        self._ignores_merges = ignores_merges

    def makes(self, token_id: int) -> bool:
        """Whether some merge results in this token."""
        return self._native.makes(token_id)

    def matcher(
        self,
        kinds: bytes,
        added: Sequence[tuple[tokenizers.AddedToken, int]],
        *,
        parse_special: bool,
    ) -> BytePairMatcher:
        """
        What encodes texts.

        Args:
            kinds: TokenKind by token id.
            added: tokens cut out of the text beforehand, with their ids.
            parse_special: these may be control tokens; otherwise no text gives one.
        """
        # Its one word stands for every piece; added tokens are numbered from 1 on.
        piece = "\U000f0000"
        cutter = tokenizers.Tokenizer(models.WordLevel({piece: 0}, unk_token=piece))
        cutter.pre_tokenizer = self._cutter
        cutter.add_tokens([token for token, _ in added])
        cutter.encode_special_tokens = not parse_special
        by_number = {cutter.token_to_id(token.content): token_id for token, token_id in added}
        hidden = b""
        if not parse_special:
            is_control = np.isin(np.frombuffer(kinds, np.uint8), list(CONTROL_KINDS))
            hidden = is_control.tobytes()
        return BytePairMatcher(
            self._native,
            cutter,
            [by_number[number] for number in range(1, len(by_number) + 1)],
            is_hidden=hidden,
            ignores_merges=self._ignores_merges,
        )


class BytePairMatcher:
    """Encodes texts.  Immutable and safe to share between threads; see `BytePairs.matcher`."""

    def __init__(
        self,
        pairs: _native.BytePairs,
        cutter: tokenizers.Tokenizer,
        known: list[int],
        *,
        is_hidden: bytes,
        ignores_merges: bool,
    ) -> None:
        self._pairs = pairs
        self._cutter = cutter
        self._known = known
        self._is_hidden = is_hidden
        self._ignores_merges = ignores_merges

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        # As a batch, since only that releases the GIL.
        cut = self._cutter.encode_batch([text], add_special_tokens=False)[0]
        return self._pairs.encode(
            text,
            cut.ids,
            cut.offsets,
            known=self._known,
            ignores_merges=self._ignores_merges,
            is_hidden=self._is_hidden,
        )
