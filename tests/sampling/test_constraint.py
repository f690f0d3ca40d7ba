"""Constraints as plain data."""

import json

import pytest

from quintet.errors import RequestError
from quintet.sampling import Constraint, SamplingParams
from quintet.sampling.constraint import MAX_SOURCE_BYTES


def test_equal_constraints_are_one_key() -> None:
    """What a client calls it does not keep a constraint from being compiled once."""
    first = Constraint.json_object()
    second = Constraint.json_object(parameter="response_format")
    assert first == second
    assert hash(first) == hash(second)


def test_schema_may_be_text_or_object() -> None:
    """A schema is taken as it is parsed or as it is written."""
    assert Constraint.json_schema({"type": "null"}) == Constraint.json_schema('{"type": "null"}')


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constraint("xml", ""),
        lambda: Constraint("regex", b"a"),
        lambda: Constraint.regex("a" * (MAX_SOURCE_BYTES + 1)),
        lambda: Constraint.regex("é" * (MAX_SOURCE_BYTES // 2 + 1)),
        lambda: Constraint.regex("\ud800"),
        lambda: Constraint.choice([]),
        lambda: Constraint.choice([""]),
        lambda: Constraint.choice("ab"),
        lambda: Constraint.choice(["a", 1]),
        lambda: Constraint.json_schema({"const": float("nan")}),
        lambda: Constraint.json_schema({"const": {1, 2}}),
        lambda: SamplingParams(constraint={"type": "json_object"}),
    ],
)
def test_what_is_no_constraint_is_refused(make: object) -> None:
    """Wrong types and oversized sources end where they are made, naming the parameter."""
    with pytest.raises(RequestError) as error:
        make()
    assert error.value.parameter == "constraint"


def test_a_schema_nested_without_end_is_refused() -> None:
    """A recursive object is an error of the request, not a crash."""
    schema: dict = {}
    schema["not"] = schema
    with pytest.raises(RequestError, match="JSON"):
        Constraint.json_schema(schema)


def test_the_parameter_names_the_clients_field() -> None:
    """A refusal speaks of the field the client wrote."""
    constraint = Constraint.choice(["a"], parameter="guided_choice")
    assert constraint.refusal("no").parameter == "guided_choice"
    assert json.loads(constraint.source) == ["a"]
