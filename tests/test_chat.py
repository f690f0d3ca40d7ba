"""What a conversation comes to: prompt, constraint, marks, and the parsing of chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quintet import RequestError, SamplingParams, Tokenizer
from quintet.chat import ChatOptions, ChatRequest, plan_chat
from quintet.engine.output import Answer, OutputChunk, Timings, Usage
from quintet.engine.request import Request
from quintet.formats.gguf import GGUFFile
from quintet.parsing.formats import hermes, mistral
from quintet.parsing.thinking import Thinking, thinking_after
from quintet.tokenizer.vocabulary import TokenKind
from sampling.grammars import takes

HELLO = [{"role": "user", "content": "Hello!"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
HERE = "{{ messages[0].content }}|assistant|"


def tokenizer(shared_data: Path, template: str, *, control: tuple[str, ...] = ()) -> Tokenizer:
    """GPT-2's vocabulary with a chat template, some of its last tokens being marks."""
    with GGUFFile.open(shared_data / "vocab" / "ggml-vocab-gpt-2.gguf") as file:
        metadata: dict[str, Any] = dict(file.metadata)
    tokens = list(metadata["tokenizer.ggml.tokens"])
    kinds = [int(kind) for kind in metadata["tokenizer.ggml.token_type"]]
    metadata["tokenizer.ggml.tokens"] = tokens + list(control)
    metadata["tokenizer.ggml.token_type"] = kinds + [TokenKind.CONTROL] * len(control)
    metadata["tokenizer.chat_template"] = template
    return Tokenizer.from_gguf(metadata)


@pytest.mark.parametrize(
    ("ending", "enable_thinking", "expected"),
    [
        ("<think>\n", None, Thinking.OPEN),
        ("<think>", True, Thinking.OPEN),
        ("<think>\n\n</think>\n\n", False, Thinking.NONE),
        ("", False, Thinking.NONE),
        ("", None, Thinking.POSSIBLE),
        ("", True, Thinking.POSSIBLE),
    ],
)
def test_thinking_is_what_the_prompt_leaves_open(
    shared_data: Path, ending: str, enable_thinking: bool | None, expected: Thinking
) -> None:
    """A template that opens or closes a thought decides; else one that knows thoughts allows it."""
    thinks = tokenizer(shared_data, HERE + ending + "{# </think> #}")
    token_ids = thinks.encode_chat(HELLO)
    assert thinking_after(thinks, token_ids, enable_thinking) is expected


def test_a_user_cannot_open_a_thought(shared_data: Path) -> None:
    """What a message ends with is not the template's."""
    plain = tokenizer(shared_data, HERE)
    asks = [{"role": "user", "content": "<think>"}]
    assert thinking_after(plain, plain.encode_chat(asks), None) is Thinking.NONE


def test_qwen3_may_think(shared_data: Path) -> None:
    """The real template: thinking is possible, and off when told so."""
    template = (shared_data / "templates" / "Qwen-Qwen3-0.6B.jinja").read_text()
    qwen = tokenizer(shared_data, template)
    for enable_thinking, expected in (
        (None, Thinking.POSSIBLE),
        (True, Thinking.POSSIBLE),
        (False, Thinking.NONE),
    ):
        options = ChatOptions([TOOL], enable_thinking=enable_thinking)
        plan = plan_chat(qwen, HELLO, SamplingParams(), options)
        assert plan.thinking is expected
        assert plan.syntax == hermes.SYNTAX


def test_control_marks_are_visible_and_named_by_id(shared_data: Path) -> None:
    """Marks that are control tokens would be dropped from the text; the request asks for them."""
    marked = tokenizer(
        shared_data, HERE + "{# [TOOL_CALLS] </think> #}", control=("[TOOL_CALLS]", "</think>")
    )
    mark = marked.token_to_id("[TOOL_CALLS]")
    options = ChatOptions([TOOL], tool_choice="required")
    plan = plan_chat(marked, HELLO, SamplingParams(), options)
    assert plan.syntax == mistral.SYNTAX
    assert plan.visible_token_ids == {mark, marked.token_to_id("</think>")}
    assert plan.params.constraint is not None
    assert f"<[{mark}]>" in plan.params.constraint.source
    unmarked = tokenizer(shared_data, HERE + "{# [TOOL_CALLS] #}")
    plan = plan_chat(unmarked, HELLO, SamplingParams(), options)
    assert plan.visible_token_ids == frozenset()
    assert plan.params.constraint is not None
    assert takes(plan.params.constraint.source, '[TOOL_CALLS][{"name": "f", "arguments": {}}]')


def test_an_answer_without_anything_to_find_is_passed_on(shared_data: Path) -> None:
    """No tools and no thoughts: the chunks are the engine's own."""
    plan = plan_chat(tokenizer(shared_data, HERE), HELLO, SamplingParams(), ChatOptions())
    assert plan.new_parser() is None
    chunk = OutputChunk("r", text="<think>")
    request = Request("r", (1,), SamplingParams())
    assert ChatRequest(request, plan.new_parser).parse(chunk) is chunk


def test_tools_with_thoughts_and_several_answers(shared_data: Path) -> None:
    """Each answer has a parser of its own; tokens of its thought are counted."""
    template = HERE + "{# <tool_call> </think> #}"
    plan = plan_chat(tokenizer(shared_data, template), HELLO, SamplingParams(), ChatOptions([TOOL]))
    request = Request("r", (1, 2), SamplingParams(n=2))
    chat, answer = ChatRequest(request, plan.new_parser), Answer(request)
    pieces = [
        (0, "<think>"), (1, "Hi"), (0, "a "), (0, "b"), (1, " there"), (0, "</think>\n\n"),
        (0, "<tool_call>"), (0, '{"name": "f", "arguments": {"x"'), (0, ": 1}}"),
    ]  # fmt: skip
    for index, text in pieces:
        answer.add(chat.parse(OutputChunk("r", text=text, token_ids=(9,), index=index)))
    for index, num_tokens in ((0, 8), (1, 3)):
        end = OutputChunk(
            "r",
            token_ids=(0,),
            index=index,
            finish_reason="stop",
            others_go_on=index == 0,
            usage=Usage(2, 0, num_tokens),
            timings=Timings(0, 0, 0),
        )
        answer.add(chat.parse(end))
    output = answer.output()
    assert (output.reasoning, output.text) == ("a b", "")
    assert [(call.name, call.arguments) for call in output.tool_calls] == [("f", '{"x": 1}')]
    assert output.choices[1].text == "Hi there"
    assert output.choices[1].tool_calls == ()
    assert output.usage.num_reasoning_tokens == 4


def test_a_template_without_tools_says_so(shared_data: Path) -> None:
    """ChatML has no place for them."""
    bare = Tokenizer.from_file(shared_data / "vocab" / "ggml-vocab-gpt-2.gguf")
    with pytest.raises(RequestError, match="tools"):
        plan_chat(bare, HELLO, SamplingParams(), ChatOptions([TOOL]))
