"""The code blocks of a reference, and where they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*([\w+-]*)")


@dataclass(frozen=True)
class Block:
    """
    A code block.

    Args:
        spec: the file's number, e.g. "000".
        number: from 1.
        line: of its first line of code, from 1.
        language: as the fence says, lower case.
        headings: those it stands under, outermost first.
        label: the last line of text before it, e.g. "**Request:**".
        text: the code.
    """

    spec: str
    number: int
    line: int
    language: str
    headings: tuple[str, ...]
    label: str
    text: str

    @property
    def id(self) -> str:
        """How tests call it."""
        return f"{self.spec}-{self.number:02d}"


@dataclass(frozen=True)
class Entry:
    """
    A name that a list or table of a reference explains.

    Args:
        headings: those it stands under.
        name: without its quotes.
    """

    headings: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Reference:
    """
    A reference, read.

    Args:
        spec: the file's number.
        blocks: its code.
        entries: names in the first column of tables and at the start of list items.
        headings: all of them, each with those above it.
    """

    spec: str
    blocks: tuple[Block, ...]
    entries: tuple[Entry, ...]
    headings: tuple[tuple[str, ...], ...]


_ENTRY = re.compile(r"^\s*(?:[-*]|\|)\s*`([^`]+)`\s*(?::|\|)")


def read(path: Path) -> Reference:
    """Read a reference: Markdown, in UTF-8."""
    spec = path.name.split("_")[0]
    blocks: list[Block] = []
    entries: list[Entry] = []
    headings: list[tuple[int, str]] = []
    all_headings: list[tuple[str, ...]] = []
    label, fence, language, start = "", "", "", 0
    code: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if fence:
            if line.strip() == fence:
                above = tuple(text for _, text in headings)
                text = "\n".join(code) + "\n"
                blocks.append(Block(spec, len(blocks) + 1, start, language, above, label, text))
                fence, label = "", ""
            else:
                code.append(line)
        elif opened := _FENCE.match(line):
            fence, language, start, code = opened[1], opened[2].lower(), number + 1, []
        elif heading := _HEADING.match(line):
            level = len(heading[1])
            headings = [each for each in headings if each[0] < level]
            headings.append((level, heading[2]))
            all_headings.append(tuple(text for _, text in headings))
            label = ""
        else:
            label = line.strip() or label
            if entry := _ENTRY.match(line):
                entries.append(Entry(tuple(text for _, text in headings), entry[1]))
    return Reference(spec, tuple(blocks), tuple(entries), tuple(all_headings))
