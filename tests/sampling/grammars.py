"""What a grammar takes, asked of llguidance without a model: one token per byte."""

import functools

import llguidance


class _Bytes:
    is_tokenizer_wrapper = True
    tokens = [*(bytes([i]) for i in range(256)), b"<eos>"]  # noqa: RUF012 - never changed
    special_token_ids = (256,)
    bos_token_id = None
    eos_token_id = 256

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


@functools.cache
def _tokenizer() -> llguidance.LLTokenizer:
    return llguidance.LLTokenizer(_Bytes())


def takes(lark: str, text: str) -> bool:
    """Whether the whole text is one of the grammar's; the grammar must compile."""
    matcher = llguidance.LLMatcher(_tokenizer(), llguidance.LLMatcher.grammar_from_lark(lark))
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()
