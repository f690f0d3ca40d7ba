"""Which tokens end a generation.

Files name one end-of-sequence token, chat models end turns with another; both stop the model.
The rest is known by spelling only.  Source of the spellings: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MORE_END_KEYS = ("eot", "eom")  # of GGUF, for what ends an answer besides eos

SPELLINGS = frozenset(
    [
        # The end of a turn, a message or a text.
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|calls|>"),
        *("<|flush|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>"),
        *("[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>"),
        *("<|tool_response>", "[e~[", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
        # A code model that writes one of these has gone on to the next file.
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
        *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"),
    ]
)


def end_of_generation_ids(
    ids: Mapping[str, int], named: Iterable[int | None], plain_words: Iterable[str] = ()
) -> frozenset[int]:
    """Every token id after which generation stops.

    Args:
        ids: token id by spelling.
        named: ids the file names itself (eos, eot, eom, ...); None is skipped.
        plain_words: spellings that ordinary text can produce in this vocabulary.  Qwen2 has
            `</s>` among its merges, where it is HTML and must not end an answer.
    """
    skipped = set(plain_words)
    if {"<|return|>", "<|call|>"} <= ids.keys() or {"<|flush|>", "<|calls|>"} <= ids.keys():
        skipped.add("<|end|>")  # ends a message there (gpt-oss, Solar), not the answer
    if "<|tool_response>" in ids:
        skipped.add("</s>")  # Gemma 4 and PaddleOCR carry it unused
    found = {ids[text] for text in SPELLINGS - skipped if text in ids}
    found.update(token_id for token_id in named if token_id is not None)
    return frozenset(found)
