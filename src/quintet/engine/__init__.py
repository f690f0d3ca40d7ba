"""Sequences, block pool, scheduler and step loop.  May import everything below it; knows no HTTP."""
