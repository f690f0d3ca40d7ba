"""Other names of models: what programs written for elsewhere call them, and what they are here.

The file is a JSON object of names to names or paths, the user's own: `$QUINTET_ALIASES`, else
`aliases.json` in the store's folder.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from quintet.errors import ModelFormatError
from quintet.formats import strict_json
from quintet.hub import files

MAX_FILE_BYTES = 2**20


def alias_of(name: str, root: Path | None = None) -> str:
    """What a name stands for; itself where the file does not have it.

    Args:
        name: exactly as a program gives it.
        root: the store's folder; None: the user's.

    Raises:
        ModelFormatError: the file is not what it should be.
    """
    named = os.environ.get("QUINTET_ALIASES")
    path = Path(named) if named else (root or files.default_root()) / "aliases.json"
    try:
        status = path.stat()
    except OSError as error:
        if named:
            raise ModelFormatError(
                f"expected the aliases that QUINTET_ALIASES names: {error.strerror}", path=path
            ) from None
        return name
    return _read(path, status.st_mtime_ns, status.st_size).get(name, name)


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int, size_bytes: int) -> dict[str, str]:
    """The file, read anew when it changes."""
    content = strict_json.load_object(path, max_bytes=MAX_FILE_BYTES)
    for name, target in content.items():
        if not isinstance(target, str) or not target:
            raise ModelFormatError("expected a name or a path", path=path, part=name[:100])
    return content
