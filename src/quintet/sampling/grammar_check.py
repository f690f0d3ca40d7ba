"""Constraints tried out in a helper process before the engine's own process compiles them.

The compiler is bounded by its fuel and by what `grammar` looks at before; should a source get past
both and take for ever, all memory, or the stack, it does so in a process that nobody misses.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from quintet.sampling.constraint import Constraint
from quintet.sandbox.helper import Limits
from quintet.sandbox.pool import Pool, Refused
from quintet.tokenizer import Tokenizer

_MAX_KNOWN: Final = 256


class GrammarCheck:
    """
    Tries constraints out for one model.  Safe to use from several threads.

    Args:
        tokenizer: of the model.
        limits: of one constraint.
    """

    def __init__(self, tokenizer: Tokenizer, limits: Limits | None = None) -> None:
        ids = range(tokenizer.vocab_size)
        control = [(i, tokenizer.token_text(i)) for i in ids if tokenizer.is_special(i)]
        setup = [tokenizer.vocab_size, control, sorted(tokenizer.eog_ids)]
        self._pool = Pool("quintet.sampling.grammar_helper", setup, limits, size=1)
        self._lock = threading.Lock()
        self._known: OrderedDict[Constraint, None] = OrderedDict()  # to compile, lately used last

    def check(self, constraint: Constraint) -> None:
        """Raise what compiling it raises.

        Raises:
            RequestError: it does not compile, or not within the limits; carries
                `constraint.parameter`.
            CapacityError: too many others wait for one that takes long.
        """
        with self._lock:
            if constraint in self._known:
                self._known.move_to_end(constraint)
                return
        try:
            self._pool.run([constraint.kind, constraint.source, constraint.parameter])
        except Refused as error:
            raise constraint.refusal(f"compiling it {error.reason}") from None
        with self._lock:
            self._known[constraint] = None
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)

    def close(self) -> None:
        """End the helper.  Idempotent."""
        self._pool.close()
