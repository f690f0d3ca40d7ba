"""`python -m spec run FOLDER [FACE]` and `python -m spec coverage FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spec.blocks import read
from spec.coverage import coverage
from spec.outcome import report
from spec.run import faces, find_spec, run_reference


def main() -> int:
    """Print what is asked for; 1 where something fails or is not tested."""
    parser = argparse.ArgumentParser(prog="spec")
    parser.add_argument("what", choices=("run", "coverage"))
    parser.add_argument("folder", type=Path, help="of the references, NNN_*.txt")
    parser.add_argument("face", nargs="?", help="only this one, by its import name")
    arguments = parser.parse_args()
    chosen = [face for face in faces() if arguments.face in (None, face.PACKAGE)]
    if arguments.what == "coverage":
        text, missing = coverage(arguments.folder, chosen)
        print(text)
        return 1 if missing else 0
    failed = False
    for face in chosen:
        reference = read(find_spec(arguments.folder, face))
        outcomes = run_reference(reference, face)
        print(report(f"{face.PACKAGE} ({face.SPEC})", outcomes))
        failed = failed or any(outcome.errors for outcome in outcomes)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
