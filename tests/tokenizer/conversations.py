"""Conversations that chat templates are tried on."""

from __future__ import annotations

from typing import Any

Conversation = dict[str, Any]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, 'now' & <here>.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": " The city, e.g. Zürich. "},
                "days": {"type": "array", "items": {"type": "integer"}, "description": "Which."},
                "unit": {"type": ["string", "null"], "description": "°C or °F"},
            },
            "required": ["city"],
        },
        "return": {"type": "string", "description": "A sentence."},
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "The time.",
        "parameters": {"type": "object", "properties": {}},
    },
}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def call(name: str, arguments: Any, call_id: str = "abcdefghi") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(content: Any, call_id: str = "abcdefghi") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call_id, "name": "get_weather"}


_WEATHER_CALL = [
    user("Is it raining in Zürich?"),
    assistant("", tool_calls=[call("get_weather", {"city": "Zürich", "days": [1, 2]})]),
    tool('{"rain": true}'),
]

_PLAIN_AND_TOOLS: dict[str, Conversation] = {
    "one question": {"messages": [user("What is the capital of France?")]},
    "no generation prompt": {
        "messages": [user("Hi"), assistant("Hello!")],
        "add_generation_prompt": False,
    },
    "system": {"messages": [system(" Be brief. \n"), user("  Hi  ")]},
    "system alone": {"messages": [system("Be brief.")]},
    "several turns": {
        "messages": [user("My name is Alice."), assistant(" Hi Alice! "), user("My name?")]
    },
    "system and several turns": {
        "messages": [
            system("Rhyme."),
            user("A"),
            assistant("B"),
            user("C"),
            assistant("D"),
            user("E"),
        ]
    },
    "two questions in a row": {"messages": [user("A"), user("B")]},
    "answer first": {"messages": [assistant("A"), user("B")]},
    "no messages": {"messages": []},
    "thinking on": {"messages": [user("7 * 8?")], "enable_thinking": True},
    "thinking off": {"messages": [user("7 * 8?")], "enable_thinking": False},
    "no_think in system": {"messages": [system("Be quick. /no_think"), user("7 * 8?")]},
    "earlier thoughts in content": {
        "messages": [user("1+1?"), assistant("<think>\nhm\n</think>\n\n2"), user("2+2?")]
    },
    "earlier thoughts apart": {
        "messages": [user("1+1?"), assistant("2", reasoning_content="hm"), user("2+2?")]
    },
    "thoughts under an older name": {
        "messages": [user("1+1?"), assistant("2", thinking="hm")],
        "add_generation_prompt": False,
    },
    "tools": {"messages": [user("Is it raining in Zürich?")], "tools": [WEATHER, CLOCK]},
    "tools and system": {"messages": [system("Be kind."), user("Time?")], "tools": [CLOCK]},
    "no tools to speak of": {"messages": [user("Time?")], "tools": []},
    "tool call": {
        "messages": _WEATHER_CALL[:2],
        "tools": [WEATHER],
        "add_generation_prompt": False,
    },
    "tool answer": {"messages": _WEATHER_CALL, "tools": [WEATHER]},
    "tool answer and reply": {
        "messages": [*_WEATHER_CALL, assistant("Yes, it is."), user("Thanks!")],
        "tools": [WEATHER],
    },
    "tool answer as data": {
        "messages": [*_WEATHER_CALL[:2], tool({"rain": True, "mm": 1.5})],
        "tools": [WEATHER],
    },
    "arguments as text": {
        "messages": [
            user("Time?"),
            assistant("Let me look.", tool_calls=[call("clock", '{"zone": "CET"}')]),
            tool("12:00"),
        ],
        "tools": [CLOCK],
    },
    "two tool calls": {
        "messages": [
            user("Time and weather?"),
            assistant(
                "",
                tool_calls=[call("clock", {}), call("get_weather", {"city": "Bern"}, "bcdefghij")],
            ),
            tool("12:00"),
            tool("sun", "bcdefghij"),
        ],
        "tools": [WEATHER, CLOCK],
    },
    "short tool call id": {
        "messages": [user("Time?"), assistant("", tool_calls=[call("clock", {}, "1")])],
        "tools": [CLOCK],
    },
    "no content": {"messages": [user("Hi"), assistant(None), user("There?")]},
    "content in parts": {"messages": [user([{"type": "text", "text": "Hi"}])]},
    "markup": {"messages": [user("Why is <b>a</b> & 'b' < \"c\"?\n\n```c\nif (a[i] < 2) {}\n```")]},
    "scripts": {"messages": [user("日本語 и русский, emoji 👩‍🚀, \u200b, ½")]},
}

# Each also with a tool at hand: some templates want one.
CONVERSATIONS = {
    **_PLAIN_AND_TOOLS,
    **{
        f"{name}, with a tool": {**given, "tools": [CLOCK]}
        for name, given in _PLAIN_AND_TOOLS.items()
        if "tools" not in given
    },
}
