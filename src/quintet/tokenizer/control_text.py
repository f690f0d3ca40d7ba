"""Conversations to token ids, with control tokens from the template alone.

A message may spell a control token ("<|im_end|>"), and a template may put two harmless strings
together so that they spell one.  Neither must end the user's turn.

Method: render the conversation twice, once as it is and once with a mark, a character that occurs
nowhere in it, inside everything in the user's strings that could be part of such a spelling.  What
still reads as a control token between the marks was written by the template.  If that is all there
is in the unmarked text too, the unmarked text is encoded; otherwise the text between the
template's control tokens is encoded piece by piece as plain text.

Marking every character a control token starts with is safest but can be seen by a template that
looks into a message (Qwen3 for `</think>`).  When the marked text without its marks is not the
unmarked text, only whole spellings and those cut off at the end of a string are marked.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

from tokenizers import AddedToken

from quintet.errors import RequestError
from quintet.tokenizer.chat import plain_json
from quintet.tokenizer.codec import CONTROL_KINDS, Codec, Matcher, encode_text
from quintet.tokenizer.vocabulary import ids_of_kinds


class Template(Protocol):
    """A chat template, wherever it is rendered."""

    def render(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """The conversation as text; see `ChatTemplate.render`."""


class ChatEncoder:
    """Renders conversations and encodes them for one vocabulary.

    Args:
        codec: the vocabulary.
        encode_special: token ids of a text whose control tokens all count.
    """

    def __init__(self, codec: Codec, encode_special: Callable[[str], list[int]]) -> None:
        self._codec = codec
        self._encode_special = encode_special
        self._spellings = _Spellings([token for token in codec.added if token.special])
        self._control_ids = {
            codec.tokens[token_id]: token_id
            for token_id in ids_of_kinds(codec.kinds, CONTROL_KINDS)
        }

    def encode(
        self,
        template: Template,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
    ) -> list[int]:
        """Token ids of the rendered conversation.

        Args:
            options: as for `ChatTemplate.render`.
        """
        given = {"messages": plain_json(messages, "messages"), **plain_json(options, "options")}
        text = template.render(**given)
        if not any(self._spellings.marks(string) for string in _strings(given)):
            return self._encode_special(text)
        mark = _unused_character(text, given)
        marked = self._render_marked(template, given, mark, text)
        if self._spellings.find_all(text) == self._spellings.find_all(marked, mark):
            return self._encode_special(text)
        return self._encode_pieces(marked, mark)

    def _render_marked(
        self, template: Template, given: Mapping[str, Any], mark: str, text: str
    ) -> str:
        try:
            marked = template.render(**_mapped(given, lambda s: self._spellings.mark(s, mark)))
        except RequestError:
            marked = ""  # a template that counts characters
        if marked.replace(mark, "") == text:
            return marked
        return template.render(
            **_mapped(given, lambda s: self._spellings.mark(s, mark, only_whole=True))
        )

    def _encode_pieces(self, marked: str, mark: str) -> list[int]:
        ids: list[int] = []
        text = marked.replace(mark, "")
        start = 0
        for match in [*self._spellings.find_all(marked, mark), None]:
            piece = text[start : None if match is None else match.start]
            if piece and start == 0:
                ids += encode_text(self._plain_after_anchor, piece)
            elif piece:
                # What stands before decides whether SentencePiece puts a space first.
                ids += encode_text(self._plain_after_anchor, self._anchor + piece)[1:]
            if match is not None:
                ids.append(self._control_ids[match.token])
                start = match.end
        return ids

    @cached_property
    def _anchor(self) -> str:
        return f"<anchor {secrets.token_hex(16)}>"  # nobody can write this into a message

    @cached_property
    def _plain_after_anchor(self) -> Matcher:
        anchor = AddedToken(self._anchor, normalized=False, special=False)
        return self._codec.matcher(parse_special=False, extra=[anchor])


@dataclass(frozen=True)
class _Match:
    """A control token in a text: `start` to `end`, not counting marks."""

    token: str
    start: int
    end: int


class _Spellings:
    """Finds the spellings of control tokens: leftmost, then longest, in linear time."""

    def __init__(self, tokens: Sequence[AddedToken]) -> None:
        self._tokens = {token.content: token for token in tokens}
        self._trie: dict[str, Any] = {}
        for content in self._tokens:
            node = self._trie
            for character in content:
                node = node.setdefault(character, {})
            node[""] = content
        first = "".join(map(re.escape, self._trie))
        self._first = re.compile(f"[{first}]" if first else "(?!)")
        # A template that writes "[" before a name must not be completed by the name "INST]".
        self._endings = {
            content[cut:] for content in self._tokens for cut in range(1, len(content))
        }
        self._longest = max(map(len, self._tokens), default=0)

    def marks(self, text: str) -> bool:
        """Whether `mark` would change the text."""
        return self._first.search(text) is not None or self._continues(text)

    def mark(self, text: str, mark: str, *, only_whole: bool = False) -> str:
        """The text with a mark after each character that could start a control token.

        Args:
            only_whole: only where a whole spelling stands, or the text ends within one.
        """
        if only_whole:
            end = len(text.rstrip())
            return self._first.sub(
                lambda at: at[0] + mark if self._reads(text, at.start(), end) else at[0], text
            )
        marked = self._first.sub(lambda at: at[0] + mark, text)
        if self._continues(text):
            body = marked.lstrip()
            marked = marked[: len(marked) - len(body)] + mark + body
        return marked

    def find_all(self, text: str, mark: str = "") -> list[_Match]:
        """Every control token that stands unmarked in the text."""
        matches = []
        position = num_marks = counted_to = 0
        while (first := self._first.search(text, position)) is not None:
            start = first.start()
            token = self._longest_at(text, start)
            position = start + 1
            if token is None or (mark and text.startswith(mark, start + len(token))):
                continue  # a mark after a single-character token is inside it, in effect
            end = start + len(token)
            start, end = self._with_stripped_space(text, token, start, end)
            num_marks += text.count(mark, counted_to, start) if mark else 0
            counted_to = start
            matches.append(_Match(token, start - num_marks, end - num_marks))
            position = end
        return matches

    def _with_stripped_space(self, text: str, token: str, start: int, end: int) -> tuple[int, int]:
        """Some tokens swallow the white space beside them."""
        if self._tokens[token].lstrip:
            while start > 0 and text[start - 1].isspace():
                start -= 1
        if self._tokens[token].rstrip:
            while end < len(text) and text[end].isspace():
                end += 1
        return start, end

    def _longest_at(self, text: str, start: int) -> str | None:
        found = None
        node = self._trie
        for character in text[start : start + self._longest]:
            if (child := node.get(character)) is None:
                break
            node = child
            found = node.get("", found)
        return found

    def _reads(self, text: str, start: int, end: int) -> bool:
        """Whether a spelling starts here, or would if the text went on after `end`."""
        node = self._trie
        for character in text[start : start + self._longest]:
            if start == end:
                return True
            if (child := node.get(character)) is None:
                return False
            node = child
            if "" in node:
                return True
            start += 1
        return start >= end

    def _continues(self, text: str) -> bool:
        """Whether the text starts with the rest of some spelling."""
        body = text.lstrip()[: self._longest]
        return any(body[:length] in self._endings for length in range(1, len(body) + 1))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [string for pair in value.items() for item in pair for string in _strings(item)]
    if isinstance(value, list):
        return [string for item in value for string in _strings(item)]
    return []


def _mapped(value: Any, change: Callable[[str], str], *, is_top: bool = True) -> Any:
    """JSON-like data with every string changed, but not the names of the options."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            (key if is_top else change(key)): _mapped(item, change, is_top=False)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_mapped(item, change, is_top=False) for item in value]
    return value


def _unused_character(text: str, given: Mapping[str, Any]) -> str:
    """A character that is neither in the rendered text nor in what it came from.

    Cuneiform and rare Chinese characters have no upper case, are no white space, and stay what
    they are in JSON and in Python's `repr`, which templates write lists with.
    """
    used = set(text).union(*_strings(dict(given)))
    candidates = chain(range(0x12000, 0x1239A), range(0x20000, 0x2A6E0))
    mark = next((chr(code) for code in candidates if chr(code) not in used), None)
    if mark is None:
        raise RequestError("too many different characters", parameter="messages")
    return mark
