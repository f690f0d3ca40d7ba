"""Sampling parameters and the sampler.  May import errors and the native module."""

from quintet.sampling.params import SamplingParams
from quintet.sampling.sampler import RowSampler, SampledToken, sample
from quintet.sampling.stop import StopChecker

__all__ = ["RowSampler", "SampledToken", "SamplingParams", "StopChecker", "sample"]
