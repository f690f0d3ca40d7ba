"""Thought, content and tool calls in answers, however they are cut into pieces."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.parsing.answer_parser import AnswerParser
from quintet.parsing.events import ContentDelta, Event, ReasoningDelta
from quintet.parsing.formats import call_syntax, hermes, llama3, mistral, plain_json
from quintet.parsing.syntax import CallSyntax
from quintet.parsing.thinking import Thinking
from quintet.parsing.tool_parser import ToolCallParser

NAMES = ("get_weather", "f")
HERMES, LLAMA3 = hermes.SYNTAX, llama3.SYNTAX
MISTRAL, PLAIN = mistral.SYNTAX, plain_json.SYNTAX
F = ("f", "{}")
PARIS = ("get_weather", '{"city": "Paris"}')

# Format, answer, and the content and calls that are in it.
ANSWERS: list[tuple[CallSyntax, str, str, list[tuple[str, str]]]] = [
    (HERMES, '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', "", [F]),
    (HERMES, '<tool_call>{"arguments":{"city": "Paris"},"name":"get_weather"}</tool_call>', "",
     [PARIS]),
    (HERMES, 'Let me see.\n\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
     '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n',
     "Let me see.", [F, PARIS]),
    (HERMES, '<tool_call>{"name": "f"}</tool_call> done', "done", [F]),
    (HERMES, '<tool_call>{"name": "f", "parameters": {"a": [{"b": "}]"}]}, "id": 3}</tool_call>',
     "", [("f", '{"a": [{"b": "}]"}]}')]),
    (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "",
     [("f", '{"a": 1}')]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"q": "\\"</tool_call>\\\\"}}</tool_call>', "",
     [("f", '{"q": "\\"</tool_call>\\\\"}')]),
    (HERMES, '<tool_call>{"name": "\\u0066", "arguments": {}}</tool_call>', "", [F]),
    (HERMES, '<tool_call>[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]'
     "</tool_call>", "", [F, F]),
    (HERMES, 'a <tool_call> b <tool_call>{"name": "f", "arguments": {}}</tool_call>',
     "a <tool_call> b", [F]),
    (HERMES, '<<tool_<tool_call>{"name": "f", "arguments": {}}', "<<tool_", [F]),
    # What only looks like a call.
    (HERMES, "Use <tool_call> and </tool_call>.", "Use <tool_call> and </tool_call>.", []),
    (HERMES, '<tool_call>{"name": "g", "arguments": {}}</tool_call>',
     '<tool_call>{"name": "g", "arguments": {}}</tool_call>', []),
    (HERMES, '<tool_call>{"arguments": {}}</tool_call>',
     '<tool_call>{"arguments": {}}</tool_call>', []),
    (HERMES, '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
     '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', []),
    (HERMES, '<tool_call>{"name": "f", "arguments": "x"}', '<tool_call>{"name": "f", "arguments": '
     '"x"}', []),
    (HERMES, '<tool_call>{"name": ["f"], "arguments": {}}',
     '<tool_call>{"name": ["f"], "arguments": {}}', []),
    (HERMES, "<tool_call>{'name': 'f'}</tool_call>", "<tool_call>{'name': 'f'}</tool_call>", []),
    (HERMES, "<tool_call>\n  ", "<tool_call>\n  ", []),
    (HERMES, "<tool_ca", "<tool_ca", []),
    (HERMES, '{"name": "f", "arguments": {}}', '{"name": "f", "arguments": {}}', []),
    # Cut short, or gone wrong after it began.
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": "Pa', "", [("f", '{"a": "Pa')]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {}}\n</tool', "", [F]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {}, "x', "", [F]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": tru]} more', "]} more",
     [("f", '{"a": tru')]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {}}} oops', "} oops", [F]),
    (MISTRAL, '[TOOL_CALLS][{"name": "f", "arguments": {}}]', "", [F]),
    (MISTRAL, '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, '
     '"id": "abcdefghi"}, {"name": "f", "arguments": {}}]', "", [PARIS, F]),
    (MISTRAL, 'Sure. [TOOL_CALLS]{"name": "f", "arguments": {}}', "Sure.", [F]),
    (MISTRAL, "[TOOL_CALLS][]", "[TOOL_CALLS][]", []),
    (MISTRAL, "[1, 2]", "[1, 2]", []),
    (LLAMA3, '{"name": "f", "parameters": {}}', "", [F]),
    (LLAMA3, ' \n{"name": "f", "parameters": {}}; {"name": "f", "parameters": {}}', "", [F, F]),
    (LLAMA3, '<|python_tag|>{"name": "f", "parameters": {}}', "", [F]),
    (LLAMA3, '{"name": "f"}', '{"name": "f"}', []),
    (LLAMA3, '{"name": "Alice", "age": 3}', '{"name": "Alice", "age": 3}', []),
    (LLAMA3, 'It is {"name": "f", "parameters": {}}', 'It is {"name": "f", "parameters": {}}', []),
    (LLAMA3, '<|python_tag|>f.call(x="1")', '<|python_tag|>f.call(x="1")', []),
    (PLAIN, '[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]', "", [F, F]),
    (PLAIN, '{"name": "f", "arguments": {}}\nThat is it.', "That is it.", [F]),
    (PLAIN, '{"answer": 42}', '{"answer": 42}', []),
    (PLAIN, "  Hello, {name}!  ", "  Hello, {name}!  ", []),
]  # fmt: skip


def new_parser(
    syntax: CallSyntax | None = None, thinking: Thinking = Thinking.NONE
) -> AnswerParser:
    tools = None if syntax is None else ToolCallParser(syntax, NAMES)
    return AnswerParser(thinking, tools)


def collect(events: list[Event]) -> tuple[str, str, list[tuple[str, str]]]:
    """Thought, content and calls; the deltas must be in order."""
    thought = content = ""
    calls: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, ContentDelta):
            content += event.text
        elif isinstance(event, ReasoningDelta):
            assert not content
            assert not calls
            thought += event.text
        elif event.name is not None:
            assert event.index == len(calls)
            assert event.id is not None
            assert len(event.id) == 9
            calls.append((event.name, event.arguments))
        else:
            assert event.index == len(calls) - 1
            assert event.id is None
            calls[-1] = (calls[-1][0], calls[-1][1] + event.arguments)
    return thought, content, calls


def parse(parser: AnswerParser, pieces: list[str]) -> tuple[str, str, list[tuple[str, str]]]:
    events = [event for piece in pieces for event in parser.push(piece)]
    return collect(events + parser.finish())


@pytest.mark.parametrize(("syntax", "answer", "content", "calls"), ANSWERS)
def test_answers_are_told_apart_wherever_they_are_cut(
    syntax: CallSyntax, answer: str, content: str, calls: list[tuple[str, str]]
) -> None:
    """Whole, in two pieces cut anywhere, and letter by letter: the same content and calls."""
    expected = ("", content, calls)
    assert parse(new_parser(syntax), [answer]) == expected
    assert parse(new_parser(syntax), list(answer)) == expected
    for cut in range(len(answer)):
        assert parse(new_parser(syntax), [answer[:cut], answer[cut:]]) == expected, cut


THOUGHTS = [
    (Thinking.POSSIBLE, "<think>\nHm, 1 < 2.\n</think>\n\nYes.", "Hm, 1 < 2.", "Yes."),
    (Thinking.POSSIBLE, " \n<think>a\n\nb</think>c", "a\n\nb", "c"),
    (Thinking.POSSIBLE, "<think></think>\n", "", ""),
    (Thinking.POSSIBLE, "No thought.", "", "No thought."),
    (Thinking.POSSIBLE, "\n <thin air>", "", "\n <thin air>"),
    (Thinking.POSSIBLE, "<thi", "", "<thi"),
    (Thinking.POSSIBLE, "So: <think>x</think>", "", "So: <think>x</think>"),
    (Thinking.POSSIBLE, "<think>a </thin b </think> c </think>", "a </thin b", "c </think>"),
    (Thinking.POSSIBLE, "<think>never ends </th", "never ends </th", ""),
    (Thinking.OPEN, "\nHm.\n</think>\n\nYes.\n", "Hm.", "Yes.\n"),
    (Thinking.OPEN, "all of it", "all of it", ""),
    (Thinking.NONE, "<think>x</think>", "", "<think>x</think>"),
]


@pytest.mark.parametrize(("thinking", "answer", "thought", "content"), THOUGHTS)
def test_thoughts_are_separated_wherever_they_are_cut(
    thinking: Thinking, answer: str, thought: str, content: str
) -> None:
    """The marks and the white space around them go; nothing else does."""
    expected = (thought, content, [])
    for cut in range(len(answer)):
        assert parse(new_parser(None, thinking), [answer[:cut], answer[cut:]]) == expected, cut
    assert parse(new_parser(None, thinking), list(answer)) == expected


def test_a_call_in_a_thought_is_a_thought() -> None:
    """What the model merely considers is not called."""
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    parser = new_parser(HERMES, Thinking.POSSIBLE)
    assert parse(parser, [f"<think>{call}</think>{call}"]) == (call, "", [F])


def test_arguments_stream_as_they_come() -> None:
    """A long argument is not held back until the call is complete."""
    parser = new_parser(HERMES)
    parser.push('<tool_call>{"name": "f", "arguments": {"text": "')
    events = parser.push("once upon")
    assert [getattr(event, "arguments", None) for event in events] == ["once upon"]


def test_content_streams_as_it_comes() -> None:
    """Only what may still be a mark, and white space before one, waits."""
    parser = new_parser(HERMES)
    assert parser.push("Hello <b") == [ContentDelta("Hello <b")]
    assert parser.push(" <tool_") == []
    assert parser.push("kit>") == [ContentDelta(" <tool_kit>")]


def test_more_calls_than_allowed_are_text() -> None:
    """With one call allowed the second is shown, not made and not dropped."""
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    parser = AnswerParser(Thinking.NONE, ToolCallParser(HERMES, NAMES, max_calls=1))
    assert parse(parser, [call + "\n" + call]) == ("", call, [F])


@given(
    st.lists(
        st.sampled_from(
            ["<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "{", "}", "[",
             "]", '"name"', ": ", '"f"', ",", '"arguments"', "{}", "\\", '"', " ", "\n", "x", "é",
             "<|python_tag|>", ";", '{"name": "f", "arguments": {"a": 1}}']
        ),
        max_size=14,
    ),
    st.sampled_from([HERMES, MISTRAL, LLAMA3, PLAIN]),
    st.sampled_from(list(Thinking)),
)  # fmt: skip
def test_any_text_gives_the_same_in_one_piece_and_in_letters(
    parts: list[str], syntax: CallSyntax, thinking: Thinking
) -> None:
    """Whatever a model writes: no error, and the cuts do not matter."""
    text = "".join(parts)
    whole = parse(new_parser(syntax, thinking), [text])
    assert parse(new_parser(syntax, thinking), list(text)) == whole
    assert all(arguments.startswith("{") for _, arguments in whole[2])
    if not whole[2] and thinking is Thinking.NONE:
        assert whole[1] == text  # no call: not a character is lost


CALLS = st.tuples(st.sampled_from(NAMES), st.dictionaries(st.text(), st.text()))


@given(st.lists(CALLS, min_size=1, max_size=3), st.sampled_from([HERMES, MISTRAL, LLAMA3, PLAIN]))
def test_calls_as_they_are_written_are_read_back(
    calls: list[tuple[str, dict[str, str]]], syntax: CallSyntax
) -> None:
    """Calls in a format's own notation come back with their arguments unchanged."""
    written = [(name, json.dumps(arguments)) for name, arguments in calls]
    objects = [
        f'{{"name": "{name}", "{syntax.arguments_key}": {arguments}}}'
        for name, arguments in written
    ]
    if syntax.is_list:
        text = syntax.openers[0] + f"[{syntax.separator.join(objects)}]" + syntax.closer
    else:
        text = syntax.separator.join(syntax.openers[0] + o + syntax.closer for o in objects)
    assert parse(new_parser(syntax), [text]) == ("", "", written)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{" * 20_000,
        "<" * 200_000,
        " " * 200_000 + "x",
        '<tool_call>{"name": "f", "arguments": {"a": "' + "x" * 200_000,
        '<tool_call>{"' + "\\\\" * 100_000,
        '<tool_call>{"x": ' + "[" * 100_000,
        "[TOOL_CALLS][" * 20_000,
        "<think>" + "</think" * 30_000,
    ],
)
def test_hostile_answers_take_linear_time(text: str) -> None:
    """A model that goes mad costs microseconds per character, in one piece or in many."""
    for syntax, size in itertools.product((HERMES, MISTRAL), (7, len(text))):
        parser = new_parser(syntax, Thinking.POSSIBLE)
        started_s = time.thread_time()
        for start in range(0, len(text), size):
            parser.push(text[start : start + size])
        parser.finish()
        assert time.thread_time() - started_s < 20e-6 * len(text)


@pytest.mark.parametrize(
    ("template", "syntax"),
    [
        ("Qwen-Qwen3-0.6B.jinja", HERMES),
        ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja", HERMES),
        ("meta-llama-Llama-3.1-8B-Instruct.jinja", LLAMA3),
        ("mistralai-Mistral-Nemo-Instruct-2407.jinja", MISTRAL),
        ("google-gemma-2-2b-it.jinja", PLAIN),
    ],
)
def test_the_format_is_the_templates(shared_data: Path, template: str, syntax: CallSyntax) -> None:
    """Real chat templates are recognised."""
    source = (shared_data / "templates" / template).read_text()
    assert call_syntax(source) == syntax
