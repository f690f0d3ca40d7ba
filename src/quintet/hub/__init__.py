"""Names and the local store of models.  May import errors and formats."""
