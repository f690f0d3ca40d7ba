"""Models, their configuration and their errors."""
