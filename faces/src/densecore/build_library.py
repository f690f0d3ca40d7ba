"""Builds libdensecore.so, for C programs: `python -m densecore.build_library OUTDIR`.

The library holds a Python interpreter, the one that runs this, and finds its packages.  Needed are
cffi, a C compiler ($CC, or cc) and a Python with a shared library and its headers.

Source: cffi's documentation, "Using CFFI for embedding".
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

_CAPI = Path(__file__).parent / "capi"
HEADER = "densecore.h"
LIBRARY = "libdensecore.so"
_INIT_CODE = """
from _densecore import ffi
from densecore.capi.exports import export
export(ffi)
"""


def build(folder: str | os.PathLike[str]) -> Path:
    """
    Put densecore.h and libdensecore.so into a folder, which is made if need be.

    Returns:
        The library's path.

    Raises:
        ImportError: cffi is not installed.
        RuntimeError: this Python cannot be embedded, or the compiler failed; says how.
    """
    target = Path(folder)
    include, libraries = _python()
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise RuntimeError(f"expected a C compiler, found no {compiler[0]!r}; set CC")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        _emit(work / "densecore.c")
        common = [*compiler, "-O2", "-fPIC", "-fvisibility=hidden", f"-I{_CAPI}", f"-I{include}"]
        # See start.c.
        renamed = "-DPy_InitializeEx=densecore_start_python"
        _run([*common, renamed, "-c", str(work / "densecore.c"), "-o", str(work / "densecore.o")])
        python = sys.executable.replace("\\", "\\\\").replace('"', '\\"')
        start = [f'-DDENSECORE_PYTHON=L"{python}"', "-c", str(_CAPI / "start.c")]
        _run([*common, *start, "-o", str(work / "start.o")])
        objects = [str(work / "densecore.o"), str(work / "start.o")]
        linked = work / LIBRARY
        soname = f"-Wl,-soname,{LIBRARY}"
        _run([*compiler, "-shared", soname, "-o", str(linked), *objects, *libraries])
        shutil.copyfile(_CAPI / HEADER, target / HEADER)
        # Moved into place, for a program may have the old one mapped.
        partial = target / f".{LIBRARY}.{os.getpid()}"
        shutil.copy(linked, partial)
        partial.replace(target / LIBRARY)
    return target / LIBRARY


def declarations() -> str:
    """What the header declares, without what is the preprocessor's."""
    text = (_CAPI / HEADER).read_text().replace("DENSECORE_API ", "")
    text = re.sub(r"#ifdef __cplusplus.*?#endif\n", "", text, flags=re.DOTALL)
    return re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)


def _emit(path: Path) -> None:
    import cffi

    ffi = cffi.FFI()
    ffi.embedding_api(declarations())
    ffi.embedding_init_code(_INIT_CODE)
    ffi.set_source("_densecore", f'#include "{HEADER}"')
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it writes
        ffi.emit_c_code(str(path))


def _python() -> tuple[str, list[str]]:
    """The folder of its headers, and what to link with."""
    config = sysconfig.get_config_vars()
    if not config.get("Py_ENABLE_SHARED"):
        raise RuntimeError(
            f"expected a Python with a shared library, found {sys.executable} without one; "
            "build it with --enable-shared"
        )
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").exists():
        raise RuntimeError(f"expected Python's headers, found no Python.h in {include}")
    folder, version = config["LIBDIR"], config["LDVERSION"]
    return include, [f"-L{folder}", f"-lpython{version}", f"-Wl,-rpath,{folder}"]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr}")


def main(arguments: list[str] | None = None) -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(prog="python -m densecore.build_library")
    parser.add_argument("folder", metavar="OUTDIR", help=f"where {HEADER} and {LIBRARY} go")
    try:
        library = build(parser.parse_args(arguments).folder)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{library}\ncc -I{library.parent} PROGRAM.c {library} -Wl,-rpath,{library.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
