"""What became of a reference's blocks, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from spec.blocks import Block

How: TypeAlias = Literal["run", "checked", "not run"]


@dataclass(frozen=True)
class Verdict:
    """
    What a check has found.

    Args:
        how: the block was run or sent; what it declares or shows was compared with what is
            there; or nothing was done.
        errors: what went wrong.
        reason: why nothing was done.
    """

    how: How
    errors: tuple[str, ...] = ()
    reason: str = ""


def ran(errors: Iterable[str] = ()) -> Verdict:
    """It was run, or sent."""
    return Verdict("run", tuple(errors))


def checked(errors: Iterable[str] = ()) -> Verdict:
    """It was compared with what is there."""
    return Verdict("checked", tuple(errors))


def not_run(reason: str) -> Verdict:
    """Nothing was done, for that reason."""
    return Verdict("not run", (), reason)


@dataclass(frozen=True)
class Outcome:
    """
    What became of a block.

    Args:
        block: which.
        verdict: what was done with it, and what went wrong.
    """

    block: Block
    verdict: Verdict

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong."""
        return self.verdict.errors


def report(spec: str, outcomes: list[Outcome]) -> str:
    """What went wrong, what was not run and why, and counts."""
    lines = []
    for outcome in outcomes:
        block, verdict = outcome.block, outcome.verdict
        place = f"{block.id} (line {block.line}, {' > '.join(block.headings[-2:])})"
        if verdict.errors:
            lines.append(f"{place}:")
            lines += [f"    {line}" for error in verdict.errors for line in error.splitlines()]
        if verdict.how == "not run":
            lines.append(f"{place}: not run, {verdict.reason}")
    counts = Counter(outcome.verdict.how for outcome in outcomes)
    failed = sum(bool(outcome.errors) for outcome in outcomes)
    languages = Counter(outcome.block.language or "text" for outcome in outcomes)
    lines.append(
        f"{spec}: {len(outcomes)} blocks ("
        + ", ".join(f"{count} {language}" for language, count in languages.most_common())
        + f"): {counts['run']} run, {counts['checked']} checked, {counts['not run']} not run, "
        f"{failed} failed"
    )
    return "\n".join(lines)
