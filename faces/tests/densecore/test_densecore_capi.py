"""libdensecore.so, from C programs compiled against densecore.h."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from densecore import build_library
from densecore.capi.callback_engine import CallbackEngine
from densecore.capi.exports import code_of
from densecore.capi.placement import Pinning, choose_cpus
from densecore.exceptions import TimeoutError
from quintet import CapacityError, EngineError, ModelNotFoundError, RequestError

PROGRAMS = Path(__file__).parent / "programs"
pytest.importorskip("cffi")
if shutil.which("gcc") is None:
    pytest.skip("no gcc", allow_module_level=True)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built by its command."""
    folder = tmp_path_factory.mktemp("densecore")
    command = [sys.executable, "-m", "densecore.build_library", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if "Py" in done.stderr and "shared library" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    path = folder / "out" / "libdensecore.so"
    assert str(path) in done.stdout
    return path


def environment() -> dict[str, str]:
    """Ours, with this process's way to packages that are not installed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def compiled(library: Path, name: str) -> Path:
    """A program of the folder, as a user would compile it, with every warning an error."""
    program = library.parent / name
    source = PROGRAMS / f"{name}.c"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{library.parent}"]
    command = ["gcc", *flags, str(source), str(library), f"-Wl,-rpath,{library.parent}"]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def run(library: Path, name: str) -> subprocess.CompletedProcess[str]:
    """A program's run to its end."""
    return subprocess.run(
        [compiled(library, name)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=100,
        check=False,
    )


def test_the_references_program_runs(library: Path):
    """Engines, texts, tokens, embeddings and metrics."""
    done = run(library, "example")
    assert done.returncode == 0, done.stderr
    assert "Embedding dimension: 256 length 1.000 user data" in done.stdout
    assert "of 3 requests" in done.stdout


def test_nothing_a_program_gives_is_followed_blindly(library: Path):
    """Bad handles, NULL, numbers out of range; callbacks that submit and free."""
    done = run(library, "hostile")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"
    assert "Traceback" not in done.stderr
    assert "no model '/nonexistent.gguf'" in done.stderr


def test_16_threads_at_once(library: Path):
    """Each accepted request ends once, and all callbacks come from one thread."""
    done = run(library, "stress")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "accepted 192 finished 192 elsewhere 0 wrong 0\n"


@pytest.mark.timeout(600)
def test_nothing_of_ours_leaks(library: Path, tmp_path: Path):
    """No memory is lost per call, says valgrind."""
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind")
    log = tmp_path / "log"
    command = [
        "valgrind",
        "--undef-value-errors=no",  # leaks are the question; CPython has its own way with memory
        "--vex-guest-max-insns=25",  # the kernels' loops are longer than it can translate
        "--leak-check=full",
        "--show-leak-kinds=definite",
        "--num-callers=30",
        f"--log-file={log}",
        str(compiled(library, "leak")),
    ]
    env = {**environment(), "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "ok\n"
    text = log.read_text()
    assert "LEAK SUMMARY" in text
    records = re.split(r"\n==\d+== \n", text)
    lost = [record for record in records if re.search(r"blocks? are definitely lost", record)]
    for record in lost:
        # The program makes 20 calls of each kind; importing leaves a few blocks behind.
        (count,) = re.findall(r"in ([\d,]+) blocks? are definitely lost", record)
        assert int(count.replace(",", "")) < 10, record
        assert not re.search(r"(?:at|by) 0x\w+: \S+ \(in \S*_native", record), record


def test_the_header_is_what_is_exported(library: Path):
    """The functions and nothing else of ours; C++ can read the header."""
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    ).stdout
    exported = {line.split()[-1] for line in listed.splitlines()}
    functions = set(re.findall(r"(\w+)\([^()]*\);", build_library.declarations()))
    assert functions == {
        "InitEngine",
        "FreeEngine",
        "SubmitRequest",
        "SubmitRequestIds",
        "SubmitEmbeddingRequest",
        "CancelRequest",
        "GetMetrics",
        "GetDetailedMetrics",
    }
    assert functions <= exported
    assert {name for name in exported if not name.startswith("_")} - functions <= {
        "PyInit__densecore"
    }
    header = f'#include "{library.parent}/densecore.h"\n'
    subprocess.run(
        ["gcc", "-x", "c++", "-fsyntax-only", "-Wall", "-Werror", "-"],
        input=header,
        text=True,
        check=True,
    )


def test_python_programs_may_load_it(library: Path):
    """In an interpreter that runs already, as `ctypes` does it."""
    code = """
import ctypes, sys, threading
library = ctypes.CDLL(sys.argv[1])
library.InitEngine.restype = ctypes.c_void_p
library.FreeEngine.argtypes = [ctypes.c_void_p]
Callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)
library.SubmitRequest.argtypes = [
    ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, Callback, ctypes.c_void_p
]
texts, is_done = [], threading.Event()
def on_token(token, is_finished, user_data):
    texts.append(token.decode())
    if is_finished:
        is_done.set()
callback = Callback(on_token)
engine = library.InitEngine(b"demo", None, 1, -1, 0)
assert library.SubmitRequest(engine, b"The capital of France", 5, callback, None) == 1
assert is_done.wait(60)
library.FreeEngine(engine)
print(len("".join(texts)) > 0)
"""
    command = [sys.executable, "-c", code, str(library)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_building_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """No compiler, and a Python without a shared library."""
    monkeypatch.setenv("CC", "no-such-compiler")
    assert build_library.main([str(tmp_path)]) == 1
    assert "no-such-compiler" in capsys.readouterr().err
    monkeypatch.setattr(
        "densecore.build_library.sysconfig.get_config_vars", lambda: {"Py_ENABLE_SHARED": 0}
    )
    with pytest.raises(RuntimeError, match="--enable-shared"):
        build_library.build(tmp_path)
    assert not list(tmp_path.iterdir())


def test_errors_have_their_codes():
    """As the header's table says."""
    found = {
        EngineError("x"): -1,
        RequestError("x"): -1,
        CapacityError("x", resource="y"): -2,
        MemoryError(): -2,
        ModelNotFoundError("x"): -3,
        TimeoutError("x"): -4,
    }
    assert {error: code_of(error) for error in found} == found


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """sysfs of two nodes with four cores each; CPUs c and c + 8 are threads of one core."""
    for node in (0, 1):
        folder = tmp_path / "node" / f"node{node}"
        folder.mkdir(parents=True)
        folder.joinpath("cpulist").write_text(
            f"{4 * node}-{4 * node + 3},{8 + 4 * node}-{11 + 4 * node}\n"
        )
    for cpu in range(16):
        folder = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        folder.joinpath("physical_package_id").write_text(f"{cpu % 8 // 4}\n")
        folder.joinpath("core_id").write_text(f"{cpu % 4}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    return tmp_path


@pytest.mark.parametrize(
    ("node", "policy", "num_threads", "expected"),
    [
        (-1, Pinning.SCATTER, 0, None),
        (-1, Pinning.COMPACT, 16, None),
        (0, Pinning.SCATTER, 0, {0, 1, 2, 3, 8, 9, 10, 11}),
        (1, Pinning.SCATTER, 2, {4, 6}),
        (1, Pinning.COMPACT, 2, {4, 12}),
        (-1, Pinning.SCATTER, 4, {0, 2, 4, 6}),
        (-1, Pinning.COMPACT, 4, {0, 8, 1, 9}),
        (0, Pinning.SCATTER, 6, {0, 1, 2, 3, 8, 9}),
        (7, Pinning.SCATTER, 0, None),
    ],
)
def test_threads_are_placed(
    two_nodes: Path, node: int, policy: int, num_threads: int, expected: set[int] | None
):
    """By node, then far apart or side by side; a node that is not there is passed over."""
    assert choose_cpus(node, policy, num_threads, system=two_nodes) == expected


def test_an_engine_stays_on_its_cpus(own_store: Path):
    """Its threads inherit the CPUs chosen; the program's do not."""
    before = os.sched_getaffinity(0)
    cpu = min(before)
    known = set(os.listdir("/proc/self/task"))
    engine = CallbackEngine("demo", 2, frozenset({cpu}))
    try:
        for thread in set(os.listdir("/proc/self/task")) - known:
            assert os.sched_getaffinity(int(thread)) == {cpu}
    finally:
        engine.close()
    assert os.sched_getaffinity(0) == before


def test_an_engine_takes_what_it_holds(own_store: Path):
    """More requests are refused at once; closing ends all that were accepted."""
    ends: list[bool] = []
    engine = CallbackEngine("demo")
    num_accepted = 0

    def submit_many() -> None:
        nonlocal num_accepted
        for _ in range(10_000):
            engine.submit("Hello", 1000, lambda text, is_last: ends.append(is_last))
            num_accepted += 1

    try:
        with pytest.raises(CapacityError):
            submit_many()
        assert engine.num_refused == 1
    finally:
        engine.close()
    assert num_accepted > 100
    assert ends.count(True) == num_accepted
    with pytest.raises(EngineError, match="closed"):
        engine.submit("Hello", 1, lambda text, is_last: None)
