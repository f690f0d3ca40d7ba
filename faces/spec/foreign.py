"""What blocks of C and Rust declare."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from spec.blocks import Block

Kind: TypeAlias = Literal["type", "callable", "field"]


@dataclass(frozen=True)
class Item:
    """
    Something declared.

    Args:
        kind: what it is; an enumeration's members are fields.
        owner: its type, "" for none.
        name: itself.
        parameters: of a callable, without the receiver.
    """

    kind: Kind
    owner: str
    name: str
    parameters: tuple[str, ...] = ()


_C_STRUCT = re.compile(r"typedef struct \{(.*?)\}\s*(\w+);", re.DOTALL)
_C_MEMBER = re.compile(r"(\w+);")
_C_FUNCTION = re.compile(r"^[\w *]+?\b(\w+)\(([^()]*)\);", re.MULTILINE)
_LAST_WORD = re.compile(r"(\w+)\s*$")

_RUST_COMMENT = re.compile(r"//.*")
_RUST_TYPE = re.compile(r"^(?:pub )?(struct|enum|trait|impl) (\w+)")
_RUST_FUNCTION = re.compile(r"\b(?:async )?fn (\w+)\(([^{;]*?)\)(?: ->[^;{]*)?[;{]", re.DOTALL)
_RUST_PARAMETER = re.compile(r"(?:mut )?\b(\w+):(?!:)")
_RUST_FIELD = re.compile(r"^    pub (\w+):", re.MULTILINE)
_RUST_MEMBER = re.compile(r"^    ([A-Z]\w*)", re.MULTILINE)


def items_of(block: Block) -> list[Item]:
    """What a block declares; nothing in an example or in another language."""
    if block.language == "c" and "Example" not in block.label:
        return list(_of_c(block.text))
    if block.language == "rust" and re.search(r"^pub ", block.text, re.MULTILINE):
        return list(_of_rust(block.text))
    return []


def _of_c(text: str) -> Iterator[Item]:
    text = _RUST_COMMENT.sub("", text)
    for members, name in _C_STRUCT.findall(text):
        yield Item("type", "", name)
        yield from (Item("field", name, member) for member in _C_MEMBER.findall(members))
    for name, parameters in _C_FUNCTION.findall(text):
        words = (_LAST_WORD.search(each) for each in parameters.split(","))
        yield Item("callable", "", name, tuple(word[1] for word in words if word))


def _of_rust(text: str) -> Iterator[Item]:
    """Items start at the beginning of a line, and what belongs to them is indented."""
    pieces = re.split(r"\n(?=\S)", _RUST_COMMENT.sub("", text))
    for piece in pieces:
        head = _RUST_TYPE.match(piece)
        if head is None:
            if piece.startswith("pub fn"):
                yield from _functions("", piece)
        elif not piece.startswith("impl From"):  # a conversion into another library's type
            kind, name = head.groups()
            if kind != "impl":
                yield Item("type", "", name)
            pattern = _RUST_MEMBER if kind == "enum" else _RUST_FIELD
            yield from (Item("field", name, each) for each in pattern.findall(piece))
            yield from _functions(name, piece)


def _functions(owner: str, text: str) -> Iterator[Item]:
    for name, parameters in _RUST_FUNCTION.findall(text):
        words = tuple(_RUST_PARAMETER.findall(parameters))
        # `Engine::new(...)` is Engine(...).
        place = ("", owner) if name == "new" else (owner, name)
        yield Item("callable", place[0], place[1], words)
