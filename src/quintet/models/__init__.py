"""One file per architecture, and the registry.  May import errors, formats and graph."""
