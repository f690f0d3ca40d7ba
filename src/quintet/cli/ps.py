"""`quintet ps`."""

from __future__ import annotations

from typing import Any

from quintet.cli.options import JsonOption


def ps(as_json: JsonOption = False) -> None:
    """List the models that a running server has loaded."""
    from quintet.cli.remote import ServerError, ask
    from quintet.cli.tables import print_table, size

    models = ask("GET", "/api/ps").get("models")
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise ServerError("expected a list of models, found something else")
    if as_json:
        import json

        print(json.dumps(models, indent=2))
        return
    rows = [
        (
            str(model.get("name", "?")),
            str(model.get("digest", ""))[:12],
            size(model["size"]) if isinstance(model.get("size"), int) else "?",
            str(model.get("context_length", "?")),
            _until(model.get("expires_at")),
        )
        for model in models
    ]
    print_table(("name", "id", "size", "context", "until"), rows)


def _until(expires_at: Any) -> str:
    """When a model will be unloaded, from now."""
    from datetime import datetime, timezone

    from quintet.cli.tables import duration

    # Python 3.10 reads neither "Z" nor nanoseconds.
    text = str(expires_at).replace("Z", "+00:00")
    head, point, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}" if point else text
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return "?"
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    seconds = (when - datetime.now(timezone.utc)).total_seconds()
    if seconds > 10 * 365 * 86400:
        return "for ever"
    return f"{duration(seconds)} from now" if seconds > 0 else "now"
