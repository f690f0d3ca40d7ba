"""The helper process of `grammar_check`: compiles constraints for a vocabulary of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import llguidance  # noqa: F401 - once limits hold, no module can be loaded any more

from quintet.parsing.thinking import Thinking
from quintet.sampling.constraint import Constraint
from quintet.sampling.grammar import GrammarCompiler
from quintet.sandbox.child import Work, serve
from quintet.tokenizer import Tokenizer


class ByteVocabulary:
    """
    A token per byte, and a model's control tokens under the ids they have there.

    What a grammar means and what compiling it takes does not depend on the other tokens.  This is
    the part of `Tokenizer` that a `GrammarCompiler` uses.

    Args:
        vocab_size: of the model.
        control: spelling of its control tokens by id.
        eog_ids: those that end an answer.
    """

    def __init__(self, vocab_size: int, control: dict[int, str], eog_ids: Sequence[int]) -> None:
        self.vocab_size = max(vocab_size, 256 + len(control), 1 + max(control, default=0))
        free = (token_id for token_id in range(self.vocab_size) if token_id not in control)
        self._byte_ids = [token_id for token_id, _ in zip(free, range(256), strict=False)]
        self._control = control
        self._bytes = {token_id: bytes([byte]) for byte, token_id in enumerate(self._byte_ids)}
        self.eog_ids = frozenset(eog_ids)
        self.bos_id: int | None = None
        self.eos_id: int | None = min(eog_ids, default=None)

    def token_bytes(self, token_id: int) -> bytes:
        """A byte, a control token's spelling, or nothing."""
        if token_id in self._control:
            return self._control[token_id].encode()
        return self._bytes.get(token_id, b"")

    def is_special(self, token_id: int) -> bool:
        """Whether this is a control token."""
        return token_id in self._control

    def token_to_id(self, text: str) -> int | None:
        """The id of a control token."""
        return next((i for i, spelling in self._control.items() if spelling == text), None)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """A token per byte."""
        return [self._byte_ids[byte] for byte in text.encode(errors="replace")]


def main() -> None:
    """Serve the client at the other end of stdin and stdout."""
    serve(_prepare)


def _prepare(setup: Any) -> Work:
    vocab_size, control, eog_ids = setup
    vocabulary = ByteVocabulary(vocab_size, dict(control), eog_ids)
    compiler = GrammarCompiler(cast("Tokenizer", vocabulary), vocabulary.eog_ids)
    compiler.matcher(Constraint.choice(["a"]), Thinking.NONE)  # the library's own setting up

    def check(task: Any) -> None:
        kind, source, parameter = task
        compiler.matcher(Constraint(kind, source, parameter), Thinking.NONE)

    return check


if __name__ == "__main__":
    main()
