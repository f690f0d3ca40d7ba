"""How an engine is set up."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from woolly.errors import InvalidRequest


@dataclass(frozen=True)
class CacheConfig:
    """
    The cache of keys and values.

    Args:
        enabled: whether sessions find again what others, or they themselves, have computed.
        size: bytes; None: a quarter of the memory that is free.
        ttl: seconds that the server keeps a model nobody uses; an engine keeps its own.
    """

    enabled: bool = True
    size: int | None = None
    ttl: int = 3600

    def __post_init__(self) -> None:
        _check("cache size", self.size, optional=True)
        _check("cache ttl", self.ttl)


@dataclass(frozen=True)
class EngineConfig:
    """
    Configuration of an engine.

    Args:
        max_batch_size: sequences computed together.
        max_sequence_length: tokens of prompt and answer, or the model's own context where less.
        enable_gpu: there is no GPU support; the CPU computes either way.
        num_threads: None for one per physical core.
        mmap_enabled: map the model's file rather than read it.
        cache_config: of keys and values.

    Raises:
        InvalidRequest: a value out of range.
    """

    max_batch_size: int = 4
    max_sequence_length: int = 4096
    enable_gpu: bool = True
    num_threads: int | None = None
    mmap_enabled: bool = True
    cache_config: CacheConfig = field(default_factory=CacheConfig)

    def __post_init__(self) -> None:
        _check("max_batch_size", self.max_batch_size)
        _check("max_sequence_length", self.max_sequence_length, lowest=2)
        _check("num_threads", self.num_threads, optional=True)

    @staticmethod
    def default() -> EngineConfig:
        """The configuration of who sets nothing."""
        return EngineConfig()

    @staticmethod
    def builder() -> EngineConfigBuilder:
        """A builder, which begins with the default configuration."""
        return EngineConfigBuilder()


class EngineConfigBuilder:
    """Sets one thing after another: `EngineConfig.builder().num_threads(8).build()`."""

    def __init__(self) -> None:
        self._config = EngineConfig()

    def max_batch_size(self, size: int) -> EngineConfigBuilder:
        """Sequences computed together."""
        return self._with(max_batch_size=size)

    def max_sequence_length(self, length: int) -> EngineConfigBuilder:
        """Tokens of prompt and answer."""
        return self._with(max_sequence_length=length)

    def enable_gpu(self, enable: bool) -> EngineConfigBuilder:
        """Whether a GPU would be used, if there were support for one."""
        return self._with(enable_gpu=enable)

    def num_threads(self, threads: int) -> EngineConfigBuilder:
        """Threads to compute with."""
        return self._with(num_threads=threads)

    def enable_mmap(self, enable: bool) -> EngineConfigBuilder:
        """Whether the model's file is mapped."""
        return self._with(mmap_enabled=enable)

    def cache_size(self, size: int) -> EngineConfigBuilder:
        """Bytes of the cache."""
        return self._with(cache_config=dataclasses.replace(self._config.cache_config, size=size))

    def build(self) -> EngineConfig:
        """The configuration."""
        return self._config

    def _with(self, **changes: object) -> EngineConfigBuilder:
        self._config = dataclasses.replace(self._config, **changes)  # type: ignore[arg-type]
        return self


def _check(name: str, value: object, *, lowest: int = 1, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InvalidRequest(f"{name}: expected a whole number from {lowest}, found {value!r:.40}")
