"""Where the references are, on machines that have them."""

from __future__ import annotations

import os
from pathlib import Path


def references_folder() -> Path | None:
    """`specs` beside $QUINTET_TEST_DATA, or beside the repository's `shared/data`."""
    named = os.environ.get("QUINTET_TEST_DATA")
    data = Path(named) if named else Path(__file__).parents[3] / "shared" / "data"
    folder = data.parent / "specs"
    return folder if folder.is_dir() else None
