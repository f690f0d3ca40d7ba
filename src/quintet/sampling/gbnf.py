"""GBNF grammars in the words of Lark.

Rules that use no others but such rules become terminals (upper case), which the matcher reads
with an automaton instead of a parser.

Source: llama.cpp, grammars/README.md; llguidance, docs/syntax.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\#[^\r\n]*)
      | (?P<newline>\r\n?|\n)
      | (?P<define>::=)
      | (?P<name>[a-zA-Z0-9_-]+)
      | (?P<literal>"(?:[^"\\\r\n]|\\.)*")
      | (?P<chars>\[(?:[^\]\\\r\n]|\\.)*\])
      | (?P<repeat>[*+?]|\{[0-9 ,]*\})
      | (?P<mark>[|().])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|(?P<c>.))"
)
_CHARACTER = re.compile(rf"{_ESCAPE.pattern}|.", re.DOTALL)
_SIMPLE_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", **{c: c for c in '\\"[]-^'}}


class GBNFError(ValueError):
    """The grammar breaks the notation; says where."""


@dataclass
class _Rule:
    """A rule's right side: Lark text, with the names of rules in it not yet replaced."""

    parts: list[tuple[str, str]] = field(default_factory=list)  # ("name" or "text", value)
    is_terminal: bool = False

    @property
    def references(self) -> Iterator[str]:
        return (value for kind, value in self.parts if kind == "name")


def gbnf_to_lark(source: str) -> str:
    """A GBNF grammar as a Lark grammar.

    Raises:
        GBNFError: not GBNF, or a rule is missing.
    """
    rules = _Parser(source).rules()
    if "root" not in rules:
        raise GBNFError("expected a rule named root")
    for name, rule in rules.items():
        for reference in rule.references:
            if reference not in rules:
                raise GBNFError(f"rule {name}: expected a rule named {reference}, found none")
    _mark_terminals(rules)
    names = {
        name: f"T{index}" if rule.is_terminal else f"r{index}"
        for index, (name, rule) in enumerate(rules.items())
    }
    lines = [f"start: {names['root']}"]
    for name, rule in rules.items():
        body = " ".join(names[value] if kind == "name" else value for kind, value in rule.parts)
        lines.append(f"{names[name]}: {body}")
    return "\n".join(lines) + "\n"


def _mark_terminals(rules: dict[str, _Rule]) -> None:
    """Each rule once, when the last rule it refers to has turned out to be a terminal."""
    users: dict[str, list[str]] = {name: [] for name in rules}
    num_open = {}
    for name, rule in rules.items():
        references = set(rule.references)
        num_open[name] = len(references)
        for reference in references:
            users[reference].append(name)
    ready = [name for name, count in num_open.items() if count == 0]
    while ready:
        name = ready.pop()
        rules[name].is_terminal = True
        for user in users[name]:
            num_open[user] -= 1
            if num_open[user] == 0:
                ready.append(user)


class _Parser:
    """One pass over the tokens; brackets are counted rather than recursed into."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._position = 0

    def rules(self) -> dict[str, _Rule]:
        rules: dict[str, _Rule] = {}
        tokens = self._tokens()
        pending = next(tokens, None)
        while pending is not None:
            kind, value = pending
            if kind == "newline":
                pending = next(tokens, None)
                continue
            if kind != "name" or next(tokens, ("", ""))[0] != "define":
                raise self._error("expected the name of a rule and ::=")
            if value in rules:
                raise self._error(f"expected one rule named {value}, found two")
            rules[value] = self._body(tokens)
            pending = next(tokens, None)
        return rules

    def _body(self, tokens: Iterator[tuple[str, str]]) -> _Rule:
        """The right side of a rule, up to the end of its line."""
        rule = _Rule()
        depth = 0
        is_empty = True  # of the alternative being read
        for kind, value in tokens:
            if kind == "newline":
                if depth == 0 and rule.parts and rule.parts[-1] != ("text", "|"):
                    break
                continue
            if kind == "mark" and value in "|)":
                if is_empty:
                    rule.parts.append(("text", '""'))
                depth -= value == ")"
                if depth < 0:
                    raise self._error("expected no ) here")
            depth += value == "(" and kind == "mark"
            if kind == "repeat" and is_empty:
                raise self._error("expected something to repeat")
            is_empty = kind == "mark" and value in "|("
            rule.parts.append((kind if kind == "name" else "text", self._lark(kind, value)))
        if depth != 0:
            raise self._error("expected )")
        if is_empty:
            rule.parts.append(("text", '""'))
        return rule

    def _lark(self, kind: str, value: str) -> str:
        if kind == "define":
            raise self._error("expected a new line before the next rule")
        if kind == "literal":
            return json.dumps("".join(self._characters(value[1:-1])), ensure_ascii=True)
        if kind == "chars":
            return self._char_class(value[1:-1])
        if kind == "repeat":
            return value.replace(" ", "")
        return "/(?s:.)/" if value == "." and kind == "mark" else value

    def _char_class(self, body: str) -> str:
        is_negated = body.startswith("^")
        characters = list(self._characters(body[is_negated:], keep_ranges=True))
        if not characters:
            raise self._error("expected characters between [ and ]")
        inside = "".join("-" if c == "-range-" else f"\\x{{{ord(c):x}}}" for c in characters)
        return f"/[{'^' if is_negated else ''}{inside}]/"

    def _characters(self, body: str, *, keep_ranges: bool = False) -> Iterator[str]:
        """The characters that a body spells; a range's dash comes as "-range-"."""
        previous_is_character = False
        for match in _CHARACTER.finditer(body):
            text = match[0]
            is_inner = previous_is_character and match.end() < len(body)
            if keep_ranges and text == "-" and is_inner:
                previous_is_character = False
                yield "-range-"
                continue
            previous_is_character = True
            if len(text) == 1:
                if text == "\\":
                    raise self._error("expected something after \\")
                yield text
            elif match["c"] is not None:
                if match["c"] not in _SIMPLE_ESCAPES:
                    raise self._error(f"expected an escape, found {text}")
                yield _SIMPLE_ESCAPES[match["c"]]
            else:
                code = int(match["x"] or match["u"] or match["U"], 16)
                if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                    raise self._error(f"expected a character, found {text}")
                yield chr(code)

    def _tokens(self) -> Iterator[tuple[str, str]]:
        while self._position < len(self._source):
            match = _TOKEN.match(self._source, self._position)
            if match is None or match.lastgroup is None:
                found = self._source[self._position : self._position + 10]
                raise self._error(f"expected GBNF, found {found!r}")
            self._position = match.end()
            if match.lastgroup != "space":
                yield match.lastgroup, match[0]

    def _error(self, message: str) -> GBNFError:
        line = self._source.count("\n", 0, self._position) + 1
        return GBNFError(f"line {line}: {message}")
