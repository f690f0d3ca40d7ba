"""`Model` in this process and in the daemon."""

from __future__ import annotations

import builtins
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.fake_hub import FakeHub, running_hub
from oprel import Client, Config, Model, daemon
from oprel.choice import best_fit, choose_file, context_for
from oprel.core.exceptions import (
    BackendError,
    DownloadError,
    MemoryError,
    ModelNotFoundError,
    OprelError,
    ValidationError,
)
from quintet.hub.packaged import packaged_models

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def direct() -> Model:
    with Model("demo", use_server=False) as model:
        yield model


@pytest.fixture(scope="module")
def served() -> Model:
    return Model("demo")


@pytest.fixture(params=["direct", "served"])
def model(request: pytest.FixtureRequest) -> Model:
    """Both ways."""
    return request.getfixturevalue(request.param)


def test_answers(model: Model):
    """A question is answered; in pieces it is the same answer."""
    answer = model.generate(QUESTION, temperature=0)
    assert "Paris" in answer
    pieces = list(model.generate(QUESTION, temperature=0, stream=True))
    assert len(pieces) > 2
    assert "".join(pieces) == answer
    assert model.is_loaded()


def test_both_ways_answer_alike(direct: Model, served: Model):
    """The daemon's defaults do not get in: greedy answers are equal."""
    for prompt in (QUESTION, "What is 2 + 3?", "Tell me a story"):
        assert direct.generate(prompt, 40, temperature=0) == served.generate(
            prompt, 40, temperature=0
        )


def test_conversations(model: Model):
    """What was said is known until it is reset; others are strangers; the system prompt stays."""
    name = "My name is Alice"
    model.generate(name, conversation_id="1", system_prompt="You are helpful.", temperature=0)
    asked = {"prompt": "What's my name?", "temperature": 0}
    assert "Alice" in model.generate(**asked, conversation_id="1")
    assert "Alice" not in model.generate(**asked, conversation_id="2")
    assert "Alice" not in model.generate(**asked, conversation_id="1", reset_conversation=True)
    assert "Alice" not in model.generate(**asked)


def test_parameters_act_and_are_checked(model: Model):
    """max_tokens bounds; values out of range are refused before anything runs."""
    short = model.generate("Tell me a story", max_tokens=3, temperature=0)
    assert model.generate("Tell me a story", max_tokens=30, temperature=0).startswith(short)
    assert model.generate("Tell me a story", 30, temperature=1.5, top_k=1) == model.generate(
        "Tell me a story", 30, temperature=0
    )
    for wrong in (
        {"max_tokens": 0},
        {"temperature": 2.5},
        {"top_p": -0.1},
        {"top_k": -1},
        {"temperature": "hot"},
        {"prompt": ""},
    ):
        with pytest.raises(ValidationError):
            model.generate(**{"prompt": "a", **wrong})


def test_loading_and_unloading():
    """In direct mode the model comes with load and goes with unload; generate loads by itself."""
    model = Model("demo", use_server=False)
    assert not model.is_loaded()
    model.load()
    assert model.is_loaded()
    model.unload()
    assert not model.is_loaded()
    assert "Paris" in model.generate(QUESTION, temperature=0)
    with model:
        assert model.is_loaded()
    assert not model.is_loaded()


def test_what_cannot_be_is_refused():
    """Unknown names, formats, backends."""
    with pytest.raises(ModelNotFoundError, match=r"nonexistent.*models here: demo"):
        Model("nonexistent")
    with pytest.raises(OprelError):
        Model("../no/such/file.gguf")
    with pytest.raises(ValidationError, match="Q4_K_M"):
        Model("demo", quantization="Q99")
    with pytest.raises(ValidationError, match=r"llama\.cpp"):
        Model(model_identifier="demo", backend="vllm")
    with pytest.raises(ValidationError, match="max_memory_mb"):
        Model("demo", max_memory_mb=0)
    with pytest.raises(ValidationError):
        Model("")


@pytest.mark.parametrize("use_server", [True, False])
def test_memory_is_kept_to_or_refused_with_numbers(use_server: bool):
    """A limit below the weights is refused, saying what is needed; a larger one holds."""
    with pytest.raises(MemoryError, match=r"expected at least \d+ bytes .* found 1048576"):
        Model("demo", max_memory_mb=1, use_server=use_server).load()
    with pytest.raises(builtins.MemoryError):
        Model("demo", max_memory_mb=1, use_server=use_server).generate("a")
    if use_server:
        # A limit that nothing fits into binds nobody else.
        assert Client().generate("demo", "Hello", options={"num_predict": 1}).done
    with Model("demo", max_memory_mb=14, use_server=use_server) as model:
        assert "Paris" in model.generate(QUESTION, temperature=0)
        if use_server:
            (loaded,) = [m for m in Client().ps().models if m.name == "demo:latest"]
            # 14 MiB leave less for the cache than the whole context takes.
            assert loaded.context_length < 2048
    with pytest.raises(MemoryError):
        Model("demo", use_server=use_server, config=Config(default_max_memory_mb=1)).load()
    Model("demo").load()  # forgets the limit
    assert daemon.memory_limits() == {}


def test_the_best_format_that_fits(tmp_path: Path):
    """Without a choice of the user's memory decides; none that fits is refused with numbers."""
    sizes = {"Q2_K": 30, "Q4_K_M": 50, "Q8_0": 100, "IQ4_NL": 45}
    assert [best_fit(sizes, budget, "m") for budget in (200, 111, 60, 34)] == [
        *("Q8_0", "Q8_0", "Q4_K_M", "Q2_K")
    ]
    with pytest.raises(MemoryError, match="Q2_K needs"):
        best_fit(sizes, 20, "m")
    demo = packaged_models()["demo"]
    for quant in ("Q4_K_M", "Q8_0"):
        shutil.copy(demo, tmp_path / f"tiny-{quant}.gguf")
    os.truncate(tmp_path / "tiny-Q4_K_M.gguf", 1000)
    assert choose_file(tmp_path, None, 2**30).name == "tiny-Q8_0.gguf"
    assert choose_file(tmp_path, "Q4_K_M", 2**30).name == "tiny-Q4_K_M.gguf"
    with pytest.raises(ModelNotFoundError, match="it has Q4_K_M, Q8_0"):
        choose_file(tmp_path, "Q6_K", 2**30)
    with Model(str(tmp_path), use_server=False) as model:
        assert "Paris" in model.generate(QUESTION, temperature=0)


def test_a_path_in_the_daemon(tmp_path: Path):
    """The daemon serves a file of the user's by a name that is made for it."""
    path = tmp_path / "my model.gguf"
    shutil.copy(packaged_models()["demo"], path)
    model = Model(str(path))
    assert "Paris" in model.generate(QUESTION, temperature=0)
    names = [each.name for each in Client().list().models if each.name.startswith("local/")]
    assert len(names) == 1
    assert names[0].startswith("local/my-model:")
    Client().delete(names[0])
    assert path.exists()


def test_aliases_are_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A name of a program's is what the user's file of aliases says."""
    aliases = tmp_path / "aliases.json"
    aliases.write_text(json.dumps({"qwencoder": "demo", "mine": str(packaged_models()["demo"])}))
    monkeypatch.setenv("QUINTET_ALIASES", str(aliases))
    config = Config(cache_dir=str(tmp_path / "other"))
    for name, folder in (("qwencoder", None), ("mine", None), ("qwencoder", config)):
        with Model(name, "Q4_K_M", 4096, use_server=False, config=folder) as model:
            assert "Paris" in model.generate(QUESTION, temperature=0)


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A model that is known but not here is asked for when it is loaded."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("oprel.choice._MAX_FAILURES", 1)
    model = Model("qwencoder", use_server=False)
    assert not model.is_loaded()
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1"):
        model.load()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A repository with the demo model as Q4_K_M, and a Q8_0 that is too large; an own daemon."""
    with running_hub() as hub, socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
        demo = packaged_models()["demo"].read_bytes()
        hub.add("user/tiny", "tiny-Q4_K_M.gguf", demo)
        hub.add("user/tiny", "tiny-Q8_0.gguf", demo + bytes(20 * 2**20))
        for name, value in (
            ("HF_ENDPOINT", hub.endpoint),
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
            ("HF_TOKEN", ""),
            ("QUINTET_HOME", str(tmp_path / "home")),
            ("OPREL_SERVER_PORT", str(number)),
        ):
            monkeypatch.setenv(name, value)
        free.close()
        yield hub
        daemon.stop(number)


def test_a_download_in_the_format_that_fits(hub: FakeHub):
    """What is not here is downloaded when it is loaded: the best format for the memory, once."""
    model = Model("user/tiny", max_memory_mb=16, use_server=False)
    assert not hub.requests
    with model:
        assert "Paris" in model.generate(QUESTION, temperature=0)
    assert all("Q4_K_M" in request.path for request in hub.content_requests())
    num_requests = len(hub.requests)
    served = Model("user/tiny", max_memory_mb=16)  # it is in the store now
    assert "Paris" in served.generate(QUESTION, temperature=0)
    assert len(hub.requests) == num_requests
    with pytest.raises(OprelError, match="Q6_K"):
        Model("user/tiny", "q6_k").load()


def test_the_daemon_downloads(hub: FakeHub):
    """pull, and a model that is not here, fetch into the daemon's store; progress is told."""
    model = Model("hf.co/user/tiny", quantization="Q4_K_M")
    assert "Paris" in model.generate(QUESTION, temperature=0)
    with Client() as client:
        assert "hf.co/user/tiny:Q4_K_M" in [each.name for each in client.list().models]
        steps = list(client.pull("hf.co/user/tiny:Q8_0", stream=True))
        assert any(step.total and step.completed is not None for step in steps)
        assert steps[-1].status == "success"
        pulled = client.pull("hf.co/user/tiny:Q4_K_M")
        assert isinstance(pulled, dict), "a Dict"
        assert pulled["status"] == "success"
    # Of the two that are here now, the one that fits.
    chosen = Model("hf.co/user/tiny", max_memory_mb=16, use_server=False)
    with chosen:
        assert "Paris" in chosen.generate(QUESTION, temperature=0)


def test_the_context_is_the_smaller_one():
    """ctx_size where the model was trained for more, and nothing where for less."""
    path = packaged_models()["demo"]
    assert context_for(path, {}, 4096) is None
    assert context_for(path, {}, 512) == 512
    assert context_for(path, {"num_ctx": 256}, 512) == 256


def test_configuration_of_a_model(caplog: pytest.LogCaptureFixture, tmp_path: Path):
    """Folder, context, threads and batch act; layers for a GPU are said to be the CPU's."""
    config = Config(
        cache_dir=str(tmp_path), ctx_size=128, batch_size=32, n_threads=1, n_gpu_layers=20
    )
    with caplog.at_level(logging.WARNING), Model("demo", use_server=False, config=config) as model:
        assert "Paris" in model.generate(QUESTION, temperature=0)
        with pytest.raises(ValidationError, match="128"):
            model.generate("word " * 200)
    assert "no GPU" in caplog.text


def test_the_next_process_finds_the_daemon(served: Model, port: int):
    """One daemon serves all programs of the user; it is the process that listens."""
    served.load()
    found = daemon.find(port)
    assert found is not None
    code = "from oprel import daemon; print(daemon.ensure().pid)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert int(result.stdout) == found.pid != os.getpid()


def test_files_of_a_daemon_that_has_gone_deceive_nobody(port: int):
    """Stopped or killed, it is not found; what it left is passed over, and another one starts."""
    first = daemon.ensure()
    os.kill(first.pid, 9)
    deadline = time.monotonic() + 10
    while daemon.find(port) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (daemon.folder() / f"{port}.json").exists()
    second = daemon.ensure()
    assert second.pid != first.pid
    assert daemon.stop(port)
    assert daemon.find(port) is None
    assert not daemon.stop(port)


def test_a_port_that_another_server_has(port: int, monkeypatch: pytest.MonkeyPatch):
    """A listener that is not ours is not used: the error names the address."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setenv("OPREL_SERVER_PORT", str(taken))
        with pytest.raises(BackendError, match=f"cannot listen on .*{taken}"):
            Model("demo").load()


def test_an_idle_daemon_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """One that was started for a program goes when nobody has used a model for long."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    monkeypatch.setenv("OPREL_SERVER_PORT", str(number))
    monkeypatch.setenv("OPREL_SERVER_IDLE_TIMEOUT", "0.2")
    daemon.ensure()
    deadline = time.monotonic() + 20
    while daemon.find(number) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
