"""Names of models, the local store, and downloads.  May import errors, config and formats."""
