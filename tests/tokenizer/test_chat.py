"""Chat templates against transformers' own rendering, and what they must refuse."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from quintet.errors import ModelFormatError, RequestError
from quintet.tokenizer import CHATML, ChatTemplate

from .conversations import CONVERSATIONS, user

TEMPLATES = [
    "HuggingFaceTB-SmolLM3-3B",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "Qwen-Qwen3-0.6B",
    "google-gemma-2-2b-it",
    "meta-llama-Llama-3.1-8B-Instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
]


def transformers_render(source: str, conversation: dict[str, Any]) -> str:
    """The same conversation by transformers, with the same defaults."""
    options = {"tools": None, "add_generation_prompt": True, **conversation}
    messages = options.pop("messages")
    rendered, _ = render_jinja_template(
        conversations=[messages],
        chat_template=source,
        bos_token="<s>",
        eos_token="</s>",
        **options,
    )
    return rendered[0]


def is_rendered(template: ChatTemplate, conversation: dict[str, Any]) -> bool:
    """Whether the template accepts the conversation."""
    try:
        return bool(template.render(**conversation))
    except RequestError:
        return False


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_template_renders_as_transformers_renders_it(
    shared_data: Path, name: str, conversation: str
) -> None:
    """A public template gives the text, or the refusal, that transformers gives."""
    source = (shared_data / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    given = CONVERSATIONS[conversation]
    try:
        expected = transformers_render(source, given)
    except Exception:  # noqa: BLE001 - Jinja's, and Python's where a template trips
        with pytest.raises(RequestError):
            template.render(**given)
    else:
        assert template.render(**given) == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_renders_most_conversations(shared_data: Path, name: str) -> None:
    """The comparison above is of rendered text in at least twelve cases per template."""
    source = (shared_data / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    assert sum(map(partial(is_rendered, template), CONVERSATIONS.values())) >= 12


@pytest.mark.parametrize(
    "source",
    [
        "{{ x | tojson }}|{{ x | tojson(indent=2) }}|{{ x | tojson(sort_keys=true) }}",
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}a{% endfor %}",
        "  {% if true %}\n  b\n  {% endif %}\nc",
        "{% generation %}d{% set y = 1 %}{% endgeneration %}{{ y is defined }}",
        "{{ strftime_now('%Y') }}",
        "{{ tools is none }}{{ documents is none }}{{ enable_thinking is defined }}",
        "{{ 'é<&>' | tojson }}{{ messages[0].content | trim | upper }}",
        "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}",
    ],
)
def test_language_is_that_of_transformers(source: str) -> None:
    """Filters, tags and white space work as in transformers' environment."""
    given = {"messages": [user(" hi "), user("b")], "x": {"b": "ü", "a": [1, None, True]}}
    assert ChatTemplate(source).render(**given) == transformers_render(source, given)


def test_chatml_is_what_models_without_template_get() -> None:
    """ChatML: a role, a line break, the content, for each message."""
    text = ChatTemplate(CHATML).render([{"role": "system", "content": "Be brief."}, user("Hi")])
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chatml_refuses_tools() -> None:
    """ChatML has no way to show tools to a model, so it does not drop them silently."""
    with pytest.raises(RequestError, match="tools"):
        ChatTemplate(CHATML).render([user("Hi")], tools=[{}])
    assert ChatTemplate(CHATML).render([user("Hi")], tools=[])


def test_tool_use_template_takes_over_when_tools_are_given() -> None:
    """A model with a second template for tools uses it for tools only."""
    template = ChatTemplate("plain", tool_use="tools: {{ tools | length }}")
    assert template.render([user("a")]) == "plain"
    assert template.render([user("a")], tools=[{}, {}]) == "tools: 2"


@pytest.mark.parametrize("source", ["{% if %}", "{{ a", "{% for x in %}", "{% unknown %}"])
def test_invalid_template_is_a_format_error(source: str) -> None:
    """A template that is not Jinja2 is the model's fault and says where it was."""
    with pytest.raises(ModelFormatError, match="chat_template"):
        ChatTemplate(source)


def test_oversized_template_is_a_format_error() -> None:
    """A template of more than 1 Mi characters is not compiled."""
    with pytest.raises(ModelFormatError, match="1048576"):
        ChatTemplate("a" * (1 << 20) + "b")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(a=1) }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ ''|attr('__class__')|attr('__mro__') }}{{ (''|attr('__class__')).__mro__[0] }}",
        "{{ '{0.__class__}'.format(1).mro() }}",
        "{{ tojson.__globals__.x }}",
    ],
)
def test_sandbox_keeps_python_out_of_reach(source: str) -> None:
    """T1, T2: a template reaches no Python internals and changes no message."""
    messages = [user("a")]
    with pytest.raises((ModelFormatError, RequestError)):
        ChatTemplate(source).render(messages)
    assert messages == [user("a")]


def test_refusal_carries_the_template_message() -> None:
    """What raise_exception says reaches the caller, as the caller's fault."""
    with pytest.raises(RequestError, match="only poems") as caught:
        ChatTemplate("{{ raise_exception('only poems') }}").render([user("a")])
    assert caught.value.parameter == "messages"


@pytest.mark.parametrize(
    "source",
    ["{{ 'a' * 5000000 }}", "{% for i in range(99999) %}{{ 'b' * 99 }}{% endfor %}"],
)
def test_rendered_size_is_limited(source: str) -> None:
    """More than 4 Mi characters of prompt are refused."""
    with pytest.raises(RequestError, match="4194304"):
        ChatTemplate(source).render([user("a")])


def test_recursion_is_the_conversations_end_not_ours() -> None:
    """A macro that calls itself for ever ends in an error of ours."""
    source = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"
    with pytest.raises(RequestError):
        ChatTemplate(source).render([user("a")])


@pytest.mark.parametrize(
    "messages", [[user(object())], [user({1, 2})], ["text"], [None], [user(b"bytes")]]
)
def test_messages_are_json(messages: list[Any]) -> None:
    """Only JSON-like data gets into a template."""
    with pytest.raises(RequestError, match="messages"):
        ChatTemplate("{{ messages }}").render(messages)


def test_deep_nesting_is_refused() -> None:
    """Data nested deeper than 64 levels is refused before anything recurses over it."""
    content: Any = "a"
    for _ in range(10_000):
        content = [content]
    with pytest.raises(RequestError, match="nesting"):
        ChatTemplate("{{ messages }}").render([user(content)])


def test_options_cannot_replace_the_conversation() -> None:
    """T4: extra variables are data for the template and nothing else."""
    template = ChatTemplate("{{ messages[0].content }}{{ level }}{{ bos_token }}", bos_token="<s>")
    assert template.render([user("a")], level=3) == "a3<s>"
