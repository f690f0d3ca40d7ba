"""Metadata of tiny vocabularies, one per kind."""

from __future__ import annotations

from typing import Any

from quintet.tokenizer.pieces import byte_alphabet

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
KEY = "tokenizer.ggml."


def metadata(model: str, tokens: list[tuple[str, int]], **keys: Any) -> dict[str, Any]:
    """Tokenizer metadata; `keys` without their prefix."""
    return {
        KEY + "model": model,
        KEY + "tokens": [text for text, _ in tokens],
        KEY + "token_type": [kind for _, kind in tokens],
        **{KEY + name: value for name, value in keys.items()},
    }


def byte_level(pre: str = "gpt-2", **keys: Any) -> dict[str, Any]:
    """256 bytes, a few merges, control tokens and one user-defined one."""
    return metadata(
        "gpt2",
        [
            *((char, NORMAL) for char in byte_alphabet().values()),
            *((text, NORMAL) for text in ("he", "ll", "hell", "hello", "\u0120hello")),
            *((text, CONTROL) for text in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")),
            ("<think>", USER_DEFINED),
        ],
        **{
            "pre": pre,
            "merges": ["h e", "l l", "he ll", "hell o", "\u0120 hello"],
            "bos_token_id": 263,
            "eos_token_id": 262,
            **keys,
        },
    )


def sentencepiece(**keys: Any) -> dict[str, Any]:
    """SentencePiece with byte fallback; `<s` makes the control token `<s>` spellable."""
    pieces = [("<unk>", UNKNOWN, 0.0), ("<s>", CONTROL, 0.0), ("</s>", CONTROL, 0.0)]
    pieces += [(f"<0x{byte:02X}>", BYTE, 0.0) for byte in range(256)]
    normal = ["\u2581", *"abcdefghijklmnopqrstuvwxyz<>/", "<s", "lo", "he", "hel", "\u2581hel"]
    normal += ["\u2581hello", "\u2581\u2581"]
    pieces += [(text, NORMAL, -1.0 - index) for index, text in enumerate(normal)]
    pieces.append(("<|im_end|>", CONTROL, 0.0))
    return metadata(
        "llama",
        [(text, kind) for text, kind, _ in pieces],
        scores=[score for _, _, score in pieces],
        **keys,
    )


def word_piece(**keys: Any) -> dict[str, Any]:
    """WordPiece as GGUF spells it: U+2581 starts a word."""
    tokens = [("[PAD]", CONTROL), ("[UNK]", CONTROL), ("[CLS]", CONTROL), ("[SEP]", CONTROL)]
    words = ["hello", "world", "un", "a", "b", "c", ".", ",", "!", "'", "s"]
    tokens += [("\u2581" + word, NORMAL) for word in words]
    tokens += [(piece, NORMAL) for piece in ("able", "ing", "a", "b", "c")]
    return metadata(
        "bert",
        tokens,
        **{
            "unknown_token_id": 1,
            "cls_token_id": 2,
            "seperator_token_id": 3,
            "padding_token_id": 0,
            **keys,
        },
    )


def unigram(**keys: Any) -> dict[str, Any]:
    """SentencePiece Unigram."""
    pieces = [("<pad>", CONTROL, 0.0), ("</s>", CONTROL, 0.0), ("<unk>", UNKNOWN, 0.0)]
    normal = [
        "\u2581",
        *"abcdehlorw",
        "ab",
        "abc",
        "bc",
        "\u2581hello",
        "\u2581wor",
        "ld",
        "\u2581a",
    ]
    pieces += [(text, NORMAL, -1.5 - 0.25 * (7 * i % 11)) for i, text in enumerate(normal)]
    return metadata(
        "t5",
        [(text, kind) for text, kind, _ in pieces],
        scores=[score for _, _, score in pieces],
        **keys,
    )
