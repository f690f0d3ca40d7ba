"""When guesses are made: measured costs against measured success."""

import pytest

from quintet.engine.speculation.payoff import Acceptance, StepCost


def measured(base_s: float, row_s: float) -> StepCost:
    """What is known after 40 steps that took base_s + row_s * rows."""
    cost = StepCost()
    for i in range(40):
        rows = 1 + i % 9
        cost.record(rows, base_s + row_s * rows)
    return cost


def test_step_cost_finds_the_line_through_its_measurements() -> None:
    """With n sequences a row must come true more often than n times its share of the step."""
    cost = measured(0.070, 0.005)
    assert cost.bound(1, 1) == pytest.approx(1.5 * 0.005 / 0.075, rel=0.01)
    assert cost.bound(8, 8) == pytest.approx(1.5 * 8 * 0.005 / 0.110, rel=0.01)


def test_step_cost_grows_with_what_a_guess_takes_to_make() -> None:
    """A slow draft model has to be right more often."""
    cost = measured(0.070, 0.005)
    for _ in range(100):
        cost.record_drafting(4, 0.040)
    assert cost.bound(1, 1) == pytest.approx(1.5 * 0.015 / 0.075, rel=0.01)


def test_step_cost_is_not_moved_by_one_interrupted_step() -> None:
    """A step that took a second does not switch speculation off."""
    cost = measured(0.010, 0.001)
    cost.record(5, 1.0)
    assert cost.bound(1, 1) < 0.5


def test_step_cost_allows_no_guesses_where_arithmetic_is_the_limit() -> None:
    """When every row costs the same, even certain guesses gain nothing."""
    assert measured(0.0, 0.005).bound(1, 1) >= 1


def test_step_cost_makes_an_assumption_before_it_has_measured() -> None:
    """The first guesses are made; steps of one size alone do not change that."""
    cost = StepCost()
    first = cost.bound(1, 1)
    assert 0.05 < first < 0.3
    for _ in range(20):
        cost.record(1, 0.05)
    assert cost.bound(1, 1) == pytest.approx(first)


def test_acceptance_gives_up_what_is_always_wrong_and_comes_back() -> None:
    """Wrong guesses reduce the number to none; right ones bring it back to the most."""
    acceptance = Acceptance()
    assert acceptance.worthwhile(0.12, 10) >= 5
    counts = []
    for _ in range(20):
        acceptance.record(0, 3)
        counts.append(acceptance.worthwhile(0.12, 10))
    assert counts == sorted(counts, reverse=True)
    assert counts[9] == 0
    for _ in range(20):
        acceptance.record(1, 1)
    assert acceptance.worthwhile(0.12, 10) == 10


def test_acceptance_makes_no_guess_that_cannot_pay() -> None:
    """A bound of 1 stops even the certain."""
    acceptance = Acceptance()
    for _ in range(50):
        acceptance.record(10, 10)
    assert acceptance.worthwhile(1.0, 10) == 0
    assert acceptance.worthwhile(0.0, 10) == 10
