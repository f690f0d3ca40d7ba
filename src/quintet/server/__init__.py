"""The ASGI app; dialects hold one file per wire protocol.  May import everything but cli."""
