"""The references themselves: what they show runs, what they name is there and tested; and what
our own pages show."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from references import references_folder

from spec.blocks import Block, read
from spec.coverage import coverage
from spec.run import Check, Face, aliases, faces, find_spec, run_block

FOLDER = references_folder()
FACES = {face.PACKAGE: face for face in faces()}
PAGES = Path(__file__).parents[2] / "docs" / "faces"


def blocks_of(face: Face) -> list[Block]:
    """Those of its reference, where that is, and the programs of its page."""
    found = [] if FOLDER is None else list(read(find_spec(FOLDER, face)).blocks)
    page = read(PAGES / f"{face.PACKAGE.replace('_', '-')}.md")
    return found + [block for block in page.blocks if block.language in ("python", "c")]


BLOCKS = [(face.PACKAGE, block) for face in faces() for block in blocks_of(face)]
needs_references = pytest.mark.skipif(FOLDER is None, reason="the references are not here")


@pytest.fixture(scope="module")
def checks() -> Iterator[Callable[[Face], Check]]:
    """The check of a face's other languages, while its blocks are run: two want the same port."""
    made: list[tuple[Face, Check]] = []
    with ExitStack() as stack:

        def of(face: Face) -> Check:
            if made and made[0][0] is face:
                return made[0][1]
            stack.close()
            made.clear()
            ports = getattr(face, "PORTS", ())
            if not all(map(is_free, ports)):
                pytest.skip(f"something listens on one of {ports}")
            made.append((face, stack.enter_context(face.checks())))
            return made[0][1]

        yield of


def is_free(port: int) -> bool:
    """Whether nobody else listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(("package", "block"), BLOCKS, ids=[block.id for _, block in BLOCKS])
def test_block(package: str, block: Block, checks: Callable[[Face], Check]):
    """An example runs, a declaration is kept, an answer has the shape that is printed."""
    face = FACES[package]
    with aliases(face):
        outcome = run_block(block, face, checks(face))
    assert not outcome.errors, "\n".join(outcome.errors)
    if outcome.verdict.how == "not run":
        pytest.skip(outcome.verdict.reason)


@needs_references
@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
def test_every_name_is_tested(face: Face):
    """No row of the table is empty."""
    assert FOLDER is not None
    _, missing = coverage(FOLDER, [face])
    assert not [name.text for name in missing]


@needs_references
def test_the_table_is_up_to_date():
    """COVERAGE.md is what the script makes of references and tests."""
    assert FOLDER is not None
    table = Path(__file__).parents[1] / "COVERAGE.md"
    assert table.read_text() == coverage(FOLDER, faces())[0] + "\n"
