"""Constraints tried out in a helper: it takes what the engine takes, and falls in its place."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from quintet.engine.loading import load_tokenizer
from quintet.errors import QuintetError, RequestError
from quintet.hub.resolve import resolve
from quintet.parsing.thinking import Thinking
from quintet.sampling.constraint import Constraint
from quintet.sampling.grammar import GrammarCompiler
from quintet.sampling.grammar_check import GrammarCheck
from quintet.sandbox.helper import Limits
from quintet.tokenizer import Tokenizer

CONSTRAINTS = [
    Constraint.json_object(),
    Constraint.json_schema({"type": "object", "properties": {"a": {"enum": [1, "é"]}}}),
    Constraint.json_schema({"type": "string", "pattern": "^[a-z]{2,5}$"}),
    Constraint.json_schema({"not": {"type": "object"}}),
    Constraint.json_schema("[1"),
    Constraint.json_schema({"type": "integer", "multipleOf": 123456789}),
    Constraint.regex("[0-9]+(\\.[0-9]+)?"),
    Constraint.regex("(a+)+b"),
    Constraint.regex("("),
    Constraint.regex("a{5000}"),
    Constraint.regex("(" * 100 + ")" * 100),
    Constraint.regex("a(?=b)"),
    Constraint.choice(["yes", "no", "日本"]),
    Constraint.lark('start: "a" | "b" start'),
    Constraint.lark('start: "a" <|im_end|>'),
    Constraint.lark('start: "a" <[3]>'),
    Constraint.lark('start: "a" <[99999999]>'),
    Constraint.lark("start: nothing"),
    Constraint.lark("start: start"),
    Constraint.gbnf('root ::= "a" root | "b"'),
    Constraint.gbnf("root = x"),
    Constraint.lark('start: a0\na400: "x"\n' + "\n".join(f"a{i}: a{i + 1}+" for i in range(400))),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(resolve("demo"))


@pytest.fixture(scope="module")
def checker(tokenizer: Tokenizer) -> Iterator[GrammarCheck]:
    check = GrammarCheck(tokenizer, Limits(20.0))
    yield check
    check.close()


def outcome(work: object, *arguments: object) -> tuple[type, str | None] | None:
    """None, or the kind of error and the parameter it names."""
    try:
        work(*arguments)  # type: ignore[operator]
    except QuintetError as error:
        return type(error), getattr(error, "parameter", None)
    return None


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: f"{c.kind} {c.source[:20]}")
def test_it_takes_what_the_engine_takes(
    tokenizer: Tokenizer, checker: GrammarCheck, constraint: Constraint
):
    """And refuses what the engine refuses, with the same class and parameter."""
    compiler = GrammarCompiler(tokenizer, frozenset(tokenizer.eog_ids))
    expected = outcome(compiler.matcher, constraint, Thinking.NONE)
    assert outcome(checker.check, constraint) == expected


def test_what_is_known_is_not_asked_again(checker: GrammarCheck, monkeypatch: pytest.MonkeyPatch):
    """The second request with a constraint costs nothing; a refused one is looked at again."""
    good, bad = Constraint.regex("known?"), Constraint.regex("known(")
    checker.check(good)
    asked = []
    run = checker._pool.run
    monkeypatch.setattr(checker._pool, "run", lambda task: (asked.append(task), run(task))[1])
    checker.check(good)
    for _ in range(2):
        with pytest.raises(RequestError):
            checker.check(bad)
    assert [source for _, source, _ in asked] == ["known("] * 2


def test_a_compiler_that_falls_is_replaced(tokenizer: Tokenizer):
    """What kills the helper is refused with the client's name for it; the next one is served."""
    check = GrammarCheck(tokenizer, Limits(20.0, 16 * 2**20))
    try:
        check.check(Constraint.regex("a"))
        (helper,) = check._pool._idle
        os.kill(helper.pid, signal.SIGSEGV)
        with pytest.raises(RequestError, match="crashes") as caught:
            check.check(Constraint.regex("b", parameter="grammar"))
        assert caught.value.parameter == "grammar"
        check.check(Constraint.regex("b"))
    finally:
        check.close()
