"""Sampling parameters, constraints and the sampler.  May import parsing and below, and _native."""

from quintet.sampling.constraint import Constraint
from quintet.sampling.params import SamplingParams
from quintet.sampling.sampler import RowSampler, SampledToken, sample
from quintet.sampling.stop import StopChecker

__all__ = ["Constraint", "RowSampler", "SampledToken", "SamplingParams", "StopChecker", "sample"]
