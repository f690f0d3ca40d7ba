"""Executors of the op program: reference (NumPy), cpu (native).  May import models and below."""
