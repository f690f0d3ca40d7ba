"""Hot loops of compiled kernels: what objdump shows of an object file, cut into innermost loops."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "csrc" / "kernels"

GCC = 12  # another allocates registers in its own way

_FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>.*)>:$")
_INSTRUCTION = re.compile(r"^ *(?P<address>[0-9a-f]+):\s+(?P<text>\S.*)$")
# Jumps of x86-64 and of AArch64, whose operands before the target are a register and a bit.
_JUMP = re.compile(r"^(?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)\s+(?:\w+, )?(?:#\d+, )?(?P<to>[0-9a-f]+) <")
_LAYOUT = re.compile(r"\(quintet::Layout\)(\d+)")
_VECTOR = re.compile(r"%[xyz]mm\d|\bq\d|\bv\d")


@dataclass(frozen=True)
class Loop:
    """
    An innermost loop.

    Args:
        function: the demangled name of the function it is in.
        instructions: in order, the jump back last.
        frame: the registers its function addresses its stack by.
    """

    function: str
    instructions: tuple[str, ...]
    frame: tuple[str, ...]

    @property
    def layout(self) -> int | None:
        """The `Layout` its function is an instance for."""
        found = _LAYOUT.search(self.function)
        return int(found[1]) if found else None

    def having(self, pattern: str) -> list[str]:
        """Those of its instructions where the pattern is found."""
        return [text for text in self.instructions if re.search(pattern, text)]

    @property
    def spills(self) -> list[str]:
        """
        Instructions that move a vector to or from the stack, or take one from there.

        With an index it is an element of an array: nothing that was in a register.
        """
        return [
            text
            for text in self.instructions
            if _VECTOR.search(text)
            and any(register in text and f"{register},%" not in text for register in self.frame)
        ]


def hot_loops(isa: str, instruction: str) -> list[Loop]:
    """
    The innermost loops with an instruction, of all objects of csrc/kernels/<isa>/linear*.cpp.

    They are those of the newest build under build/, or under QUINTET_TEST_BUILD. Skips the test
    where there is none, where it is older than its source or by another compiler than the loops
    were tuned with, or without an objdump that reads it.
    """
    objects = _objects(isa)
    loops = [loop for path in objects for loop in _loops(_disassemble(isa, path))]
    return [loop for loop in loops if loop.having(rf"^{instruction}\b")]


def _objects(isa: str) -> list[Path]:
    """The object files of the newest optimised build, without sanitizers."""
    root = Path(os.environ.get("QUINTET_TEST_BUILD", ROOT / "build"))
    pattern = f"csrc/kernels/CMakeFiles/quintet_kernels.dir/{isa}/linear*.o"
    found = [path for path in (*root.glob(pattern), *root.glob(f"*/{pattern}")) if _is_plain(path)]
    if not found:
        pytest.skip(f"no objects of csrc/kernels/{isa} under {root}")
    newest = max(found, key=lambda path: path.stat().st_mtime).parent
    objects = [path for path in found if path.parent == newest]
    sources = [*KERNELS.glob("*.h"), *(KERNELS / isa).iterdir()]
    built = min(path.stat().st_mtime for path in objects)
    if any(source.stat().st_mtime > built for source in sources):
        pytest.skip(f"{newest} is older than csrc/kernels")
    if any(_gcc_version(path) != GCC for path in objects):
        pytest.skip(f"{newest} is not by GCC {GCC}")
    return objects


def _is_plain(path: Path) -> bool:
    return b"__asan_" not in path.read_bytes()


def _gcc_version(path: Path) -> int:
    """The major version that the compiler left in .comment; 0 for other compilers."""
    found = re.search(rb"GCC: \([^)]*\) (\d+)\.", path.read_bytes())
    return int(found[1]) if found else 0


def _disassemble(isa: str, path: Path) -> str:
    names = ["aarch64-linux-gnu-objdump", "objdump"] if isa == "neon" else ["objdump"]
    for tool in filter(shutil.which, names):
        command = [tool, "--disassemble", "--demangle", "--no-show-raw-insn", str(path)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if run.returncode == 0 and ">:" in run.stdout:
            return run.stdout
    pytest.skip(f"no objdump that reads {path.name} of {isa}")


def _loops(listing: str) -> Iterator[Loop]:
    name = ""
    code: list[tuple[int, str]] = []
    for line in listing.splitlines():
        if found := _FUNCTION.match(line):
            yield from _loops_of(name, code)
            name, code = found["name"], []
        elif found := _INSTRUCTION.match(line):
            code.append((int(found["address"], 16), found["text"]))
    yield from _loops_of(name, code)


def _loops_of(name: str, code: list[tuple[int, str]]) -> Iterator[Loop]:
    """A loop is what a jump back jumps over; it is innermost if no other lies inside."""
    index = {address: i for i, (address, _) in enumerate(code)}
    spans = []
    for i, (_, text) in enumerate(code):
        jump = _JUMP.match(text)
        begin = index.get(int(jump["to"], 16)) if jump else None
        if begin is not None and begin <= i:
            spans.append((begin, i))
    frame = ["(%rsp", "[sp"]
    # %rbp is a register like others unless the function makes it its frame.
    if any(re.match(r"mov +%rsp,%rbp", text) for _, text in code):
        frame.append("(%rbp")
    for begin, end in spans:
        inner = any(begin <= b and e <= end and (b, e) != (begin, end) for b, e in spans)
        if not inner:
            body = tuple(text for _, text in code[begin : end + 1])
            yield Loop(name, body, tuple(frame))
