"""Constraints compiled for a vocabulary: what they allow, and what is refused in time."""

import json
import random
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import quintet
from quintet.errors import RequestError
from quintet.parsing.thinking import Thinking
from quintet.sampling.constraint import Constraint
from quintet.sampling.grammar import GrammarCompiler
from quintet.sampling.matcher import ConstraintMatcher
from quintet.tokenizer import Tokenizer

DEMO = Path(quintet.__file__).parent / "hub" / "data" / "demo.gguf"
MAX_REFUSAL_S = 3.0


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(DEMO)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.eog_ids)


def allowed(matcher: ConstraintMatcher) -> list[int]:
    """The ids of the mask's ones."""
    return np.unpackbits(matcher.mask().view(np.uint8), bitorder="little").nonzero()[0].tolist()


def walk(
    matcher: ConstraintMatcher, tokenizer: Tokenizer, choices: random.Random, num_tokens: int
) -> tuple[str, bool]:
    """Choose allowed tokens at random; the text, and whether it ended by itself."""
    ids = []
    for _ in range(num_tokens):
        token_id = choices.choice(allowed(matcher))
        matcher.accept(token_id)
        if token_id in tokenizer.eog_ids:
            return tokenizer.decode(ids), True
        ids.append(token_id)
    return tokenizer.decode(ids), False


@pytest.mark.parametrize(
    "pattern",
    [
        r"[a-f]{3}-\d{1,4}",
        r"(foo|bar)+(baz)?",
        r"^\w{1,8}@[a-z]{2,5}\.(com|org)$",
        r"/\*[a-z ]{0,9}\*/",
        "a\nb|c\td",
        r"a/b\/c",
        r"[^\W\d]{2,4}",
        r"(?:\+|-)?(?:0|[1-9]\d{0,3})(?:\.\d{1,2})?",
        r"x\$|y\\$",
    ],
)
def test_walks_through_a_regex_match_it(
    pattern: str, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """Whatever is chosen among the allowed tokens, Python's own `re` matches the whole."""
    choices = random.Random(pattern)
    num_ended = 0
    for _ in range(20):
        matcher = compiler.matcher(Constraint.regex(pattern), Thinking.NONE)
        text, has_ended = walk(matcher, tokenizer, choices, 60)
        num_ended += has_ended
        assert not has_ended or re.fullmatch(pattern, text, re.ASCII), (pattern, text)
    assert num_ended >= 15


def test_choices_are_all_reached_and_no_other(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """Every choice can come, quotes and line breaks included; none of them in part."""
    choices = ["yes", "no", 'say "hi"\n', "\\", "naïve 東京", "yes, please"]
    found = set()
    rng = random.Random(1)
    for _ in range(300):
        matcher = compiler.matcher(Constraint.choice(choices), Thinking.NONE)
        text, has_ended = walk(matcher, tokenizer, rng, 80)
        assert has_ended
        found.add(text)
    assert found == set(choices)


def test_json_may_be_written_in_one_line_or_indented(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """The usual ways to write JSON are taken; white space without end is not."""
    value = {"a": [1, 2], "b": {"c": "x"}}
    schema = Constraint.json_schema({"type": "object"})

    def takes(text: str) -> bool:
        matcher = compiler.matcher(schema, Thinking.NONE)
        try:
            for token_id in tokenizer.encode(text, add_special=False):
                matcher.accept(token_id)
        except ValueError:
            return False
        return bool(set(allowed(matcher)) & tokenizer.eog_ids)

    assert takes(json.dumps(value))
    assert takes(json.dumps(value, separators=(",", ":")))
    assert not takes('{"a":      1}')
    assert not takes("\n\n{}")


def test_only_ending_tokens_are_left_at_the_end(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """When nothing more fits, the mask says so; before, it may not end."""
    matcher = compiler.matcher(Constraint.choice(["ab"]), Thinking.NONE)
    assert not set(allowed(matcher)) & tokenizer.eog_ids
    assert not matcher.must_end
    for token_id in tokenizer.encode("ab", add_special=False):
        matcher.accept(token_id)
    assert matcher.must_end
    assert set(allowed(matcher)) == tokenizer.eog_ids


def test_a_thought_is_free_and_the_answer_after_it_is_not(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """Between <think> and </think> everything may come but the end."""
    start, end = tokenizer.token_to_id("<think>"), tokenizer.token_to_id("</think>")
    word = tokenizer.encode("Hmm", add_special=False)
    for thinking in (Thinking.POSSIBLE, Thinking.OPEN):
        matcher = compiler.matcher(Constraint.choice(["ab"]), thinking)
        if thinking is Thinking.POSSIBLE:
            assert start in allowed(matcher)
            assert word[0] not in allowed(matcher)
            matcher.accept(start)
        for token_id in word:
            assert set(allowed(matcher)) == set(range(tokenizer.vocab_size)) - tokenizer.eog_ids
            matcher.accept(token_id)
        copy = matcher.copy()
        matcher.accept(end)
        assert all(b"ab".startswith(tokenizer.token_bytes(i)) for i in allowed(matcher))
        # The mark may also be spelled out.
        for token_id in [tokenizer.token_to_id(letter) for letter in "</think>"]:
            copy.accept(token_id)
        assert allowed(copy) == allowed(matcher)
    assert start not in allowed(compiler.matcher(Constraint.choice(["ab"]), Thinking.NONE))


def test_a_token_that_does_not_fit_is_refused(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """Accepting what the mask excludes is an error, and leaves nothing allowed."""
    matcher = compiler.matcher(Constraint.choice(["ab"]), Thinking.NONE)
    with pytest.raises(ValueError, match="does not allow"):
        matcher.accept(tokenizer.encode("z", add_special=False)[0])
    assert allowed(matcher) == []
    assert matcher.error


def nested_schema(depth: int) -> dict:
    schema: dict = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


HOSTILE = {
    "regex: not one": Constraint.regex("(a"),
    "regex: look-ahead": Constraint.regex("(?=a)b"),
    "regex: back-reference": Constraint.regex(r"(a)\1"),
    "regex: nesting": Constraint.regex("(" * 20_000 + "a" + ")" * 20_000),
    "regex: repetition": Constraint.regex("a{1000000000}"),
    "regex: open repetition": Constraint.regex("a{99999,}"),
    "regex: digits": Constraint.regex("a{" + "9" * 60_000 + "}"),
    "regex: braces and blanks": Constraint.regex("(" + "{" + " " * 60_000),
    "regex: braces and digits": Constraint.regex("(" + "{1" * 30_000),
    "lark: a long word": Constraint.lark("a" * 60_000),
    "lark: many words": Constraint.lark("a " * 30_000),
    "lark: a long number": Constraint.lark('start: %json {"multipleOf":' + " " * 60_000),
    "gbnf: an open string": Constraint.gbnf('root ::= "' + "a" * 60_000),
    "gbnf: quotes": Constraint.gbnf("root ::= " + '"' * 60_001),
    "schema: not JSON": Constraint.json_schema("{"),
    "schema: a list": Constraint.json_schema("[]"),
    "schema: NaN": Constraint.json_schema('{"const": NaN}'),
    "schema: type": Constraint.json_schema({"type": "something"}),
    "schema: nesting": Constraint.json_schema(nested_schema(100)),
    "schema: nesting as text": Constraint.json_schema("[" * 60_000),
    "schema: bad pattern": Constraint.json_schema({"type": "string", "pattern": "("}),
    "schema: repetition": Constraint.json_schema({"type": "string", "pattern": "a{100000}"}),
    "schema: hidden repetition": Constraint.json_schema(
        '{"type": "string", "pattern": "a\\u007b100000}"}'
    ),
    "schema: property patterns": Constraint.json_schema(
        {"type": "object", "patternProperties": {"a{100000}": {}}}
    ),
    "schema: remote": Constraint.json_schema({"$ref": "http://127.0.0.1:1/x.json"}),
    "schema: no such definition": Constraint.json_schema({"$ref": "#/$defs/a"}),
    "schema: refers to itself": Constraint.json_schema({"$ref": "#"}),
    "schema: divisor": Constraint.json_schema({"type": "integer", "multipleOf": 1_000_003}),
    "schema: tiny divisor": Constraint.json_schema({"type": "number", "multipleOf": 1e-300}),
    "schema: infinite divisor": Constraint.json_schema('{"type": "number", "multipleOf": 1e400}'),
    "schema: product": Constraint.json_schema(
        {"allOf": [{"type": "integer", "multipleOf": n} for n in (97, 89, 83, 79, 73, 71)]}
    ),
    "schema: combinations": Constraint.json_schema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"{k}{i}": {"type": "integer"}}} for k in "ab"]}
                for i in range(16)
            ]
        }
    ),
    "schema: nothing fits": Constraint.json_schema(False),
    "lark: not one": Constraint.lark("start: ("),
    "lark: no start": Constraint.lark('a: "b"'),
    "lark: nesting": Constraint.lark("start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
    "lark: chain": Constraint.lark(
        "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(3000)) + 'r3000: "b"\n'
    ),
    "lark: doubling": Constraint.lark(
        "start: T0\n" + "".join(f"T{i}: T{i + 1} T{i + 1}\n" for i in range(40)) + 'T40: "b"\n'
    ),
    "lark: repetition": Constraint.lark('start: ("a" "b"){100000}'),
    "lark: old repetition": Constraint.lark('start: "a" ~ 1 .. 100000'),
    "lark: options": Constraint.lark('%llguidance {"no_forcing": false}\nstart: "a"'),
    "lark: import": Constraint.lark('%import /etc/passwd\nstart: "a"'),
    "lark: divisor": Constraint.lark('start: %json {"type": "integer", "multipleOf": 1000003}'),
    "lark: hidden divisor": Constraint.lark(
        'start: %json {"type": "integer", "multipleO\\u0066" : 1000003}'
    ),
    "lark: only itself": Constraint.lark("start: start"),
    "gbnf: not one": Constraint.gbnf("root ::= ("),
    "gbnf: nesting": Constraint.gbnf("root ::= " + "(" * 10_000 + '"a"' + ")" * 10_000),
    "gbnf: chain": Constraint.gbnf(
        "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(3000)) + 'r3000 ::= "b"\n'
    ),
    "gbnf: repetition": Constraint.gbnf('root ::= "a"{100000}'),
    "choice: not JSON": Constraint("choice", "["),
    "choice: numbers": Constraint("choice", "[1]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_constraints_are_refused_in_time(name: str, compiler: GrammarCompiler) -> None:
    """Broken, huge and explosive sources are the request's error, named and quick (R5 to R7)."""
    started_s = time.thread_time()
    with pytest.raises(RequestError) as error:
        compiler.matcher(HOSTILE[name], Thinking.NONE)
    assert time.thread_time() - started_s < MAX_REFUSAL_S
    assert error.value.parameter == "constraint"
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint.regex("(a+)+b"),
        Constraint.regex("(((a{1000}){1000}){1000}){1000}"),
        Constraint.regex("(a|b)*a(a|b){30}"),
        Constraint.regex("|".join(f"{i}[a-z]*x" for i in range(4000))),
        Constraint.json_schema({"type": "string", "pattern": "(a+)+$"}),
        Constraint.json_schema({"type": "string", "minLength": 10**9}),
        Constraint.json_schema({"type": "array", "items": {"const": 1}, "minItems": 10**6}),
        Constraint.json_schema({"enum": [f"value {i}" for i in range(3000)]}),
        Constraint.json_schema({"const": "a" * 60_000}),
        Constraint.json_schema(nested_schema(30)),
        Constraint.lark('start: a\na: "x" a'),
        Constraint.lark("start: A\nA: B{1000}\nB: C{1000}\nC: D{1000}\nD: /[ab]/"),
        Constraint.lark('start: start start | "a" | ""'),
    ],
)
def test_what_compiles_takes_bounded_steps(
    constraint: Constraint, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    """A grammar that explodes only later costs its own request little time, and no one else's."""
    matcher = compiler.matcher(constraint, Thinking.NONE)
    rng = random.Random(2)
    for _ in range(40):
        started_s = time.thread_time()
        ids = allowed(matcher)
        if not ids:
            assert matcher.error
            break
        matcher.accept(rng.choice(ids))
        assert time.thread_time() - started_s < 1.0
        if matcher.must_end:
            break


def test_compiled_grammars_are_kept_within_bounds(tokenizer: Tokenizer) -> None:
    """A client that sends ever new constraints fills no memory (R8)."""
    compiler = GrammarCompiler(tokenizer, tokenizer.eog_ids)
    for i in range(100):
        compiler.matcher(Constraint.choice([f"choice {i}"]), Thinking.NONE)
    assert len(compiler._compiled) == 64
    for i in range(8):
        compiler.matcher(Constraint.choice([f"{i}" + "x" * 60_000]), Thinking.NONE)
    assert sum(len(kept.source) for kept in compiler._compiled) <= 256 * 1024


def test_many_threads_may_compile(tokenizer: Tokenizer) -> None:
    """The first requests may come together."""
    compiler = GrammarCompiler(tokenizer, tokenizer.eog_ids)
    masks: list[list[int]] = []

    def compile_one(index: int) -> None:
        constraint = Constraint.choice(["ab", "cd"][: 1 + index % 2])
        masks.append(allowed(compiler.matcher(constraint, Thinking.NONE)))

    threads = [threading.Thread(target=compile_one, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(masks) == 8
    assert len({tuple(mask) for mask in masks}) == 2
