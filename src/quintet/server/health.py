"""Health as progress: an engine is well when it steps while it has work.

A server that answers its probe while no token is produced any more is worse
than one that is down, so the probe looks at the engine's step counter.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from quintet.server.models import Models

_TICK_S = 1.0


@dataclass(slots=True)
class _Progress:
    num_steps: int
    since_s: float  # when num_steps was first seen, or the engine last had no work


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
        """ "ok", or what is wrong with the first model that is not well: "stuck" or "closed"."""
        states = [self._state(name) for name in self._models.names()]
        return next((state for state in states if state != "ok"), "ok")

    async def watch(self) -> None:
        """Observe for ever, so that a first probe already knows since when."""
        while True:
            self.observe()
            await asyncio.sleep(_TICK_S)

    def _state(self, name: str) -> str:
        engine = self._models.get(name)
        if engine.is_closed:
            return "closed"
        stats = engine.stats()
        has_work = stats.num_running + stats.num_waiting > 0
        now_s = time.monotonic()
        seen = self._progress.get(name)
        if seen is None or stats.num_steps != seen.num_steps or not has_work:
            self._progress[name] = _Progress(stats.num_steps, now_s)
            return "ok"
        return "stuck" if now_s - seen.since_s >= self._stuck_after_s else "ok"
