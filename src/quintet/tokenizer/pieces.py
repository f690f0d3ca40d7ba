"""What a token's spelling in the vocabulary stands for, as bytes."""

from __future__ import annotations

import re

SPACE_MARK = "\u2581"  # how SentencePiece and its heirs spell a space
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> dict[int, str]:
    """The 256 printable characters that GPT-2 spells bytes with, by byte.

    Printable Latin-1 stands for itself; the rest are shifted, in order, to U+0100 and on.
    Source: Radford et al. 2019, `bytes_to_unicode` in the GPT-2 release.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    shifted = iter(range(0x100, 0x200))
    return {byte: chr(byte if byte in printable else next(shifted)) for byte in range(256)}


def _byte_level_table() -> dict[int, int]:
    # Latin-1 characters outside the alphabet go where encoding to Latin-1 fails.
    table = dict.fromkeys(range(0x100), 0xFFFF)
    table.update({ord(char): byte for byte, char in byte_alphabet().items()})
    return table


_BYTE_LEVEL_TABLE = _byte_level_table()


def byte_level_bytes(text: str) -> bytes:
    """A byte-level BPE token; one spelled outside the alphabet stands for its own UTF-8."""
    try:
        return text.translate(_BYTE_LEVEL_TABLE).encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def sentencepiece_bytes(text: str) -> bytes:
    """A SentencePiece token: `<0xNN>` is one byte, U+2581 a space."""
    byte = _BYTE_PIECE.fullmatch(text)
    if byte is not None:
        return bytes([int(byte[1], 16)])
    return text.replace(SPACE_MARK, " ").encode()


def hash_word_piece_bytes(text: str, *, prefix: str = "##", cleanup: bool = True) -> bytes:
    """A WordPiece token of tokenizer.json: `##s` continues a word, others follow a space."""
    if text.startswith(prefix):
        return text[len(prefix) :].encode()
    return word_start_bytes(text, cleanup=cleanup)


def mark_word_piece_bytes(text: str) -> bytes:
    """A WordPiece token of a GGUF file: U+2581 starts a word, others continue one."""
    if text.startswith(SPACE_MARK):
        return word_start_bytes(text[len(SPACE_MARK) :])
    return text.encode()


def word_start_bytes(word: str, *, cleanup: bool = True) -> bytes:
    """A word after its space; with `cleanup` punctuation and contractions close up to the left.

    Source: the `cleanup` of the `tokenizers` WordPiece decoder, which works token by token.
    """
    if cleanup and word in _CLOSES_UP:
        return word.encode()
    return f" {word}".encode()


_CLOSES_UP = frozenset([".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"])
