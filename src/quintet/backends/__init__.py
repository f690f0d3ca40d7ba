"""Executors of the op program: reference (NumPy) and cpu (native).  May import everything below models."""
