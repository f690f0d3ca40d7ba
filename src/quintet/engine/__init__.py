"""Sequences, block pool, scheduler and step loop.  May import sampling and below."""
