"""Quintet: a local LLM engine and server that speaks five interfaces."""

__version__ = "0.1.0"
