"""The runner of references: it must notice what is wrong."""

from __future__ import annotations

import shutil
import subprocess
from types import SimpleNamespace

import pytest

from spec.blocks import Block, read
from spec.c_examples import CExamples
from spec.coverage import Table
from spec.declarations import declared_in, differences, parts_of
from spec.foreign import Item, items_of
from spec.http_examples import json_mismatches
from spec.names import Name
from spec.outcome import Outcome, Verdict, checked, not_run, ran, report
from spec.run import run_block, shape_mismatches
from spec.uses import uses_of, uses_of_tests

FACE = SimpleNamespace(
    SPEC="999",
    PACKAGE="json",
    ALIASES={},
    PRELUDE="import json\nfrom json import JSONDecoder",
    ASYNC_PRELUDE="import asyncio",
    SHAPES={"Shape": "{'a': 1}"},
)


def errors_of(code: str, heading: str = "Text", language: str = "python") -> tuple[str, ...]:
    block = Block("999", 1, 1, language, (heading,), "", code)
    return run_block(block, FACE, lambda block: not_run("no Python")).errors


def test_blocks_know_where_they_stand(tmp_path):
    """Language, headings, the label and the line of each block; names in lists and tables."""
    path = tmp_path / "999_x.txt"
    path.write_text(
        "# A\n## B\n- `x`: int\n\n**Request:**\n```python\n# no heading\n```\n# C\n| `y` | z |\n"
        "````json\n```\n````\n"
    )
    reference = read(path)
    first, second = reference.blocks
    assert (first.id, first.line, first.headings, first.label) == (
        "999-01",
        7,
        ("A", "B"),
        "**Request:**",
    )
    assert (second.language, second.headings, second.text) == ("json", ("C",), "```\n")
    assert [(entry.name, entry.headings) for entry in reference.entries] == [
        ("x", ("A", "B")),
        ("y", ("C",)),
    ]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("await asyncio.sleep(0)\nraise KeyError('x')", "KeyError"),
        ("json.no_such_function(x: int) -> str", "no_such_function is not there"),
        ("JSONDecoder.raw_decode(s, no_such: int = 1) -> str", "has no parameter no_such"),
        ("json.dumps(obj, indent: int = 3) -> str", "indent defaults to None"),
        ("x = (", "SyntaxError"),
        ("a b", "SyntaxError"),
        ("class JSONDecoder:\n    no_such: int", "no_such"),
    ],
)
def test_what_is_wrong_is_reported(code: str, error: str):
    """Failing code, names that are missing, defaults that differ, and what is no Python."""
    assert error in "".join(errors_of(code))


def test_what_others_have_to_bring_is_named():
    """An example of a package that is not installed is not run, and says so."""
    face = SimpleNamespace(**vars(FACE), NEEDS={"import x": "no_such_module"})
    block = Block("999", 1, 1, "python", ("Text",), "", "from no_such_module import x\n1 / 0")
    outcome = run_block(block, face, lambda block: not_run("no Python"))
    assert outcome.verdict == not_run("no_such_module is not installed")


def test_omissions_are_filled_in():
    """`[...]` of an example stands for a name of the prelude."""
    face = SimpleNamespace(**{**vars(FACE), "PRELUDE": "said = [1]"}, OMISSIONS={"[...]": "said"})
    block = Block("999", 1, 1, "python", ("Text",), "", "assert [...] == [1]")
    assert run_block(block, face, lambda block: not_run("no Python")).verdict == ran()


def test_a_check_that_breaks_is_a_failure():
    """Of that block alone."""

    def check(block: Block) -> Verdict:
        raise OSError("no server")

    outcome = run_block(Block("999", 1, 1, "json", ("Text",), "", "{}"), FACE, check)
    assert "no server" in outcome.errors[0]


def test_what_is_right_is_not():
    """Code, awaiting code, declarations and dictionaries."""
    assert errors_of("assert json.loads('1') == 1") == ()
    assert errors_of("await asyncio.sleep(0)") == ()
    assert errors_of("json.loads(s, cls=None) -> dict") == ()
    assert errors_of('{"a": int}', "Shape") == ()
    assert errors_of('{"a": str}', "Shape") == ("a: expected str, found int",)
    assert errors_of("{}", language="json") == ()


def test_declarations_beside_code_are_called():
    """A declaration whose result is used becomes a call with its defaults."""
    parts = parts_of("x = json.dumps(\n    obj: int,  # what\n    indent: int = 2,\n)\nprint(x)\n")
    assert parts.code == "x = json.dumps(obj=obj, indent=2)\nprint(x)\n"
    assert parts_of("@classmethod\ndef f(cls, a: int = 1) -> str\n").declarations[0].parameters == {
        "a": "1"
    }
    assert parts_of("def f(self, **kwargs) -> str").declarations[0].has_variadic


def test_headings_declare():
    """`async f(a, b=1)` does; "Text (old)" does not."""
    declared = declared_in("async f(a, b=1)")
    assert declared is not None
    assert declared.parameters == {"a": None, "b": "1"}
    assert declared_in("Completions (Legacy)") is None
    assert declared_in("Text") is None


def test_the_order_of_parameters_counts():
    """What is passed by position must arrive where it is meant to."""

    def actual(b=2, a=1): ...

    declared = parts_of("f(a: int = 1, b: int = 2)").declarations[0]
    assert "order" in "".join(differences(declared, actual))


def test_shapes():
    """Missing and further keys, and types, in dictionaries within dictionaries too."""
    expected = {"a": "int", "b": "{'c': str}"}
    assert shape_mismatches(expected, {"a": 1, "b": {"c": ""}}) == []
    assert shape_mismatches(expected, {"b": {"c": 1}, "d": 1}) == [
        "no 'a'",
        "unexpected 'd'",
        "b: c: expected str, found int",
    ]
    assert json_mismatches({"a": [{"b": 1}]}, {"a": [{"b": 2}, {"b": "x"}, {}], "c": 1}) == [
        "$.a[1].b: expected 1, found 'x'",
        "$.a[2].b is missing",
    ]


def test_the_report_tells_what_was_not_run():
    """Counts of each kind, what went wrong, and why something was left."""
    block = Block("999", 7, 3, "json", ("A", "B"), "", "{}")
    verdicts = (ran(), ran(["it broke"]), checked(), not_run("there is no compiler"))
    text = report("x", [Outcome(block, verdict) for verdict in verdicts])
    assert "    it broke" in text
    assert "999-07 (line 3, A > B): not run, there is no compiler" in text
    assert text.endswith("x: 4 blocks (4 json): 2 run, 1 checked, 1 not run, 1 failed")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_c_blocks_are_compared_and_run(tmp_path):
    """A prototype or structure that differs, an example that fails or does not compile."""
    (tmp_path / "h.h").write_text("typedef struct { int a; long b; } S;\nint one(int x);\n")
    (tmp_path / "h.c").write_text('#include "h.h"\nint one(int x) { return x; }\n')
    command = ["gcc", "-shared", "-fPIC", "-o", "libh.so", "h.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    examples = CExamples("h.h", tmp_path / "libh.so", "", "", "return 0;")

    def errors_of(text: str, label: str = "") -> str:
        return "".join(examples.check(Block("999", 1, 1, "c", ("A",), label, text)).errors)

    assert errors_of("int one(int y);") == ""
    assert "conflicting types" in errors_of("long one(int x);")
    assert errors_of("typedef struct { int a; long b; } S;") == ""
    assert "S.a" in errors_of("typedef struct { float a; long b; } S;")
    assert "size of S" in errors_of("typedef struct { int a; } S;")
    assert errors_of('printf("%d", one(1));', "**Example:**") == ""
    assert "ended with 3" in errors_of("return one(3);", "**Example:**")
    assert "two" in errors_of("two();", "**Example:**")
    assert "ended with 4" in errors_of('#include "h.h"\nint main(void) { return one(4); }\n')
    assert "printed nothing" in errors_of('if (one(0)) printf("x");', "**Example:**")


def test_only_use_is_evidence(tmp_path):
    """Words in comments, docstrings and texts are none of a function; helpers and fixtures are."""
    (tmp_path / "conftest.py").write_text("def loaded():\n    return open_it('x')\n")
    (tmp_path / "test_a.py").write_text(
        "from package import Thing, other\n\n"
        "def helper(thing):\n    thing.run('a', b=1)\n\n"
        'def test_words():\n    """Thing.run(a, b)."""\n    text = \'run\'  # open_it\n\n'
        "def test_use(loaded):\n    helper(Thing(c=2))\n"
    )
    words, use = uses_of_tests(tmp_path)
    assert "run" not in words.names
    assert words.mentions("run")
    assert not words.mentions("Thing.run(a, b).")
    assert {"run", "open_it", "Thing"} <= use.names
    assert ("package", "Thing") in use.imports
    assert ("package", "other") not in use.imports
    assert use.passes("run", "b", index=5)
    assert use.passes("run", "a", index=0)
    assert not use.passes("run", "c", index=1)
    assert use.passes("Thing", "c", index=0)


def test_a_table_wants_the_faces_own_name():
    """A function of the same name from elsewhere is no evidence; an unused parameter is none."""
    names = [Name("S", "callable", "", "f"), Name("S", "parameter", "f", "a")]
    names += [Name("S", "parameter", "f", "b")]
    call = "import {0}\n\nfrom {0} import f\nf(1)\n"
    for package, found in (("face", "t"), ("elsewhere", None)):
        table = Table("face", names, [uses_of(call.format(package), "t")])
        assert table.find(names[0]) == found
        assert table.find(names[1]) == "t"
        assert table.find(names[2]) is None


def test_c_programs_of_tests_count(tmp_path):
    """What they call; not what stands in their comments and texts."""
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "p.c").write_text('/* not_this */ int main() { Call(1, "no(2)"); }')
    (tmp_path / "test_a.py").write_text("def test_c():\n    run('p')\n")
    (uses,) = uses_of_tests(tmp_path)
    assert "Call" in uses.names
    assert not {"not_this", "no"} & uses.names
    assert uses.passes("Call", "second", index=1)
    assert not uses.passes("Call", "third", index=2)


def test_declarations_of_other_languages():
    """Functions with their parameters, types with their fields, of C and Rust; no examples."""
    c = "typedef struct {\n    int a;\n} S;\nint f(const char *x, S y); // z\n"
    rust = (
        "pub struct T {\n    pub a: u8,\n}\n\nimpl T {\n    pub fn new(b: u8) -> Self;\n"
        "    pub async fn g(\n        &mut self,\n        c: x::Y,\n    ) -> R;\n}\n\n"
        "pub enum E {\n    One,\n}\n\npub fn h(d: u8);\n"
    )

    def items(language: str, text: str, label: str = "") -> list[Item]:
        return items_of(Block("999", 1, 1, language, ("A",), label, text))

    assert items("c", c) == [
        Item("type", "", "S"),
        Item("field", "S", "a"),
        Item("callable", "", "f", ("x", "y")),
    ]
    assert items("c", c, "**Example:**") == []
    assert items("rust", rust) == [
        Item("type", "", "T"),
        Item("field", "T", "a"),
        Item("callable", "", "T", ("b",)),
        Item("callable", "T", "g", ("c",)),
        Item("type", "", "E"),
        Item("field", "E", "One"),
        Item("callable", "", "h", ("d",)),
    ]
    assert items("rust", "fn main() {}\n") == []
