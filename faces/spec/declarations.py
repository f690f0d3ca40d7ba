"""What a Python block declares rather than does: `f(a: int = 1) -> str`, classes, dictionaries.

A reference writes signatures in a notation that is nearly Python.  Statements of that notation are
told from code, so that a block may have both.
"""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from dataclasses import dataclass
from typing import Any

COMPILE_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True)
class Declaration:
    """
    A callable and its parameters.

    Args:
        target: the name that takes its result, or "".
        name: dotted, as written.
        parameters: names to the source of their defaults, None where there is none.
        has_variadic: it has `*args` or `**kwargs`.
        is_async: it is awaited.
    """

    target: str
    name: str
    parameters: dict[str, str | None]
    has_variadic: bool
    is_async: bool

    @property
    def last_name(self) -> str:
        """The name without what stands before its dots."""
        return self.name.rpartition(".")[2]

    def as_call(self) -> str:
        """The same as code: defaults as arguments, the others from variables of their names."""
        arguments = ", ".join(
            f"{n}={d if d is not None else n}" for n, d in self.parameters.items()
        )
        call = f"{'await ' if self.is_async else ''}{self.name}({arguments})"
        return f"{self.target} = {call}" if self.target else call


@dataclass(frozen=True)
class Fields:
    """A class that is declared by its fields, or a dictionary by its keys and their types."""

    name: str
    fields: dict[str, str]


@dataclass(frozen=True)
class Parts:
    """
    A block taken apart.

    Args:
        declarations, classes: what it declares.
        shape: of the dictionary that it consists of.
        code: what can be run, declarations whose result is used there as calls; "" for none.
    """

    declarations: tuple[Declaration, ...]
    classes: tuple[Fields, ...]
    shape: Fields | None
    code: str


def parts_of(text: str) -> Parts:
    """
    Take a Python block apart.

    Raises:
        SyntaxError: a statement is neither Python nor a declaration.
    """
    shape = _shape(text)
    if shape is not None:
        return Parts((), (), shape, "")
    declarations: list[Declaration] = []
    classes: list[Fields] = []
    pieces: list[str] = []
    has_code = False
    for statement in _statements(text):
        declared = _declaration(statement)
        fields = None if declared else _class(statement)
        if declared is not None:
            declarations.append(declared)
            pieces.append(declared.as_call() if declared.target else "")
        elif fields is not None:
            classes.append(fields)
        else:
            compile(statement, "<block>", "exec", COMPILE_FLAGS)
            pieces.append(statement)
            has_code = has_code or bool(ast.parse(statement).body)
    if not has_code:
        pieces = []
    return Parts(tuple(declarations), tuple(classes), None, "\n".join(filter(None, pieces)))


def declared_in(heading: str) -> Declaration | None:
    """The callable that a heading declares: `async generate(prompts, priority=NORMAL)`."""
    text = heading.strip("`").strip()
    if "(" not in text or " (" in text:
        return None
    try:
        return _declaration(text + " -> None")
    except (SyntaxError, tokenize.TokenError):
        return None


def differences(declared: Declaration, actual: Any) -> list[str]:
    """How a callable differs from what is declared; empty where it is that or more."""
    try:
        signature = inspect.signature(actual)
    except ValueError:
        return [f"{declared.name} has no signature"]
    parameters = {
        name: parameter for name, parameter in signature.parameters.items() if name != "self"
    }
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    wrong = []
    for name, default in declared.parameters.items():
        parameter = parameters.get(name)
        if parameter is None:
            if not takes_any:
                wrong.append(f"{declared.name} has no parameter {name}")
        elif default is not None and not _is_default(default, parameter.default):
            wrong.append(f"{declared.name}: {name} defaults to {parameter.default!r}")
    common = [name for name in parameters if name in declared.parameters]
    if common != [name for name in declared.parameters if name in parameters]:
        wrong.append(f"{declared.name}: parameters in the order {common}")
    return wrong


def _is_default(source: str, actual: Any) -> bool:
    """Whether a default is the one that is written; "..." leaves it open."""
    try:
        value = ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return getattr(actual, "name", None) == source.rpartition(".")[2] or repr(actual) == source
    if value in (..., "..."):
        return actual is not inspect.Parameter.empty
    return bool(value == actual)


def _statements(text: str) -> list[str]:
    """The block's top-level statements, whatever grammar each has; comments are dropped.

    Raises:
        SyntaxError: it does not even consist of Python's tokens.
    """
    lines = text.splitlines(keepends=True)
    starts: list[int] = []
    is_new, depth = True, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.INDENT:
                depth += 1
            elif token.type == tokenize.DEDENT:
                depth -= 1
            elif token.type == tokenize.NEWLINE:
                is_new = True
            elif token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER) and is_new:
                is_new = False
                if depth == 0 and token.string not in ("except", "finally", "else", "elif"):
                    starts.append(token.start[0] - 1)
    except tokenize.TokenError as error:
        raise SyntaxError(str(error)) from None
    ends = [*starts[1:], len(lines)]
    merged: list[str] = []
    for start, end in zip(starts, ends, strict=True):
        statement = "".join(lines[start:end])
        if merged and merged[-1].lstrip().startswith("@") and merged[-1].count("\n") <= 2:
            merged[-1] += statement
        else:
            merged.append(statement)
    return merged


def _declaration(statement: str) -> Declaration | None:
    """The declaration that a statement is, if it is none of Python's."""
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(statement).readline)
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
    ]
    strings = [token.string for token in tokens]
    if strings[:1] == ["@"]:  # a decorator and its method
        strings = strings[2:]
        tokens = tokens[2:]
    target, is_async = "", False
    if len(strings) > 2 and strings[1] == "=" and tokens[0].type == tokenize.NAME:
        target, strings = strings[0], strings[2:]
    if strings and strings[0] == "async":
        is_async, strings = True, strings[1:]
    if strings[:1] == ["def"] and strings[-1] != ":":
        strings = strings[1:]
    if not strings or "(" not in strings or strings[0] in ("def", "class", "for", "with", "if"):
        return None
    opening = strings.index("(")
    name = "".join(strings[:opening])
    closing = _closing(strings, opening)
    if closing is None or not all(part.isidentifier() for part in name.split(".")):
        return None
    rest = strings[closing + 1 :]
    if rest and rest[0] != "->":
        return None
    is_python = True
    try:
        compile(statement, "<block>", "exec", COMPILE_FLAGS)
    except SyntaxError:
        is_python = False
    if is_python:
        return None
    inner = " ".join(strings[opening + 1 : closing])
    function = _function(inner)
    if function is None:
        return None
    arguments = function.args
    names = [each.arg for each in (*arguments.args, *arguments.kwonlyargs)]
    values = [None] * (len(arguments.args) - len(arguments.defaults)) + [*arguments.defaults]
    sources = [
        None if value is None else ast.unparse(value) for value in (*values, *arguments.kw_defaults)
    ]
    parameters = {
        each: source
        for each, source in zip(names, sources, strict=True)
        if each not in ("self", "cls")
    }
    variadic = arguments.kwarg is not None
    return Declaration(target, name, parameters, variadic, is_async)


def _function(inner: str) -> ast.FunctionDef | None:
    """A function with these parameters; by keyword first, so that defaults may come anywhere."""
    for parameters in (f"*, {inner}", inner):
        try:
            function = ast.parse(f"def f({parameters}): pass").body[0]
        except SyntaxError:
            continue
        return function if isinstance(function, ast.FunctionDef) else None
    return None


def _closing(strings: list[str], opening: int) -> int | None:
    depth = 0
    for index in range(opening, len(strings)):
        depth += (strings[index] in "([{") - (strings[index] in ")]}")
        if depth == 0:
            return index
    return None


def _class(statement: str) -> Fields | None:
    """A class of nothing but annotated fields, or of methods without bodies."""
    try:
        body = ast.parse(statement).body
    except SyntaxError:
        return None
    if len(body) != 1 or not isinstance(body[0], ast.ClassDef):
        return None
    fields: dict[str, str] = {}
    for item in body[0].body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            fields[item.target.id] = ast.unparse(item.annotation)
        elif not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)):
            return None
    return Fields(body[0].name, fields) if fields else None


def _shape(text: str) -> Fields | None:
    """A dictionary whose values are types."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return None
    if not isinstance(tree.body, ast.Dict):
        return None
    fields: dict[str, str] = {}
    for key, value in zip(tree.body.keys, tree.body.values, strict=True):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            return None
        fields[key.value] = ast.unparse(value)
    return Fields("", fields)
