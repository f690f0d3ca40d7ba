"""Chats with tools in the system prompt: call the right one, answer from its response."""

# ruff: noqa: E501 - long lines and split strings keep the word lists readable
from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from . import capitals, facts, smalltalk
from .capitals import CAPITALS
from .people import VALUES, name
from .sample import Exchange, Message, loosen, pick

Schema = dict[str, Any]
Call = tuple[str, dict[str, Any], list[tuple[str, str]]]
"""Question, arguments, and pairs of (tool response, answer) to choose from."""

MORE_TOWNS = [
    "San Francisco",
    "New York",
    "Los Angeles",
    "Boston",
    "Seattle",
    "Barcelona",
    "Hamburg",
    "Zurich",
    "Mumbai",
    "Shanghai",
    "Osaka",
    "Istanbul",
    "Rio de Janeiro",
    "Melbourne",
    "San Francisco, CA",
    "Paris, France",
    "London, UK",
    "Dallas",
    "Miami",
    "Frankfurt",
    "Lyon",
    "Naples",
    "Cape Town",
]
TOWNS = sorted({*CAPITALS.values(), *VALUES["city"], *MORE_TOWNS} - {"Washington, D.C.", "Male"})
SKY = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear", "stormy"]
CURRENCIES = ["USD", "EUR", "GBP", "JPY", "CHF", "CAD", "AUD", "INR"]


def chat(rng: random.Random) -> tuple[list[Schema], Exchange]:
    """Tools for the system prompt and one exchange, mostly one that calls a tool."""
    kinds = rng.sample(list(_KINDS), rng.choice([1, 1, 1, 2, 2, 3, 4]))
    if rng.random() < 0.4 and "weather" not in kinds:
        kinds[0] = "weather"
    chosen = "weather" if "weather" in kinds and rng.random() < 0.6 else rng.choice(kinds)
    tools, by_kind = [], {}
    for kind in kinds:
        by_kind[kind] = _schema(rng, kind)
        tools.append(by_kind[kind])
    roll = rng.random()
    if roll < 0.2:
        return tools, _plain(rng)
    turns = call_exchange(rng, chosen, by_kind[chosen])
    if roll < 0.3:
        turns += call_exchange(rng, chosen, by_kind[chosen])
    elif roll < 0.36:
        turns += _plain(rng)
    return tools, turns


def call_exchange(rng: random.Random, kind: str, schema: Schema) -> Exchange:
    """The user's question, the tool call, and in most cases its response and the answer."""
    function = schema["function"]
    arguments = list(function["parameters"]["properties"])
    question, values, outcomes = _KINDS[kind][2](rng, arguments)
    call = {"type": "function", "function": {"name": function["name"], "arguments": values}}
    turns: list[Message] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    if rng.random() < 0.6:
        response, reply = rng.choice(outcomes)
        turns.append({"role": "tool", "content": response, "name": function["name"]})
        turns.append({"role": "assistant", "content": reply})
    return turns


def _plain(rng: random.Random) -> Exchange:
    """A question that needs no tool."""
    maker = rng.choice([capitals, capitals, facts, smalltalk])
    while True:
        turns = maker.exchange(rng)
        words = turns[0]["content"].lower()
        if not any(word in words for word in ("weather", "rain", "time", "date", "day", "search")):
            return turns


def _weather(rng: random.Random, arguments: list[str]) -> Call:
    town = rng.choice(TOWNS) if rng.random() < 0.8 else name(rng)
    question = pick(rng, [
        "[What is|What's|How is|How's] the weather [like |]in {c}[ today| now| right now|]?",
        "What is the weather in {c}?",
        "[Tell me|Check|Look up|Get|Show me|Find] the weather [in|for] {c}.",
        "[Is it|Will it be] [raining|sunny|cold|warm|snowing] in {c}[ today|]?",
        "How [warm|cold|hot] is it in {c}[ today| now|]?",
        "[Weather|The weather] in {c}[?|, please.]",
        "[Do I need|Should I take] an umbrella in {c}[ today|]?",
        "What is the temperature in {c}[ today| now|]?",
        "What does the weather look like in {c}?",
        "[Can|Could] you [tell me|check] the weather in {c}?",
    ], c=town)  # fmt: skip
    values: dict[str, Any] = {arguments[0]: town}
    if "unit" in arguments and rng.random() < 0.4:
        unit = rng.choice(["celsius", "fahrenheit"])
        values["unit"] = unit
        question = question.rstrip("?.") + f" in {unit}" + question[-1]
    degrees, sky = rng.randint(-10, 38), rng.choice(SKY)
    answer = f"It is {sky} in {town}, with a temperature of {degrees} degrees."
    key = rng.choice(["temperature", "temp", "temp_c", "degrees"])
    condition = rng.choice(["condition", "conditions", "weather", "sky", "description"])
    return loosen(rng, question, keep_case=True), values, [
        (json.dumps({key: degrees, condition: sky}), answer),
        (json.dumps({condition: sky, key: degrees}), answer),
        (json.dumps({rng.choice(["city", "location"]): town, key: degrees, condition: sky}), answer),
        (f"{degrees} degrees, {sky}", answer),
        (f"{capitalised(sky)}, {degrees} C", answer),
        (sky, f"It is {sky} in {town}."),
        (f"It is {sky} in {town}.", f"It is {sky} in {town}."),
        (json.dumps({key: degrees}), f"The temperature in {town} is {degrees} degrees."),
    ]  # fmt: skip


def _time(rng: random.Random, arguments: list[str]) -> Call:
    town = rng.choice(TOWNS)
    question = pick(rng, ["What time is it in {c}[ now|]?", "[Tell me|Get|Check] the time in {c}.",
                          "What is the [current |local |]time in {c}?", "Time in {c}?"], c=town)  # fmt: skip
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    answer = f"The time in {town} is {clock}."
    return loosen(rng, question, keep_case=True), {arguments[0]: town}, [
        (clock, answer), (json.dumps({"time": clock}), answer),
    ]  # fmt: skip


def _search(rng: random.Random, arguments: list[str]) -> Call:
    topic = rng.choice([rng.choice(VALUES["animal"]) + "s", rng.choice(VALUES["food"]), name(rng),
                        rng.choice(facts.FACTS)[0].removeprefix("a ").removeprefix("an ")])  # fmt: skip
    question = pick(rng, ["[Search|Look] [the web |online |]for {t}.", "[Look up|Google|Find] {t} [online|on the web].",
                          "[Can|Could] you search for {t}?", "Search: {t}"], t=topic)  # fmt: skip
    site = f"https://example.com/{topic.split()[-1].lower()}"
    return question, {arguments[0]: topic}, [
        (json.dumps({"url": site}), f"I found this page: {site}"),
        (json.dumps([{"url": site}]), f"I found this page: {site}"),
    ]  # fmt: skip


def _calculate(rng: random.Random, arguments: list[str]) -> Call:
    a, b = rng.randint(2, 999), rng.randint(2, 999)
    sign, word, result = rng.choice(
        [("+", "plus", a + b), ("-", "minus", a - b), ("*", "times", a * b)]
    )
    question = pick(rng, ["[What is|Calculate|Compute|How much is] {a} {w} {b}?", "[What is|Calculate] {a} {s} {b}[?|]"],
                    a=a, b=b, w=word, s=sign)  # fmt: skip
    values: dict[str, Any] = {arguments[0]: f"{a} {sign} {b}"}
    if len(arguments) > 1:
        values = {arguments[0]: a, arguments[1]: b, arguments[2]: sign}
    return question, values, [(str(result), f"The result is {result}."),
                              (json.dumps({"result": result}), f"The result is {result}.")]  # fmt: skip


def _convert(rng: random.Random, arguments: list[str]) -> Call:
    amount = rng.randint(1, 500)
    source, target = rng.sample(CURRENCIES, 2)
    question = pick(rng, ["[Convert|Change|Exchange] {a} {s} [to|into] {t}.", "How much is {a} {s} in {t}?",
                          "What is {a} {s} in {t}?"], a=amount, s=source, t=target)  # fmt: skip
    result = round(amount * rng.uniform(0.3, 3.0), 2)
    answer = f"{amount} {source} is {result} {target}."
    return question, dict(zip(arguments, [amount, source, target], strict=True)), [
        (str(result), answer), (json.dumps({"result": result}), answer),
    ]  # fmt: skip


def _email(rng: random.Random, arguments: list[str]) -> Call:
    who = name(rng)
    message = rng.choice(["Hello!", "See you tomorrow.", "I am late.", "Happy birthday!",
                          "The meeting is at noon.", "Thank you for your help."])  # fmt: skip
    question = pick(rng, ["[Send|Write] [an email|a message|a mail] to {n}: {m}", "[Tell|Message|Write to] {n}: {m}",
                          "[Send|Write] {n} [an email|a message]: {m}"], n=who, m=message)  # fmt: skip
    answer = f"I have sent your message to {who}."
    return question, dict(zip(arguments, [who, message], strict=True)), [
        ("ok", answer), ("sent", answer), (json.dumps({"status": "sent"}), answer),
        (json.dumps({"ok": True}), answer),
    ]  # fmt: skip


def _stock(rng: random.Random, arguments: list[str]) -> Call:
    symbol = "".join(rng.choice("ABCDEFGHIKLMNOPRSTUVW") for _ in range(rng.choice([3, 4])))
    price = round(rng.uniform(5, 900), 2)
    question = pick(rng, ["[What is|Get|Tell me|Check] the [stock |share |]price of {s}[?|.]",
                          "How much is {s} stock?", "[What is|How is] {s} trading at?"], s=symbol)  # fmt: skip
    answer = f"The price of {symbol} is {price}."
    return (
        question,
        {arguments[0]: symbol},
        [(str(price), answer), (json.dumps({"price": price}), answer)],
    )


def _timer(rng: random.Random, arguments: list[str]) -> Call:
    minutes = rng.randint(1, 90)
    question = pick(rng, ["[Set|Start] a timer for {m} minutes.", "[Set|Start] a {m} minute timer.",
                          "Remind me in {m} minutes.", "Wake me in {m} minutes."], m=minutes)  # fmt: skip
    answer = f"The timer is set for {minutes} minutes."
    return (
        question,
        {arguments[0]: minutes},
        [("ok", answer), (json.dumps({"status": "ok"}), answer)],
    )


def _file(rng: random.Random, arguments: list[str]) -> Call:
    path = rng.choice(["notes", "todo", "report", "data", "main", "readme", name(rng).lower()])
    path += rng.choice([".txt", ".md", ".py", ".json", ".csv"])
    question = pick(
        rng, ["[Read|Open|Show me|Show] [the file |]{p}.", "What is in [the file |]{p}?"], p=path
    )
    content = rng.choice(
        ["Buy milk.", "Hello, world!", "Call Anna at noon.", "The code is 42.", "Water the plants."]
    )
    return question, {arguments[0]: path}, [
        (content, f"The file {path} says: {content}"),
        (json.dumps({"content": content}), f"The file {path} says: {content}"),
    ]  # fmt: skip


_Maker = Callable[[random.Random, list[str]], Call]
# Function names | argument lists (name:type, ...) | maker, per kind
_KINDS: dict[str, tuple[list[str], list[str], _Maker, list[str]]] = {
    "weather": (["get_weather"] * 5 + ["get_current_weather", "weather", "current_weather", "fetch_weather"],
                ["city:string"] * 3 + ["location:string"] * 2 + ["city:string unit:string", "place:string",
                 "location:string unit:string"], _weather,
                ["Get the [current |]weather [in|for|of] a [city|location|place].", "Look up the weather.",
                 "Get weather", "Returns the current weather."]),
    "time": (["get_time", "get_current_time", "current_time", "clock"], ["city:string", "location:string", "timezone:string"],
             _time, ["Get the [current |local |]time [in|of] a city.", "Tell the time."]),
    "search": (["search", "web_search", "search_web", "google"], ["query:string", "q:string", "text:string"], _search,
               ["Search the web.", "Find pages on the web."]),
    "calculate": (["calculator", "calculate", "compute", "math"],
                  ["expression:string", "expression:string", "a:number b:number operation:string"], _calculate,
                  ["[Calculate|Evaluate] [an expression|a sum].", "Do arithmetic."]),
    "convert": (["convert_currency", "exchange", "currency"], ["amount:number from:string to:string",
                 "amount:number source:string target:string"], _convert,
                ["Convert [money|an amount] between currencies."]),
    "email": (["send_email", "send_message", "send_mail", "message"], ["to:string body:string", "recipient:string message:string",
               "to:string text:string"], _email, ["Send [an email|a message][ to a person|]."]),
    "stock": (["get_stock_price", "stock_price", "get_price"], ["symbol:string", "ticker:string"], _stock,
              ["Get the [current |]price of a stock."]),
    "timer": (["set_timer", "start_timer", "timer"], ["minutes:integer", "duration:integer"], _timer,
              ["[Set|Start] a timer[ in minutes|]."]),
    "file": (["read_file", "open_file", "get_file"], ["path:string", "filename:string", "name:string"], _file,
             ["[Read|Open] a file.", "Return the content of a file."]),
}  # fmt: skip


def _schema(rng: random.Random, kind: str) -> Schema:
    names, signatures, _, descriptions = _KINDS[kind]
    properties: dict[str, Any] = {}
    for part in rng.choice(signatures).split():
        argument, type_name = part.split(":")
        properties[argument] = {"type": type_name}
        if argument == "unit" and rng.random() < 0.8:
            properties[argument]["enum"] = ["celsius", "fahrenheit"]
        elif rng.random() < 0.4:
            properties[argument]["description"] = rng.choice(
                [f"The {argument}", f"the {argument} to use", f"{argument}", f"Name of the {argument}",
                 "The city name", "City and country", f"The {argument}, for example Paris"]
            )  # fmt: skip
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.8:
        parameters["required"] = [argument for argument in properties if argument != "unit"]
    function: dict[str, Any] = {"name": rng.choice(names)}
    if rng.random() < 0.8:
        function["description"] = pick(rng, descriptions)
    function["parameters"] = parameters
    return {"type": "function", "function": function}


def capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
