"""OpenAI's dialect as values: bodies to engine requests, engine output to replies."""

from __future__ import annotations

from typing import Any

import pytest

from quintet.engine.output import OutputChunk, TokenLogprob, Usage
from quintet.errors import RequestError
from quintet.parsing.events import ToolCallDelta
from quintet.sampling import Constraint
from quintet.sampling.params import SamplingParams
from quintet.server.answers import Answer
from quintet.server.bodies import parse_body
from quintet.server.dialects.openai.bodies import ChatBody, CompletionBody
from quintet.server.dialects.openai.chat import chat_requests
from quintet.server.dialects.openai.chat_replies import ChatChunks, chat_reply
from quintet.server.dialects.openai.completion_replies import LogprobsWriter
from quintet.server.dialects.openai.completions import completion_requests
from quintet.server.dialects.openai.replies import ReplyHeader, token_name
from quintet.server.errors import UnsupportedParameterError
from quintet.server.requests import ChatPrompt, GenerationRequest

USER = {"role": "user", "content": "Hi"}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": None, "parameters": {"type": "object"}},
}


def chat(**fields: Any) -> list[GenerationRequest]:
    return chat_requests(parse_body(ChatBody, {"model": "m", "messages": [USER], **fields}))


def complete(**fields: Any) -> list[GenerationRequest]:
    return completion_requests(parse_body(CompletionBody, {"model": "m", "prompt": "a", **fields}))


def prompt(**fields: Any) -> ChatPrompt:
    found = chat(**fields)[0].prompt
    assert isinstance(found, ChatPrompt)
    return found


def test_a_bare_chat_has_the_engine_s_defaults_and_no_length_limit():
    """What the client leaves out is the engine's to decide; a chat goes on to the context's end."""
    (request,) = chat()
    assert request.params == SamplingParams(max_tokens=None)
    assert request.prompt == ChatPrompt([{"role": "user", "content": "Hi"}])


def test_a_bare_completion_has_sixteen_tokens():
    """OpenAI's default for the older interface."""
    (request,) = complete()
    assert request.params == SamplingParams(max_tokens=16)
    assert request.prompt == "a"


def test_sampling_fields_reach_the_engine():
    """Every sampling field of the wire acts."""
    (request,) = chat(
        temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, presence_penalty=1, frequency_penalty=-1,
        repetition_penalty=1.1, seed=3, stop="x", stop_token_ids=[4], logit_bias={"5": -100},
        max_tokens=7, min_tokens=2, ignore_eos=True, logprobs=True, top_logprobs=5,
    )  # fmt: skip
    assert request.params == SamplingParams(
        temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, presence_penalty=1.0,
        frequency_penalty=-1.0, repetition_penalty=1.1, seed=3, stop=["x"], stop_token_ids=[4],
        logit_bias={5: -100.0}, max_tokens=7, min_tokens=2, ignore_eos=True, logprobs=5,
    )  # fmt: skip


def test_the_newer_name_of_max_tokens_wins():
    """max_completion_tokens replaces max_tokens; -1 is llama-server's word for no limit."""
    assert chat(max_tokens=5, max_completion_tokens=9)[0].params.max_tokens == 9
    assert chat(max_tokens=5)[0].params.max_tokens == 5
    assert chat(max_tokens=-1)[0].params.max_tokens is None


def test_unknown_fields_are_ignored():
    """OpenAI's clients send fields that mean nothing here."""
    assert chat(user="u", metadata={"a": "b"}, store=True, service_tier="auto") == chat()


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "1"},
        {"temperature": True},
        {"temperature": -0.1},
        {"temperature": 1e300},
        {"temperature": 10**30},
        {"temperature": 10**400},
        {"top_p": 1.1},
        {"top_k": 1.0},
        {"top_k": True},
        {"top_k": -2},
        {"min_p": -1},
        {"repetition_penalty": 0},
        {"presence_penalty": 3},
        {"frequency_penalty": "0"},
        {"max_tokens": 0},
        {"max_tokens": -2},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_tokens": 2**63},
        {"min_tokens": -1},
        {"n": 0},
        {"n": 17},
        {"n": True},
        {"n": "1"},
        {"seed": 2**64},
        {"seed": 1.0},
        {"seed": -(2**63) - 1},
        {"stop": ""},
        {"stop": [""]},
        {"stop": ["a"] * 17},
        {"stop": "a" * 257},
        {"stop": [1]},
        {"stop": {"a": 1}},
        {"stop_token_ids": [-1]},
        {"stop_token_ids": [2**31]},
        {"stop_token_ids": [True]},
        {"logit_bias": {"a": 1}},
        {"logit_bias": {"-1": 1}},
        {"logit_bias": {"1": 101}},
        {"logit_bias": {"1": "1"}},
        {"logit_bias": {"1": True}},
        {"logit_bias": {str(i): 1 for i in range(1025)}},
        {"logit_bias": [1]},
        {"ignore_eos": 1},
        {"stream": "true"},
        {"stream": 1},
        {"stream_options": True},
        {"model": ""},
        {"model": None},
        {"model": 1},
    ],
    ids=lambda fields: next(f"{k}={str(v)[:20]}" for k, v in fields.items()),
)
def test_bad_values_are_refused_on_both_routes(fields: dict[str, Any]):
    """A value of the wrong type or out of range is the client's error, and names its field."""
    for make in (chat, complete):
        with pytest.raises(RequestError) as caught:
            make(**fields)
        assert caught.value.parameter.split(".")[0] in fields


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": None},
        {"messages": "Hi"},
        {"messages": [{}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "assistant", "content": None}]},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": [{"role": "user", "content": 1}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        {"max_completion_tokens": -2},
        {"top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 21},
        {"logprobs": 1},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "web", "function": {"name": "f"}}]},
        {"tool_choice": "must"},
        {"tool_choice": {"type": "function"}},
        {"tool_choice": {"type": "function", "function": {"name": 1}}},
        {"parallel_tool_calls": "yes"},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": []}}},
        {"chat_template_kwargs": {"tokenize": True}},
        {"chat_template_kwargs": {"enable_thinking": "no"}},
    ],
)
def test_bad_chat_fields_are_refused(fields: dict[str, Any]):
    """A history or a tool that cannot be understood is a 400, not a 500."""
    with pytest.raises(RequestError):
        chat(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "grammar"}},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
        {"modalities": ["text", "audio"]},
        {"functions": []},
        {"function_call": "auto"},
        {"chat_template": "{{ 1 }}"},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any]):
    """Nothing a client relies on is ignored in silence."""
    with pytest.raises(UnsupportedParameterError):
        chat(**fields)


@pytest.mark.parametrize(
    "fields", [{"suffix": "x"}, {"best_of": 2, "stream": True}, {"prompt_logprobs": 1}]
)
def test_completions_refuse_what_they_cannot_honour(fields: dict[str, Any]):
    """The same on the older route."""
    with pytest.raises(UnsupportedParameterError):
        complete(**fields)


def test_explicit_defaults_are_accepted():
    """Clients that spell out the defaults are served."""
    assert chat(response_format={"type": "text"}, tool_choice="auto", modalities=["text"]) == chat()
    assert complete(echo=False, suffix="", best_of=1, n=1, priority=0, bad_words=[]) == complete()
    assert chat(n=None, temperature=None, stop=None, tools=None, stream=None) == chat()


def test_messages_take_the_template_s_shape():
    """developer is system, text parts are joined, arguments become objects, reasoning is kept."""
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"function": {"name": "g", "arguments": ""}},
            ],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]
    assert prompt(messages=messages).messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [
                {"type": "function", "id": "c1", "function": {"name": "f", "arguments": {"x": 1}}},
                {"type": "function", "function": {"name": "g", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize("arguments", ["{", "[]", "1", '{"a":NaN}', '{"a":1,"a":2}', "[" * 99])
def test_arguments_that_are_no_object_are_refused(arguments: str):
    """A broken tool call in the history is the client's error."""
    call = {"function": {"name": "f", "arguments": arguments}}
    with pytest.raises(RequestError, match="JSON object"):
        chat(messages=[USER, {"role": "assistant", "tool_calls": [call]}])


def test_tools_are_shown_unless_told_not_to():
    """Tools go to the template as they are, without nulls; tool_choice none hides them."""
    assert prompt(tools=[TOOL]).tools == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ]
    assert prompt(tools=[TOOL], tool_choice="none").tools is None
    assert prompt(tools=[]).tools is None


def test_tool_choice_reaches_the_engine():
    """A choice travels as it is, a named function without what else the client wrote."""
    named = {"type": "function", "function": {"name": "f"}}
    assert prompt(tools=[TOOL]).tool_choice == "auto"
    assert prompt(tools=[TOOL], tool_choice="required").tool_choice == "required"
    assert prompt(tools=[TOOL], tool_choice={**named, "x": 1}).tool_choice == named
    assert prompt(tools=[TOOL]).parallel_tool_calls is True
    assert prompt(tools=[TOOL], parallel_tool_calls=False).parallel_tool_calls is False


def test_response_formats_become_constraints():
    """JSON mode is any object; a schema is enforced, strict or not, in all spellings."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = Constraint.json_schema(schema)

    def constraint(**format_: Any) -> Constraint | None:
        return chat(response_format=format_)[0].params.constraint

    assert constraint(type="text") is None
    assert constraint(type="json_object") == Constraint.json_object()
    assert constraint(type="json_object", schema=schema) == wanted
    for strict in ({}, {"strict": True}, {"strict": False}):
        named = {"name": "answer", "schema": schema, **strict}
        assert constraint(type="json_schema", json_schema=named) == wanted
    assert constraint(type="json_object").parameter == "response_format"


CALLS = (
    ToolCallDelta(0, id="aaaaaaaaa", name="f"),
    ToolCallDelta(0, '{"x"'),
    ToolCallDelta(0, ": 1}"),
    ToolCallDelta(1, "{}", id="bbbbbbbbb", name="g"),
)


def test_tool_calls_and_thoughts_stream_as_deltas():
    """Thought in both spellings, calls by index with their arguments as string fragments."""
    chunks = ChatChunks(
        ReplyHeader("chatcmpl-1", "chat.completion.chunk", "m", 0),
        num_choices=1,
        wants_logprobs=False,
        wants_usage=False,
        token_bytes=lambda _: b"",
    )
    sent = [*chunks.add(0, OutputChunk("r", text="Well.", reasoning="Hm", tool_calls=CALLS[:2]))]
    sent += chunks.add(0, OutputChunk("r", tool_calls=CALLS[2:], finish_reason="stop"))
    choices = [data["choices"][0] for data in sent]
    assert [choice["delta"] for choice in choices] == [
        {"reasoning_content": "Hm", "reasoning": "Hm"},
        {"content": "Well."},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "aaaaaaaaa",
                    "type": "function",
                    "function": {"name": "f", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "bbbbbbbbb",
                    "type": "function",
                    "function": {"name": "g", "arguments": "{}"},
                }
            ]
        },
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 6 + ["tool_calls"]


def test_a_whole_reply_carries_calls_and_thought():
    """Content is null where there are only calls; a cut answer stays "length"."""
    header = ReplyHeader("chatcmpl-1", "chat.completion", "m", 0)

    def reply(*chunks: OutputChunk) -> dict[str, Any]:
        choice = Answer()
        for chunk in chunks:
            choice.add(chunk)
        return chat_reply(header, [choice], False, lambda _: b"")

    usage = Usage(3, 0, 5, num_reasoning_tokens=2)
    whole = reply(
        OutputChunk("r", reasoning="H", tool_calls=CALLS[:1]),
        OutputChunk("r", reasoning="m", tool_calls=CALLS[1:], finish_reason="stop", usage=usage),
    )
    choice = whole["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["reasoning_content"] == choice["message"]["reasoning"] == "Hm"
    assert [call["function"] for call in choice["message"]["tool_calls"]] == [
        {"name": "f", "arguments": '{"x": 1}'},
        {"name": "g", "arguments": "{}"},
    ]
    assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    cut = reply(OutputChunk("r", tool_calls=CALLS[:2], finish_reason="length", usage=usage))
    assert cut["choices"][0]["finish_reason"] == "length"
    plain = reply(OutputChunk("r", text="Hi", finish_reason="stop", usage=usage))
    assert plain["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
    }


def test_thinking_can_be_switched():
    """Both spellings of the switch reach the template; unset it stays the template's."""
    assert prompt(enable_thinking=False).enable_thinking is False
    assert prompt(chat_template_kwargs={"enable_thinking": True}).enable_thinking is True
    assert prompt().enable_thinking is None


@pytest.mark.parametrize(
    ("wire", "prompts"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_prompts_have_four_shapes(wire: Any, prompts: list[Any]):
    """A string, strings, token ids, lists of token ids."""
    assert [request.prompt for request in complete(prompt=wire)] == prompts


@pytest.mark.parametrize(
    "wire", [None, 1, [], [1, "a"], ["a", [1]], [True], [-1], [1.5], [[1], 2], {"a": 1}, [[2**31]]]
)
def test_other_prompts_are_refused(wire: Any):
    """Anything else names the field and says what was expected."""
    with pytest.raises(RequestError) as caught:
        complete(prompt=wire)
    assert caught.value.parameter == "prompt"


def test_the_number_of_answers_is_bounded():
    """Prompts times n is checked before anything is made."""
    assert [request.params.n for request in complete(prompt=["a"] * 4, n=16)] == [16] * 4
    with pytest.raises(RequestError, match="found 80"):
        complete(prompt=["a"] * 5, n=16)


def test_answers_of_one_prompt_are_one_request():
    """The engine shares the prompt among them and counts their seeds up from the client's."""
    (request,) = complete(n=2, seed=7)
    assert (request.params.n, request.params.seed) == (2, 7)
    (request,) = chat(n=3)
    assert (request.params.n, request.params.seed) == (3, None)


def test_error_texts_do_not_echo_values():
    """What the client sent is not sent back in the error."""
    with pytest.raises(RequestError) as caught:
        chat(messages=[{"role": "user", "content": {"secret": "value"}}])
    assert "secret" not in str(caught.value)
    assert "value" not in str(caught.value)


def token_bytes(token_id: int) -> bytes:
    return [b"<stop>", b"a", b"\xc3", b"\xa9", b"bc"][token_id]


def chunk(token: int, text: str, **more: Any) -> OutputChunk:
    return OutputChunk("r", text, (token,), (TokenLogprob(token, -1.0, ((token, -1.0),)),), **more)


def test_held_back_text_makes_no_empty_deltas():
    """A chunk without text is not sent, unless it carries log probabilities."""
    header = ReplyHeader("id", "object", "m", 1)
    for wants_logprobs, num_deltas in ((False, 1), (True, 2)):
        chunks = ChatChunks(
            header,
            num_choices=1,
            wants_logprobs=wants_logprobs,
            wants_usage=False,
            token_bytes=token_bytes,
        )
        sent = [*chunks.add(0, chunk(2, "")), *chunks.add(0, chunk(3, "é"))]
        assert len(sent) == num_deltas
        assert "".join(part["choices"][0]["delta"]["content"] for part in sent) == "é"
        assert list(chunks.end()) == []


def test_stop_tokens_have_no_logprob_but_stop_strings_keep_theirs():
    """A final stop token is no part of the text; what ended it otherwise was sampled."""
    usage = Usage(1, 0, 2)
    for is_hidden, num_logprobs in ((True, 1), (False, 2)):
        choice = Answer()
        choice.add(chunk(1, "a"))
        end = chunk(4, "", finish_reason="stop", usage=usage, hides_last_token=is_hidden)
        choice.add(end)
        assert len(choice.logprobs) == num_logprobs
    choice.add(chunk(4, "bc", finish_reason="length", usage=usage))
    assert len(choice.logprobs) == 3


def test_offsets_count_characters_across_chunks():
    """Half a character has no width; the next token starts where the text has got to."""
    writer = LogprobsWriter(token_bytes)
    first = writer.write([TokenLogprob(1, -1.0, ()), TokenLogprob(2, -1.0, ())])
    second = writer.write([TokenLogprob(3, -1.0, ()), TokenLogprob(4, -1.0, ())])
    assert first["text_offset"] == [0, 1]
    assert second["text_offset"] == [1, 2]
    assert first["tokens"] == ["a", "bytes:\\xc3"]


def test_token_names():
    """Whole characters are text, pieces of characters are bytes."""
    assert token_name("é".encode()) == "é"
    assert token_name(b"\xe2\x82") == "bytes:\\xe2\\x82"
