"""llamatelemetry.server: options, and the life of a server."""

from __future__ import annotations

import shlex
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from llamatelemetry.api.client import LlamaCppClient
from llamatelemetry.exceptions import (
    ClientError,
    ConfigurationError,
    LLCudaError,
    ModelError,
    ServerError,
)
from llamatelemetry.server import ServerConfig, ServerManager


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_options_become_llama_servers_flags():
    """ServerConfig.to_cli_args(): what differs from it is said, quoted for a shell."""
    config = ServerConfig(
        model_path="my model.gguf",
        host="0.0.0.0",
        port=8081,
        n_gpu_layers=99,
        main_gpu=1,
        tensor_split="0.7,0.3",
        split_mode="row",
        context_size=4096,
        n_batch=256,
        flash_attn=True,
        embeddings=True,
        threads=8,
        api_key="a'b",
    )
    assert shlex.split(config.to_cli_args()) == [
        *("--model", "my model.gguf", "--host", "0.0.0.0", "--port", "8081"),
        *("--ctx-size", "4096", "--batch-size", "256", "--threads", "8"),
        *("--n-gpu-layers", "99", "--main-gpu", "1", "--split-mode", "row"),
        *("--tensor-split", "0.7,0.3", "--flash-attn", "on", "--embeddings", "--api-key", "a'b"),
    ]
    plain = ServerConfig("m").to_cli_args()
    assert not {"--flash-attn", "--embeddings", "--api-key", "--tensor-split"} & set(plain.split())


def test_options_as_dictionaries():
    """ServerConfig.to_dict and from_dict(data) are each other's inverse."""
    config = ServerConfig(model_path="m", port=1)
    assert ServerConfig.from_dict(data=config.to_dict()) == config
    for wrong in ({}, {"model_path": "m", "prot": 1}):
        with pytest.raises(ConfigurationError):
            ServerConfig.from_dict(wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"port": 70000},
        {"port": "8080"},
        {"context_size": -1},
        {"n_batch": 0},
        {"threads": 0},
        {"split_mode": "column"},
        {"tensor_split": "half"},
        {"tensor_split": "-1,2"},
    ],
)
def test_options_out_of_range(options: dict):
    """ConfigurationError names the option."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        ServerConfig(model_path="m", **options)


def test_a_server_from_start_to_stop():
    """start_with_config, wait_until_ready(timeout), is_running, get_url, get_logs and stop; the
    key, threads, batch and context it was given hold."""
    port = free_port()
    config = ServerConfig(
        model_path="demo",
        port=port,
        n_gpu_layers=99,
        context_size=128,
        n_batch=64,
        threads=1,
        api_key="secret",
    )
    with ServerManager() as server:
        assert not server.is_running()
        assert server.start_with_config(config=config) is True
        assert server.is_running()
        with pytest.raises(ServerError, match="already"):
            server.start(args=config.to_cli_args())
        assert server.wait_until_ready(timeout=60) is True
        assert server.get_url() == f"http://127.0.0.1:{port}"
        other = ServerManager()
        with pytest.raises(ServerError, match="listen"):
            other.start_with_config(config)
        with LlamaCppClient(base_url=server.get_url(), api_key="secret") as client:
            assert client.health() == {"status": "ok"}
            assert client.get_props()["default_generation_settings"]["n_ctx"] == 128
            assert client.chat_completion([{"role": "user", "content": "Hello!"}]).choices
            with pytest.raises(ClientError, match="400"):
                client.completion("word " * 200)
        with LlamaCppClient(base_url=server.get_url()) as client, pytest.raises(ClientError):
            client.list_models()
        assert "CPU" in server.get_logs(), "99 layers on no GPU are worth a word"
        server.stop()
        server.stop()
        assert not server.is_running()
        assert "listening" in server.get_logs()


def test_what_cannot_start():
    """ModelError without the model, ConfigurationError without a word of it; all LLCudaError."""
    server = ServerManager()
    with pytest.raises(ModelError, match="no/such"):
        server.start_with_config(ServerConfig(model_path="no/such", port=free_port()))
    with pytest.raises(ConfigurationError):
        server.start_with_config(ServerConfig(model_path=""))
    with pytest.raises(ServerError, match="no-such-binary"):
        ServerManager("/no-such-binary").start(f"-m m --port {free_port()}")
    assert {ModelError, ConfigurationError, ServerError, ClientError} <= set(
        LLCudaError.__subclasses__()
    )
    assert server.wait_until_ready(timeout=1) is False
    assert server.get_logs() == ""
    assert server.get_url() == ""


def test_another_llama_server_is_started_with_the_same_flags(tmp_path: Path, monkeypatch):
    """LLAMA_SERVER_PATH, or ServerManager(server_path); one that ends is not ready."""
    binary = tmp_path / "llama-server"
    binary.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent(
            """
            import sys, http.server
            print(sys.argv[1:], flush=True)
            if "--fail" in sys.argv:
                sys.exit("out of memory")
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(b'{"status": "ok"}')
            port = int(sys.argv[sys.argv.index("--port") + 1])
            http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
            """
        )
    )
    binary.chmod(0o755)
    monkeypatch.setenv("LLAMA_SERVER_PATH", str(binary))
    with ServerManager() as server:
        config = ServerConfig(model_path="/no/such.gguf", port=free_port())
        assert server.start_with_config(config)
        assert server.wait_until_ready(timeout=30)
        assert str(shlex.split(config.to_cli_args())) in server.get_logs()
        server.stop()
        server.start(f"--port {free_port()} --fail")
        assert not server.wait_until_ready(timeout=30)
        assert "out of memory" in server.get_logs()
