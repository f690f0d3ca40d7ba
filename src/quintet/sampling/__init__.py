"""Sampling parameters and the sampler.  May import errors and the native module."""

from quintet.sampling.breakers import DryBreakers, TokenSequences
from quintet.sampling.params import SamplingParams
from quintet.sampling.sampler import (
    RowSampler,
    SampledToken,
    TokenScore,
    sample,
    score,
)
from quintet.sampling.stages import STAGES
from quintet.sampling.stop import StopChecker

__all__ = [
    "STAGES",
    "DryBreakers",
    "RowSampler",
    "SampledToken",
    "SamplingParams",
    "StopChecker",
    "TokenScore",
    "TokenSequences",
    "sample",
    "score",
]
