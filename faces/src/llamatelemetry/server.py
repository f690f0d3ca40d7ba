"""A llama-server to talk to: its options, and its life as a process."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from llamatelemetry.exceptions import ConfigurationError, ModelError, ServerError

SPLIT_MODES = ("none", "layer", "row")
_STOP_TIMEOUT_S = 40.0
_POLL_S = 0.05
_MAX_LOG_BYTES = 2**20


@dataclass
class ServerConfig:
    """
    Options of llama-server.

    Args:
        model_path: of a GGUF file, or a model's name.
        host, port: where to listen.
        n_gpu_layers, main_gpu, tensor_split, split_mode, flash_attn: for a llama-server with
            GPUs; Quintet's own runs on the CPU, and says so in its log where they ask for more.
        context_size: tokens of prompt and answer together; 0 for all the model takes.
        n_batch: tokens of one step.
        embeddings: serve embeddings; Quintet's own server always does.
        threads: CPU threads.
        api_key: what clients must send.

    Raises:
        ConfigurationError: a value out of range.
    """

    model_path: str
    host: str = "127.0.0.1"
    port: int = 8080
    n_gpu_layers: int = 0
    main_gpu: int = 0
    tensor_split: str | None = None
    split_mode: str = "layer"
    context_size: int = 2048
    n_batch: int = 512
    flash_attn: bool = False
    embeddings: bool = False
    threads: int = 4
    api_key: str | None = None

    def __post_init__(self) -> None:
        for name, minimum, maximum in (
            ("port", 0, 65535),
            ("n_gpu_layers", -1, 10_000),
            ("main_gpu", 0, 1024),
            ("context_size", 0, 2**31 - 1),
            ("n_batch", 1, 2**31 - 1),
            ("threads", 1, 4096),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not minimum <= value <= maximum:
                raise ConfigurationError(
                    f"{name}: expected {minimum} to {maximum}, found {value!r}"
                )
        if self.split_mode not in SPLIT_MODES:
            raise ConfigurationError(
                f"split_mode: expected one of {', '.join(SPLIT_MODES)}, found {self.split_mode!r}"
            )
        if self.tensor_split is not None:
            try:
                shares = [float(share) for share in self.tensor_split.split(",")]
            except ValueError:
                shares = []
            if not shares or min(shares) < 0:
                raise ConfigurationError(
                    f'tensor_split: expected shares such as "0.5,0.5", found {self.tensor_split!r}'
                )

    def to_cli_args(self) -> str:
        """The options as llama-server takes them, quoted for a shell.

        Source: tools/server/README.md of ggml-org/llama.cpp.
        """
        arguments = ["--model", self.model_path] if self.model_path else []
        arguments += ["--host", self.host, "--port", str(self.port)]
        arguments += ["--ctx-size", str(self.context_size), "--batch-size", str(self.n_batch)]
        arguments += ["--threads", str(self.threads), "--n-gpu-layers", str(self.n_gpu_layers)]
        arguments += ["--main-gpu", str(self.main_gpu), "--split-mode", self.split_mode]
        if self.tensor_split is not None:
            arguments += ["--tensor-split", self.tensor_split]
        if self.flash_attn:
            arguments += ["--flash-attn", "on"]
        if self.embeddings:
            arguments += ["--embeddings"]
        if self.api_key is not None:
            arguments += ["--api-key", self.api_key]
        return shlex.join(arguments)

    def to_dict(self) -> dict[str, Any]:
        """All options by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ServerConfig:
        """
        Options by name.

        Raises:
            ConfigurationError: one that there is not, none of the model, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in data:
            if name not in known:
                raise ConfigurationError(f"expected one of {', '.join(known)}, found {name!r}")
        if "model_path" not in data:
            raise ConfigurationError("model_path: expected a path, found none")
        return cls(**data)


class ServerManager:
    """
    Starts and stops a server with llama-server's options.

    Args:
        server_path: of a llama-server binary; None: what LLAMA_SERVER_PATH names, or else
            Quintet's own server.
    """

    def __init__(self, server_path: str | None = None) -> None:
        self._server_path = server_path or os.environ.get("LLAMA_SERVER_PATH")
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._url = ""

    def start_with_config(self, config: ServerConfig) -> bool:
        """
        Start a server; it loads its model on its own, see `wait_until_ready`.

        Returns:
            True.

        Raises:
            ModelError: there is no such model.
            ServerError: a server of this manager runs, the port is taken, or the program is not
                there.
            ConfigurationError: the options name no model.
        """
        if not config.model_path:
            raise ConfigurationError("model_path: expected a path, found none")
        return self.start(config.to_cli_args())

    def start(self, args: str) -> bool:
        """
        Start a server with these command line options, quoted as for a shell.

        Returns, Raises: as `start_with_config`.
        """
        if self.is_running():
            raise ServerError(f"a server runs already, at {self._url}")
        arguments = shlex.split(args)
        host = _value(arguments, "--host") or "127.0.0.1"
        port = int(_value(arguments, "--port") or 8080)
        if self._server_path is None:
            _check_model(_value(arguments, "--model", "-m"))
        _check_port(host, port)
        command = (
            [self._server_path]
            if self._server_path
            else [sys.executable, "-m", "llamatelemetry.llama_server"]
        )
        self._close_log()
        self._log = tempfile.TemporaryFile(prefix="llama-server-")  # noqa: SIM115 - outlives this
        try:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise ServerError(f"cannot start {command[0]}: {error.strerror}") from None
        shown = f"[{host}]" if ":" in host else host
        self._url = f"http://{'127.0.0.1' if host == '0.0.0.0' else shown}:{port}"  # noqa: S104
        return True

    def wait_until_ready(self, timeout: float = 60) -> bool:
        """Whether the server answers that it is well, within so many seconds and before it ends."""
        import httpx

        deadline_s = time.monotonic() + timeout
        with httpx.Client(timeout=5, trust_env=False) as client:
            while self.is_running():
                try:
                    if client.get(f"{self._url}/health").status_code == 200:
                        return True
                except httpx.TransportError:
                    pass  # it does not listen yet
                if time.monotonic() >= deadline_s:
                    return False
                time.sleep(_POLL_S)
        return False

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def get_url(self) -> str:
        """Where the latest server listens; "" before there was one."""
        return self._url

    def stop(self) -> None:
        """End the server, after the requests that it serves.  Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def get_logs(self) -> str:
        """What the latest server has printed, the last MiB of it."""
        if self._log is None:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        start = max(0, size - _MAX_LOG_BYTES)
        return os.pread(self._log.fileno(), size - start, start).decode(errors="replace")

    def __enter__(self) -> ServerManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._close_log()

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None:
            self.stop()
        self._close_log()

    def _close_log(self) -> None:
        log = getattr(self, "_log", None)
        if log is not None:
            log.close()
        self._log = None


def _value(arguments: list[str], *names: str) -> str | None:
    """Of an option, as `--name value` or `--name=value`."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            if equals:
                return value
            return arguments[index + 1] if index + 1 < len(arguments) else None
    return None


def _check_model(model: str | None) -> None:
    from quintet.errors import QuintetError
    from quintet.hub.resolve import resolve

    if model is None:
        raise ConfigurationError("--model: expected a path, found none")
    try:
        resolve(model)
    except QuintetError as error:
        raise ModelError(str(error)) from error


def _check_port(host: str, port: int) -> None:
    """A taken port would make another's server look like ours."""
    if port == 0:
        raise ConfigurationError("--port: expected the port to listen on, found 0")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ServerError(f"cannot listen on {host}:{port}: {error.strerror}") from None
