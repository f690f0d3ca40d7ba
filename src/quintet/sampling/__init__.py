"""Sampling parameters, constraints and the sampler.  May import parsing and below, and _native."""

from quintet.sampling.breakers import DryBreakers, TokenSequences
from quintet.sampling.constraint import Constraint
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
    "Constraint",
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
