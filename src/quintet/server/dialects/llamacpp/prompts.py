"""Prompts: texts, token ids, lists that mix both, and the frame around a gap to fill."""

from __future__ import annotations

from typing import Any

from quintet.errors import RequestError
from quintet.server.dialects.llamacpp.bodies import MAX_PROMPTS, InfillBody
from quintet.server.engines import ServedTokenizer
from quintet.server.errors import HTTPRefusal

# Spellings of (prefix, suffix, middle): Qwen 2.5 Coder and StarCoder 2 with and without bars,
# CodeLlama, DeepSeek Coder, CodeGemma (as Qwen), Granite (as StarCoder), Codestral has no middle.
_FIM_MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001 - how they are spelt
)
_REPO_MARKS = ("<|repo_name|>", "<repo_name>", "<reponame>")
_FILE_MARKS = ("<|file_sep|>", "<file_sep>")


def prompts(value: str | list[Any], tokenizer: ServedTokenizer) -> list[list[int]]:
    """Token ids of each prompt of a body.

    A string, or a list of ids and strings, is one prompt; a list that holds lists or only
    strings is several; an object counts by its `prompt_string`.

    Raises:
        RequestError: anything else, or too many.
    """
    if isinstance(value, str):
        return [_mixed([value], tokenizer)]
    if not value:
        raise RequestError("expected at least one prompt", parameter="prompt")
    is_several = all(isinstance(item, str) for item in value) or any(
        isinstance(item, (list, dict)) for item in value
    )
    if not is_several:
        return [_mixed(value, tokenizer)]
    if len(value) > MAX_PROMPTS:
        raise RequestError(
            f"expected at most {MAX_PROMPTS} prompts, found {len(value)}", parameter="prompt"
        )
    return [_one(item, tokenizer) for item in value]


def infill_prompt(body: InfillBody, tokenizer: ServedTokenizer) -> list[int]:
    """Prefix, suffix, and the mark after which the model writes what belongs between them.

    Other files come first: under the repository's marks where the vocabulary has them.

    Raises:
        HTTPRefusal: 501, the model has no marks for this.
    """
    marks = [[tokenizer.token_to_id(mark) for mark in marks] for marks in _FIM_MARKS]
    found = next((ids for ids in marks if None not in ids), None)
    if found is None:
        raise HTTPRefusal(
            501,
            "this model does not support infill: its vocabulary has no fill-in-the-middle tokens",
            code="not_supported",
        )
    prefix_id, suffix_id, middle_id = (token_id for token_id in found if token_id is not None)

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special=False)

    return [
        *_bos(tokenizer),
        *_extra(body, tokenizer),
        prefix_id,
        *ids(body.input_prefix),
        *ids(body.prompt),
        suffix_id,
        *ids(body.input_suffix),
        middle_id,
    ]


def _extra(body: InfillBody, tokenizer: ServedTokenizer) -> list[int]:
    repo = _first_id(_REPO_MARKS, tokenizer)
    separator = _first_id(_FILE_MARKS, tokenizer)
    token_ids: list[int] = []
    if body.input_extra and repo is not None and separator is not None:
        token_ids += [repo, *tokenizer.encode("project\n", add_special=False)]
    for file in body.input_extra:
        if separator is not None:
            head = [separator, *tokenizer.encode(f"{file.filename}\n", add_special=False)]
        else:
            head = tokenizer.encode("\n\n--- snippet ---\n\n", add_special=False)
        token_ids += [*head, *tokenizer.encode(file.text, add_special=False)]
    if token_ids and separator is not None:
        token_ids += [separator, *tokenizer.encode("filename\n", add_special=False)]
    return token_ids


def _first_id(marks: tuple[str, ...], tokenizer: ServedTokenizer) -> int | None:
    ids = (tokenizer.token_to_id(mark) for mark in marks)
    return next((token_id for token_id in ids if token_id is not None), None)


def _bos(tokenizer: ServedTokenizer) -> list[int]:
    """What the vocabulary puts before every text."""
    empty = tokenizer.encode("", add_special=True)
    return empty[:1] if empty and tokenizer.is_special(empty[0]) else []


def _one(item: Any, tokenizer: ServedTokenizer) -> list[int]:
    if isinstance(item, dict):
        if item.get("multimodal_data"):
            raise RequestError("expected text only: images are not supported", parameter="prompt")
        item = item.get("prompt_string")
    if isinstance(item, str):
        return _mixed([item], tokenizer)
    if isinstance(item, list):
        return _mixed(item, tokenizer)
    raise _refusal()


def _mixed(parts: list[Any], tokenizer: ServedTokenizer) -> list[int]:
    """Ids as they are; texts encoded, the first part with what stands before every text."""
    token_ids: list[int] = []
    for index, part in enumerate(parts):
        if isinstance(part, str):
            token_ids += tokenizer.encode(part, add_special=index == 0, parse_special=True)
        elif isinstance(part, int) and not isinstance(part, bool) and 0 <= part < 2**31:
            token_ids.append(part)
        else:
            raise _refusal()
    return token_ids


def _refusal() -> RequestError:
    return RequestError(
        "expected a string, a list of token ids and strings, or a list of such prompts",
        parameter="prompt",
    )
