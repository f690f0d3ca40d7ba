"""The compiled hot loops of the int8 kernels are the ones that were designed.

A compiler may load a broadcast activation into a register of its own, or run out of registers and
keep weights on the stack: results stay right, and a third of the speed is gone.
"""

from __future__ import annotations

import re

import pytest

from native.machine_code import Loop, hot_loops

# Numbers of csrc/kernels/layouts.h.
W8, W4, W4K = 3, 4, 8
NAMES = {W8: "W8", W4: "W4", W4K: "W4k"}
UNITS = 8  # dot products of a row with a panel's group of 32 k


def of_layout(loops: list[Loop], layout: int) -> list[Loop]:
    found = [loop for loop in loops if loop.layout == layout]
    assert found, f"no function of Layout {layout} has a hot loop"
    return found


def designed_dots(loop: Loop) -> int | None:
    """What CodesTile's templates say: few_rows<ROWS> of one panel, many_rows*<0, 1> of two."""
    if rows := re.search(r"few_rows<(\d+)>", loop.function):
        return UNITS * int(rows[1])
    if panels := re.search(r"many_rows(?:_stepped)?<([^>]*)>", loop.function):
        return UNITS * len(panels[1].split(","))
    return None


def uses_of_loads(loop: Loop) -> list[int]:
    """How many dot products take each activation that is loaded into a register of its own."""
    uses: list[int] = []
    held: dict[str, int] = {}  # register to index of uses
    for text in loop.instructions:
        operands = re.findall(r"%[xyz]mm(\d+)", text)
        if text.startswith("vpdpbusd") and "{1to16}" not in text:
            if operands[0] in held:
                uses[held[operands[0]]] += 1
        elif re.match(r"vpbroadcastd\s+[^,]*\(%", text):
            held[operands[0]] = len(uses)
            uses.append(0)
        elif operands:
            held.pop(operands[-1], None)  # AT&T order: the last is written
    return [count for count in uses if count > 0]  # the others are scales and sums


def test_avx512_dot_products_take_activations_from_memory() -> None:
    """A broadcast is the memory operand of its dot product, or one load that panels share."""
    loops = hot_loops("avx512", "vpdpbusd")
    for layout in NAMES:
        assert any("few_rows" in loop.function for loop in of_layout(loops, layout))
    for loop in loops:
        dots = len(loop.having(r"^vpdpbusd"))
        embedded = len(loop.having(r"^vpdpbusd.*\{1to16\}"))
        assert dots == (designed_dots(loop) or dots), loop.function
        assert dots % UNITS == 0, loop.function
        uses = uses_of_loads(loop)
        assert sum(uses) == dots - embedded, loop.function
        odd_last_panel = "many_rows" in loop.function and dots == UNITS  # none to share with
        assert all(count >= 2 or odd_last_panel for count in uses), f"{uses}: {loop.function}"


@pytest.mark.parametrize("layout", NAMES, ids=NAMES.get)
def test_avx512_loops_do_not_spill(layout: int) -> None:
    """Codes, sums and scales of the commonest layouts stay in registers."""
    for loop in of_layout(hot_loops("avx512", "vpdpbusd"), layout):
        assert not loop.spills, loop.function


def test_avx2_uses_no_later_instructions() -> None:
    """AVX2's dot product is VPMADDUBSW: one for each unit of each row, in 256 bits."""
    loops = hot_loops("avx2", "vpmaddubsw")
    for loop in of_layout(loops, W4) + of_layout(loops, W8):
        dots = len(loop.having(r"^vpmaddubsw"))
        assert dots % UNITS == 0, loop.function
        assert not loop.having(r"%zmm|%k[0-7]|vpdpbusd"), loop.function
        if rows := re.search(r"run<(\d+)>", loop.function):
            assert dots == UNITS * int(rows[1]), loop.function


# Several rows share 16 registers with 8 of codes: gcc 12 keeps some of them on the stack.  As many
# for each VPMADDUBSW as there are, so that there will not be more.
@pytest.mark.parametrize(("layout", "bound"), [(W4, 0.8), (W8, 1.9)], ids=["W4", "W8"])
def test_avx2_loops_spill_little(layout: int, bound: float) -> None:
    """A row alone spills nothing; several do as little as they did."""
    for loop in of_layout(hot_loops("avx2", "vpmaddubsw"), layout):
        dots = len(loop.having(r"^vpmaddubsw"))
        allowed = 0 if dots == UNITS else bound * dots
        assert len(loop.spills) <= allowed, f"{len(loop.spills)} spills: {loop.function}"


def test_neon_dot_products_take_activations_by_lane() -> None:
    """A row meets eight columns in 16 SDOT, with two loads of activations and no spill."""
    loops = hot_loops("neon", "sdot")
    for layout in NAMES:
        of_layout(loops, layout)
    for loop in loops:
        if loop.layout is None:
            continue
        assert len(loop.having(r"^sdot")) == 2 * UNITS, loop.function
        assert not loop.spills, loop.function
        if loop.layout in NAMES:
            assert len(loop.having(r"^sdot.*\.4b\[[0-3]\]$")) == 2 * UNITS, loop.function
