"""Constraints compiled for one vocabulary, with llguidance, within limits.

Compiling may take a second for a hostile source, so it is never done in the engine's loop.  What
bounds it: the size of the source, the nesting, the number of rules and of repetitions, all looked
at before; the fuel of llguidance's lexer and parser, while compiling and at each step.

Every grammar is compiled with `no_forcing`: otherwise llguidance first works out all text that a
grammar leaves no choice about, which for `a{1000000000}` takes for ever.

Source: llguidance 1.9, docs/syntax.md and python/llguidance/_lib.pyi.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quintet.parsing.thinking import Thinking
from quintet.sampling.constraint import MAX_JSON_DEPTH, Constraint
from quintet.sampling.gbnf import GBNFError, gbnf_to_lark
from quintet.sampling.matcher import ConstraintMatcher, MatcherVocabulary
from quintet.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance

MAX_DEPTH: Final = 64
MAX_RULES: Final = 512  # llguidance recurses along chains of rules: 3000 overflow its stack
MAX_REPETITIONS: Final = 2000  # llama.cpp's limit
MAX_MULTIPLE: Final = 10_000  # an automaton that divides by n has n states
MAX_LEXER_STATES: Final = 50_000  # 1 to 2 KB each, per answer
INITIAL_LEXER_FUEL: Final = 250_000  # a quarter of the default, which can take 2 s to use up
MAX_CACHED_BYTES: Final = 256 * 1024  # of sources; the worst take 500 times their size in memory

_NO_FORCING = '\n%llguidance {"no_forcing": true}\n'
# One line as models are taught to write it, with or without the spaces; or indented.  Unbounded
# white space would let a model write nothing else.
_JSON_FORM = {
    "whitespace_flexible": False,
    "item_separator": r",(?: |\n {0,32})?",
    "key_separator": ": ?",
}
_BRACKET_DEPTH = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
# Expressions for clients' text: no two neighbours that may match the same, or it is quadratic.
_REPETITION = re.compile(
    r"\{\s*(?:([0-9]+)\s*)?(?:,\s*(?:([0-9]+)\s*)?)?\}|~\s*([0-9]+)(?:\s*\.\.\s*([0-9]+))?"
)
_MULTIPLE = re.compile(r'"multipleOf"\s*:\s*([0-9.eE+-]{1,400})')
_ESCAPED_ASCII = re.compile(r"\\u00[2-7]")


class GrammarCompiler:
    """
    Compiles constraints for one model.  Safe to use from several threads.

    What it has compiled it keeps for the next request, up to a bound.

    Args:
        tokenizer: of the model.
        eos_ids: tokens that end an answer.
    """

    def __init__(self, tokenizer: Tokenizer, eos_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids
        self._lock = threading.Lock()
        self._compiled: OrderedDict[Constraint, llguidance.LLMatcher] = OrderedDict()
        self._vocabulary: MatcherVocabulary | None = None
        self._library_tokenizer: llguidance.LLTokenizer | None = None

    def matcher(
        self,
        constraint: Constraint | None,
        thinking: Thinking,
        max_thinking_tokens: int | None = None,
    ) -> ConstraintMatcher:
        """A fresh matcher for one answer; see `ConstraintMatcher`.

        Raises:
            RequestError: the constraint does not compile, or is beyond the limits; carries
                `constraint.parameter`.
        """
        if constraint is None:
            return ConstraintMatcher(
                None, self._matcher_vocabulary(), thinking, max_thinking_tokens
            )
        with self._lock:
            compiled = self._compiled.get(constraint)
            if compiled is not None:
                self._compiled.move_to_end(constraint)
        if compiled is None:
            compiled = self._compile(constraint)
            self._keep(constraint, compiled)
        vocabulary = self._matcher_vocabulary()
        return ConstraintMatcher(compiled.deep_copy(), vocabulary, thinking, max_thinking_tokens)

    def _compile(self, constraint: Constraint) -> llguidance.LLMatcher:
        import llguidance

        lark = _lark(constraint)
        # Without the texts of client and state in its messages; without work ahead of its use.
        limits = llguidance.LLParserLimits(
            verbose_errors=False,
            precompute_large_lexemes=False,
            max_lexer_states=MAX_LEXER_STATES,
            initial_lexer_fuel=INITIAL_LEXER_FUEL,
        )
        matcher = llguidance.LLMatcher(
            self._llguidance_tokenizer(),
            llguidance.LLMatcher.grammar_from_lark(lark),
            log_level=0,
            limits=limits,
        )
        # The first mask shows what compiling does not: a grammar without any text, or one too
        # large for its first step.
        probe = matcher if matcher.is_error() else matcher.deep_copy()
        if not probe.is_error():
            probe.compute_bitmask()
        if probe.is_error():
            raise constraint.refusal(f"does not compile: {_first_line(probe.get_error())}")
        return matcher

    def _keep(self, constraint: Constraint, compiled: llguidance.LLMatcher) -> None:
        with self._lock:
            self._compiled[constraint] = compiled
            size = sum(len(kept.source) for kept in self._compiled)
            while size > MAX_CACHED_BYTES or len(self._compiled) > 64:
                oldest, _ = self._compiled.popitem(last=False)
                size -= len(oldest.source)

    def _matcher_vocabulary(self) -> MatcherVocabulary:
        if self._vocabulary is None:
            self._vocabulary = MatcherVocabulary(self._tokenizer, self._eos_ids)
        return self._vocabulary

    def _llguidance_tokenizer(self) -> llguidance.LLTokenizer:
        import llguidance

        with self._lock:  # the trie of 150,000 tokens takes seconds; made once, on first use
            if self._library_tokenizer is None:
                self._library_tokenizer = llguidance.LLTokenizer(
                    _TokenizerView(self._tokenizer),  # type: ignore[arg-type] # duck-typed there
                    n_vocab=self._tokenizer.vocab_size,
                    eos_token=sorted(self._eos_ids) or None,
                )
            return self._library_tokenizer


class _TokenizerView:
    """A vocabulary as `llguidance.LLTokenizer` reads it."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        ids = range(tokenizer.vocab_size)
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in ids]
        self.special_token_ids = [i for i in ids if tokenizer.is_special(i)]
        self.bos_token_id = tokenizer.bos_id
        eos_id = tokenizer.eos_id
        self.eos_token_id = min(tokenizer.eog_ids, default=0) if eos_id is None else eos_id

    def __call__(self, text: str | bytes) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        return self._tokenizer.encode(text, add_special=False)


def _lark(constraint: Constraint) -> str:
    """The constraint as a Lark grammar, once its size is known to be bearable."""
    source = constraint.source
    if constraint.kind == "json_schema":
        return f"start: %json {_json_schema(constraint)}{_NO_FORCING}"
    if constraint.kind == "choice":
        choices = _parsed(constraint)
        if not isinstance(choices, list) or not all(isinstance(item, str) for item in choices):
            raise constraint.refusal("expected a list of strings")
        return f"start: {' | '.join(map(json.dumps, choices))}{_NO_FORCING}"
    _check_nesting(constraint, source)
    _check_repetitions(constraint, source)
    if constraint.kind == "regex":
        return f"start: /{_regex_body(source)}/{_NO_FORCING}"
    num_rules = sum(":" in line for line in source.splitlines())  # a rule begins a line
    if num_rules > MAX_RULES:
        raise constraint.refusal(f"expected at most {MAX_RULES} rules, found {num_rules}")
    if constraint.kind == "gbnf":
        try:
            source = gbnf_to_lark(source)
        except GBNFError as error:
            raise constraint.refusal(str(error)) from None
    else:
        if "%llguidance" in source:
            raise constraint.refusal("expected a grammar without %llguidance options")
        _check_embedded_json(constraint, source)
    return source + _NO_FORCING


def _json_schema(constraint: Constraint) -> str:
    schema = _parsed(constraint)
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise constraint.refusal("expected a JSON schema, an object or a boolean")
    for key, value in _keywords(constraint, schema):
        if key in ("pattern", "patternProperties"):
            for pattern in value if isinstance(value, dict) else [value]:
                if isinstance(pattern, str):
                    _check_nesting(constraint, pattern)
                    _check_repetitions(constraint, pattern)
        elif key == "multipleOf":
            _check_multiple(constraint, value)
    return json.dumps({**schema, "x-guidance": _JSON_FORM}, ensure_ascii=False)


def _keywords(constraint: Constraint, schema: Any) -> Iterator[tuple[str, Any]]:
    """Every member of every object in a schema; more than the keywords, but none is missed."""
    pending = [(schema, 1)]
    while pending:
        value, depth = pending.pop()
        if depth > MAX_JSON_DEPTH:
            raise constraint.refusal(f"expected at most {MAX_JSON_DEPTH} levels of nesting")
        if isinstance(value, dict):
            yield from value.items()
            pending += ((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            pending += ((item, depth + 1) for item in value)


def _parsed(constraint: Constraint) -> Any:
    try:
        return json.loads(constraint.source, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise constraint.refusal(f"expected JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_embedded_json(constraint: Constraint, source: str) -> None:
    """What would be looked at in a schema of its own, in the text of a grammar that holds one."""
    if "%json" not in source:
        return
    if _ESCAPED_ASCII.search(source):  # "multipleO\\u0066" is a keyword, too
        raise constraint.refusal("expected letters beside %json to be written as themselves")
    for match in _MULTIPLE.finditer(source):
        _check_multiple(constraint, _number(match[1]))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # llguidance will say so
        return None


def _check_nesting(constraint: Constraint, source: str) -> None:
    """Counts every bracket, in literals too; a source that fails only for those is rare enough."""
    depth = deepest = 0
    for character in source:
        depth = max(0, depth + _BRACKET_DEPTH.get(character, 0))
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise constraint.refusal(f"expected at most {MAX_DEPTH} levels of nesting, found {deepest}")


def _check_repetitions(constraint: Constraint, source: str) -> None:
    for match in _REPETITION.finditer(source):
        for count in filter(None, match.groups()):
            if len(count) > 9 or int(count) > MAX_REPETITIONS:
                raise constraint.refusal(
                    f"expected at most {MAX_REPETITIONS} repetitions, found {count[:20]}"
                )


def _check_multiple(constraint: Constraint, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return  # the property of somebody's object, or an error that llguidance names
    size = MAX_MULTIPLE + 1
    if math.isfinite(value):
        _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
        zeros = max(int(exponent), 0)
        if len(digits) + zeros <= 9:
            size = int("".join(map(str, digits))) * 10**zeros
    if size > MAX_MULTIPLE:
        raise constraint.refusal(
            f"expected multipleOf of at most {MAX_MULTIPLE} (its digits without the point)"
        )


def _regex_body(pattern: str) -> str:
    """A pattern between Lark's slashes, \\d, \\w and \\s in ASCII as in JavaScript.

    It matches as a whole, so anchors around it are no news.
    """
    import llguidance

    pattern = pattern.removeprefix("^")
    stem = pattern.removesuffix("$")
    if (len(stem) - len(stem.rstrip("\\"))) % 2 == 0:
        pattern = stem
    return llguidance.regex_to_lark(pattern, "dws").replace("\r", "\\r")


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0][:300]
