"""Reads API references: runs what they show, checks what they declare, lists what they name.

    python -m spec run ../specs/000_*.txt        # the code blocks, against the packaged model
    python -m spec coverage ../specs > COVERAGE.md

A file in `faces/` says what a reference's examples take for granted.
"""
