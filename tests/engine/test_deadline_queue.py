"""Names in the order of their times."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from quintet.engine.deadlines import Deadlines


class DeadlinesModel(RuleBasedStateMachine):
    """Against a dictionary; and the heap stays in proportion to what is known."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines = Deadlines()
        self.known: dict[str, float] = {}
        self.now_s = 0.0

    @rule(name=st.sampled_from("abcdefgh"), in_s=st.floats(0.0, 50.0))
    def add(self, name: str, in_s: float) -> None:
        if name not in self.known:
            self.known[name] = self.now_s + in_s
            self.deadlines.add(name, self.now_s + in_s)

    @rule(name=st.sampled_from("abcdefgh"))
    def discard(self, name: str) -> None:
        self.known.pop(name, None)
        self.deadlines.discard(name)

    @rule()
    def discard_and_add_many_times(self) -> None:
        for _ in range(40):
            self.deadlines.add("again", self.now_s + 100.0)
            self.deadlines.discard("again")

    @rule(by_s=st.floats(0.0, 20.0))
    def wait(self, by_s: float) -> None:
        self.now_s += by_s
        late = {name for name, at_s in self.known.items() if at_s <= self.now_s}
        assert set(self.deadlines.pop(self.now_s)) == late
        for name in late:
            del self.known[name]

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.deadlines._soonest) <= 2 * len(self.known) + 80


TestDeadlines = DeadlinesModel.TestCase
