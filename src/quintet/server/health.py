"""Health as progress: an engine is well when it steps while it has work.

A server that answers its probe while no token is produced any more is worse
than one that is down, so the probe looks at the engine's step counter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from enum import Enum
from typing import Final

from quintet.engine.client import EngineState
from quintet.server.models import Models
from quintet.server.served_model import ServedModel

_log = logging.getLogger(__name__)
_TICK_S = 1.0


class HealthState(str, Enum):
    """How the server is; the values are what probes read."""

    STARTING = "starting"  # the models it is to hold are not loaded yet
    OK = "ok"
    RESTARTING = "restarting"  # a model's process was lost, and another one loads
    STUCK = "stuck"  # work waits, and no step is made
    DRAINING = "draining"  # it was told to stop: what runs may end, nothing new is taken
    CLOSED = "closed"  # a model takes no more requests

    @property
    def is_alive(self) -> bool:
        """Whether it will get well by itself; if not, somebody should start it anew."""
        return self not in (HealthState.STUCK, HealthState.CLOSED)


_STATES: Final[dict[EngineState, HealthState]] = {
    "loading": HealthState.STARTING,
    "ready": HealthState.OK,
    "restarting": HealthState.RESTARTING,
    "closed": HealthState.CLOSED,
}


_ILL: Final = {HealthState.STUCK, HealthState.RESTARTING, HealthState.CLOSED}


@dataclass(slots=True)
class _Progress:
    num_steps: int
    since_s: float  # when num_steps was first seen, or nobody last waited


class HealthMonitor:
    """Watches the step counters of all models.

    Args:
        models: those to watch.
        stuck_after_s: waiting work without a step for this long is ill health.

    Attributes:
        is_starting: the server loads the models it was started with.
        is_draining: it was told to stop.
    """

    def __init__(self, models: Models, stuck_after_s: float) -> None:
        self._models = models
        self._stuck_after_s = stuck_after_s
        self._progress: dict[str, _Progress] = {}
        self.is_starting = False
        self.is_draining = False

    def observe(self) -> HealthState:
        """How the server is; with several models, how the first one is that is not well."""
        if self.is_draining:
            return HealthState.DRAINING
        states = [self._state(model) for model in self._models]
        if self.is_starting:
            return HealthState.STARTING
        return next((state for state in states if state is not HealthState.OK), HealthState.OK)

    async def watch(self) -> None:
        """Observe for ever, so that a first probe already knows since when; log every change."""
        seen = self.observe()
        while True:
            state = self.observe()
            if state is not seen:
                level = logging.WARNING if {state, seen} & _ILL else logging.INFO
                _log.log(level, "the server was %s and is %s", seen.value, state.value)
                seen = state
            await asyncio.sleep(_TICK_S)

    def _state(self, model: ServedModel) -> HealthState:
        state = _STATES[model.engine.state]
        if state is not HealthState.OK:
            self._progress.pop(model.name, None)
            return state
        num_steps = model.engine.stats().num_steps
        now_s = time.monotonic()
        seen = self._progress.get(model.name)
        # Our own count of who waits: the engine's counters are those of its latest step, which
        # is no help when it hangs in the one after.
        if seen is None or num_steps != seen.num_steps or not model.num_waiting:
            self._progress[model.name] = _Progress(num_steps, now_s)
            return HealthState.OK
        is_stuck = now_s - seen.since_s >= self._stuck_after_s
        return HealthState.STUCK if is_stuck else HealthState.OK
