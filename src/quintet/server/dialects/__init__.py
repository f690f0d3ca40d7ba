"""One router file per wire protocol: wire to engine request, engine output to wire."""
