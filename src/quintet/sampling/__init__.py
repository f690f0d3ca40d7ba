"""Sampling parameters and the sampler.  May import errors and the native module."""
