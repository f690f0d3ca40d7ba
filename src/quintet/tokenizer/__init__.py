"""Text to token ids and back, and chat templates.  May import errors and formats."""
