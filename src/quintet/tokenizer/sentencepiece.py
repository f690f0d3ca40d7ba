"""SentencePiece BPE by scores, as ranked merges.

SentencePiece joins the neighbours whose joint spelling has the highest score.  The `tokenizers`
model joins the pair of the lowest rank: giving every pair that spells a token the rank of that
token's score makes the two agree, except that equal scores go by token id instead of leftmost.

Source: sentencepiece, src/bpe_model.cc; llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from quintet.errors import ModelFormatError
from quintet.tokenizer.pieces import SPACE_MARK
from quintet.tokenizer.vocabulary import PREFIX, TokenKind, Vocabulary

# SentencePiece's own limit is 16 by default; every split of a token is tried.
_MAX_PIECE_LENGTH = 512
_MERGED_KINDS = frozenset([TokenKind.NORMAL, TokenKind.UNUSED])


def merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every pair of tokens that spells a third one, best first.

    Tokens that text must not produce (control, unknown, byte) and those cut out beforehand
    (user-defined) are neither halves nor wholes.

    Raises:
        ModelFormatError: a normal token longer than 512 characters.
    """
    scores = vocabulary.scores()
    pieces = _pieces(vocabulary)
    merges: list[tuple[str, str]] = []
    for token in sorted(pieces, key=lambda piece: (-scores[pieces[piece]], pieces[piece])):
        if len(token) > _MAX_PIECE_LENGTH:
            raise ModelFormatError(
                f"expected tokens of at most {_MAX_PIECE_LENGTH} characters, found {len(token)}",
                part=PREFIX + "tokens",
            )
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in pieces and right in pieces:
                merges.append((left, right))
    return merges


def pieces_stay_within_words(vocabulary: Vocabulary) -> bool:
    """Whether no merge reaches from a word into the space after it.

    Then a text may be cut before every run of spaces without changing a token.
    """
    pieces = _pieces(vocabulary)
    return SPACE_MARK in pieces and not any(
        SPACE_MARK in piece.lstrip(SPACE_MARK) for piece in pieces
    )


def _pieces(vocabulary: Vocabulary) -> dict[str, int]:
    """The tokens that merges are made of, with their ids."""
    return {
        token: token_id
        for token_id, token in enumerate(vocabulary.tokens)
        if vocabulary.kinds[token_id] in _MERGED_KINDS
    }
