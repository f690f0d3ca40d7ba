"""GBNF to Lark: what the notation means, by what the grammar then takes."""

import pytest

from quintet.sampling.gbnf import GBNFError, gbnf_to_lark
from sampling.grammars import takes

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# white space, but not without end
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "a" | "b" "c"', ["a", "bc"], ["b", "ab", "c"]),
        ('root ::= "a" |\n  "b"\n', ["a", "b"], ["ab"]),
        ("root ::= [a-c]+ [^a-c] .", ["ad\n", "abcxy"], ["a", "abc"]),
        ("root ::= x{2} x{1,} x{0,1}\nx ::= [x]", ["xxx", "xxxx"], ["xx"]),
        ('root ::= ("a" ("b" | "c")?)* "."', ["abac.", "."], ["b."]),
        (r'root ::= "\x41B\"\\\n" [\]\-\x43-\u0044]', ['AB"\\\n]', 'AB"\\\nD'], ['AB"\\\nE']),
        ("root ::= [-a] [a-]", ["--", "aa", "-a"], ["b-"]),
        ("root ::= [/.()] [é-ê]", ["/é", "(ê"], ["//"]),
        (
            "root ::= fooBar foo-bar foo_bar\nfooBar ::= [a]\nfoo-bar ::= [b]\nfoo_bar ::= [c]\n",
            ["abc"],
            ["aaa"],
        ),
        ('root ::= "(" root? ")" # nested', ["()", "((()))"], ["(()"]),
        ('root ::= | "a"\r\n', ["", "a"], ["b"]),
        ('root ::= "x" () ("y" | )', ["x", "xy"], ["y"]),
        (JSON, ['{"a": [1, -2.5e3, "x\\u0041", true]}', "{}"], ["[]", '{"a" 1}', '{"a": 01x}']),
    ],
)
def test_grammar_takes_what_it_says(grammar: str, good: list[str], bad: list[str]) -> None:
    """Each notation of llama.cpp's README means here what it means there."""
    lark = gbnf_to_lark(grammar)
    assert [text for text in good if not takes(lark, text)] == []
    assert [text for text in bad if takes(lark, text)] == []


@pytest.mark.parametrize(
    "grammar",
    [
        "",
        "# nothing",
        'rule ::= "a"',
        "root ::= missing",
        'root ::= "a',
        "root ::= [a",
        "root ::= []",
        'root ::= ("a"',
        'root ::= "a")',
        'root ::= * "a"',
        'root ::= "\\q"',
        'root ::= "\\uD800"',
        'root ::= "\\U00110000"',
        'root ::= "a"\nroot ::= "b"',
        "root = a",
        'root ::= x ::= "a"',
        "root ::= <think>",
        "root",
        "::=",
    ],
)
def test_what_is_no_gbnf_is_refused(grammar: str) -> None:
    """Broken grammars are named errors."""
    with pytest.raises(GBNFError):
        gbnf_to_lark(grammar)


def test_rules_without_recursion_become_terminals() -> None:
    """The matcher reads them with an automaton."""
    lark = gbnf_to_lark('root ::= item root | item\nitem ::= "-" word\nword ::= [a-z]+')
    assert lark.splitlines()[0] == "start: r0"
    assert [line.partition(":")[0] for line in lark.splitlines()] == ["start", "r0", "T1", "T2"]
