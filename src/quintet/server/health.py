"""Health as progress: an engine is well when it steps while it has work.

A server that answers its probe while no token is produced any more is worse
than one that is down, so the probe looks at the engine's step counter.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from quintet.server.engines import ServedModel
from quintet.server.models import Models

_TICK_S = 1.0


@dataclass(slots=True)
class _Progress:
    num_steps: int
    since_s: float  # when num_steps was first seen, or nobody last waited


class HealthMonitor:
    """Watches the step counters of all models.

    Args:
        models: those to watch.
        stuck_after_s: waiting work without a step for this long is ill health.
    """

    def __init__(self, models: Models, stuck_after_s: float) -> None:
        self._models = models
        self._stuck_after_s = stuck_after_s
        self._progress: dict[str, _Progress] = {}

    def observe(self) -> str:
        """ "ok", or what is wrong with the first model that is not well.

        "stuck", or the engine's state where that is not "ready".
        """
        states = [self._state(model) for model in self._models]
        return next((state for state in states if state != "ok"), "ok")

    async def watch(self) -> None:
        """Observe for ever, so that a first probe already knows since when."""
        while True:
            self.observe()
            await asyncio.sleep(_TICK_S)

    def _state(self, model: ServedModel) -> str:
        state = model.engine.state
        if state != "ready":
            return state
        num_steps = model.engine.stats().num_steps
        now_s = time.monotonic()
        seen = self._progress.get(model.name)
        # Our own count of who waits: the engine's counters are those of its latest step, which
        # is no help when it hangs in the one after.
        if seen is None or num_steps != seen.num_steps or not model.num_waiting:
            self._progress[model.name] = _Progress(num_steps, now_s)
            return "ok"
        return "stuck" if now_s - seen.since_s >= self._stuck_after_s else "ok"
