"""Guessing tokens ahead, so that one step checks several.  Part of the engine's room."""
