"""The peer's environment: llama-cpp-python built here, from its source distribution."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal, TypeAlias

Isa: TypeAlias = Literal["native", "avx2"]

PEER = "llama-cpp-python==0.3.36"
# gguf writes the models, numpy their weights, matplotlib draws the result.
EXTRAS = ("gguf>=0.17,<1", "numpy>=1.26,<3", "matplotlib>=3.8,<4")

# What llama.cpp is compiled with.  "avx2" is the AVX2 level of its own CPU variants
# (ggml/src/CMakeLists.txt, ggml_add_cpu_backend_variant "haswell").
# Without the two flags gcc 12 drops what llama.cpp writes into a tile configuration, as its
# _tile_loadconfig says nothing of reading it: the first product would end the process.
CMAKE_FLAGS: dict[Isa, tuple[str, ...]] = {
    "native": ("-DGGML_NATIVE=ON", "'-DCMAKE_CXX_FLAGS=-fno-tree-dse -fno-dse'"),
    "avx2": (
        "-DGGML_NATIVE=OFF",
        "-DGGML_SSE42=ON",
        "-DGGML_AVX=ON",
        "-DGGML_AVX2=ON",
        "-DGGML_BMI2=ON",
        "-DGGML_FMA=ON",
        "-DGGML_F16C=ON",
        "-DGGML_AVX512=OFF",
        "-DGGML_AVX_VNNI=OFF",
    ),
}


def check(python: Path) -> None:
    """See that an environment made elsewhere has all that is needed, before hours of measuring.

    Raises:
        subprocess.CalledProcessError: it does not; Python has said what is missing.
    """
    program = "import gguf, llama_cpp, matplotlib, numpy"
    subprocess.run([python, "-c", program], check=True, cwd=python.parent)


def peer_python(root: Path, isa: Isa) -> Path:
    """The interpreter of the environment under `root`, which is made on first use.

    Compiling takes about ten minutes on two quiet cores.  The environment counts as made once
    all of it is installed; an interrupted build starts again.

    Raises:
        subprocess.CalledProcessError: pip could not build or install; it has said why.
    """
    folder = root / f"venv-{isa}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if complete.exists():
        return python
    print(f"building {PEER} ({isa}) in {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, *EXTRAS], check=True)
    environment = os.environ | {
        "CMAKE_ARGS": " ".join(("-DCMAKE_BUILD_TYPE=Release", *CMAKE_FLAGS[isa])),
        "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get(
            "CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0)))
        ),
    }
    # No cached wheel: one built with other flags would look the same to pip.
    build = [*pip, "--no-cache-dir", "--no-binary", "llama-cpp-python", PEER]
    subprocess.run(build, env=environment, check=True)
    complete.touch()
    return python
