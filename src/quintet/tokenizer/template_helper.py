"""The helper process of `isolated_template`: compiles a chat template and renders with it."""

from __future__ import annotations

import importlib
from typing import Any

from quintet.sandbox.child import Work, serve
from quintet.tokenizer.chat import ChatTemplate

# What Jinja2 would import when it is first needed, when nothing can be opened any more.
_LATE_MODULES = ("jinja2.debug", "jinja2.constants", "pprint", "traceback", "linecache")


def main() -> None:
    """Serve the client at the other end of stdin and stdout."""
    for name in _LATE_MODULES:
        importlib.import_module(name)
    ChatTemplate("{{ strftime_now('%Y') }}{{ messages | pprint }}").render([])  # the time zone, too
    serve(_prepare)


def _prepare(setup: Any) -> Work:
    template = ChatTemplate(**setup)
    return lambda task: template.render(**task)


if __name__ == "__main__":
    main()
