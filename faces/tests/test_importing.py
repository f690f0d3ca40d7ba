"""Importing a face loads next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spec.run import faces


@pytest.mark.parametrize("package", [face.PACKAGE for face in faces()])
def test_importing_a_face_loads_no_more_than_quintet(package: str):
    """Beyond the standard library: itself and the modules of quintet that load nothing."""
    code = (
        "import sys, quintet; before = set(sys.modules);"
        f"import {package}; new = {{name.partition('.')[0] for name in set(sys.modules) - before}};"
        f"print(sorted(new - sys.stdlib_module_names - {{'quintet', {package!r}}}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "[]"
