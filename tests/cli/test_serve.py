"""`quintet serve` as a process: the official client, disconnects, signals, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from quintet.cli.serve import served_models
from quintet.errors import RequestError
from quintet.hub.resolve import packaged_models

from .conftest import COMMAND, Quintet

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


class Server:
    """A running `quintet serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def end(self) -> int:
        """Its exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(*arguments: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """Run the command on a free port until the block ends."""
    process = subprocess.Popen(
        [*COMMAND, "serve", *arguments, "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        line = process.stderr.readline()
        match = re.search(r" at (http://\S+)/v1$", line.rstrip())
        assert match, line
        yield Server(process, match[1])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(demo: str) -> Iterator[Server]:
    """A server with the demo model, for tests that leave it as it was."""
    with serving(demo) as running:
        yield running


def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def is_reachable(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health").status_code == 200
    except httpx.TransportError:  # refused, or dropped from the queue of connections
        return False


def test_chat(server: Server):
    """The official client gets an answer with usage; asked again, the prompt is cached."""
    with client(server) as api:
        replies = [
            api.chat.completions.create(
                model="demo", messages=MESSAGES, max_tokens=12, temperature=0
            )
            for _ in range(2)
        ]
    assert replies[0].choices[0].message.content
    assert replies[0].choices[0].message.content == replies[1].choices[0].message.content
    assert replies[0].usage.prompt_tokens > 5
    assert replies[1].usage.prompt_tokens_details.cached_tokens % 16 == 0
    assert 1 <= replies[0].usage.completion_tokens <= 12


def test_stream_is_the_whole_in_pieces(server: Server):
    """Streamed and whole answers are the same text."""
    request = {"model": "demo", "messages": MESSAGES, "max_tokens": 16, "temperature": 0}
    with client(server) as api:
        whole = api.chat.completions.create(**request)
        with api.chat.completions.create(**request, stream=True) as stream:
            chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_async_clients_side_by_side(server: Server):
    """Many streams at once; each answer is what it is alone."""

    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as api:

            async def ask(number: int) -> str:
                stream = await api.chat.completions.create(
                    model="demo",
                    messages=[{"role": "user", "content": f"What is {number} + 2?"}],
                    max_tokens=16,
                    temperature=0,
                    stream=True,
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream])

            together = await asyncio.gather(*(ask(number) for number in range(8)))
            assert together == [await ask(number) for number in range(8)]
            return together

    assert all(asyncio.run(main()))


def test_n_and_seed(server: Server):
    """With a seed the n answers differ from each other and repeat from call to call."""
    request = {"model": "demo", "messages": [{"role": "user", "content": "Tell me a story"}]}
    with client(server) as api:
        first, second = (
            api.chat.completions.create(**request, n=3, seed=11, temperature=1.5, max_tokens=20)
            for _ in range(2)
        )
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) > 1


def test_completions_with_logprobs(server: Server):
    """The older interface: token prompts, log probabilities that fit the text."""
    with client(server) as api:
        reply = api.completions.create(
            model="demo", prompt=[[5, 6, 7], [8, 9]], max_tokens=5, logprobs=3, temperature=0
        )
    assert len(reply.choices) == 2
    for choice in reply.choices:
        logprobs = choice.logprobs
        # The token that ended the answer is scored as well, as evaluation tools count on.
        assert "".join(logprobs.tokens).removesuffix("<|im_end|>") == choice.text
        assert logprobs.text_offset[0] == 0
        for token, value, top in zip(
            logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
        ):
            assert value <= 0
            assert top[token] == value == max(top.values())


def test_chat_logprobs_of_a_greedy_answer(server: Server):
    """At temperature 0 each token is the likeliest of its alternatives."""
    with client(server) as api:
        reply = api.chat.completions.create(
            model="demo", messages=MESSAGES, max_tokens=8, temperature=0,
            logprobs=True, top_logprobs=2,
        )  # fmt: skip
    content = reply.choices[0].logprobs.content
    assert b"".join(bytes(item.bytes) for item in content).decode() == (
        reply.choices[0].message.content
    )
    assert all(item.token == item.top_logprobs[0].token for item in content)


def test_stop_strings_end_the_text(server: Server):
    """A stop string ends the answer and is not part of it."""
    request = {"model": "demo", "messages": MESSAGES, "max_tokens": 16, "temperature": 0}
    with client(server) as api:
        whole = api.chat.completions.create(**request).choices[0].message.content
        stop = whole[3:6]
        cut = api.chat.completions.create(**request, stop=[stop]).choices[0]
    assert cut.message.content == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


def test_a_prompt_beyond_the_context_is_400(server: Server):
    """Nothing is cut: the client is told both numbers."""
    with client(server) as api, pytest.raises(openai.BadRequestError) as caught:
        api.completions.create(model="demo", prompt=[5] * 5000)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.body["n_prompt_tokens"] >= 5000
    assert caught.value.body["n_ctx"] == 2048


def test_token_ids_beyond_the_vocabulary_are_400(server: Server):
    """Ids that the model does not have are refused wherever they appear."""
    with client(server) as api:
        for bad in (
            {"prompt": [10**6]},
            {"prompt": "a", "logit_bias": {"1000000": 1}},
            {"prompt": "a", "extra_body": {"stop_token_ids": [10**6]}},
        ):
            with pytest.raises(openai.BadRequestError):
                api.completions.create(model="demo", **bad)


def test_a_client_that_leaves_frees_the_engine(server: Server):
    """Long answers whose readers have gone leave no work behind."""
    with client(server) as api:
        for _ in range(3):
            stream = api.completions.create(
                model="demo", prompt="a", max_tokens=2000, stream=True,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            next(iter(stream))
            stream.close()
        started = time.perf_counter()
        api.completions.create(model="demo", prompt="b", max_tokens=2)
    # Three abandoned answers of 2000 tokens would take many seconds.
    assert time.perf_counter() - started < 2
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def test_sigterm_lets_streams_end(demo: str):
    """On SIGTERM a running stream goes on to its end, new clients are refused, the status is 0."""
    with serving(demo) as server, client(server) as api:
        stream = iter(
            api.completions.create(
                model="demo",
                prompt="a",
                max_tokens=600,
                stream=True,
                extra_body={"ignore_eos": True},
            )
        )
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        while is_reachable(server):  # until the listening socket is closed
            time.sleep(0.01)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        assert server.process.wait(30) == 0


def test_a_second_sigterm_ends_streams_with_an_error(demo: str):
    """Who cannot wait signals twice: streams end with an error frame, the status is still 0."""
    num_streams = 4  # of answers that together take far longer than two signals
    started: queue.SimpleQueue[None] = queue.SimpleQueue()

    def read(api: openai.OpenAI) -> str:
        """All of a stream as it comes, which nothing holds up then, and how it ended."""
        stream = api.completions.create(
            model="demo",
            prompt="a",
            max_tokens=2000,
            n=16,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        try:
            for index, _ in enumerate(stream):
                if index == 0:
                    started.put(None)
        except openai.APIError as error:
            return error.message
        return "whole"

    with (
        serving(demo) as server,
        client(server) as api,
        ThreadPoolExecutor(num_streams) as threads,
    ):
        streams = [threads.submit(read, api) for _ in range(num_streams)]
        for _ in streams:
            started.get(timeout=60)
        server.process.send_signal(signal.SIGTERM)
        while is_reachable(server):  # two signals at once may come as one
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        for stream in streams:
            assert "closed" in stream.result(60)
        assert server.process.wait(60) == 0


def test_keys_of_users_do_not_change_the_store(tmp_path: Path):
    """--api-key asks models, the admin's key does everything; both may come from outside."""
    env = {"QUINTET_ADMIN_KEY": "admin", "QUINTET_HOME": str(tmp_path)}
    with serving("--api-key", "user", env=env) as server:
        body = {"source": "nothing", "destination": "x"}

        def status(key: str, path: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            return httpx.post(server.url + path, headers=headers, json=body).status_code

        assert [status(key, "/api/copy") for key in ("user", "admin", "x")] == [403, 404, 401]
        assert [status(key, "/v1/completions") for key in ("user", "admin")] == [400, 400]
        assert server.end() == 0


def test_the_key_comes_from_the_environment(demo: str):
    """QUINTET_API_KEY asks every client for the key."""
    with serving(demo, env={"QUINTET_API_KEY": "secret"}) as server:
        url = f"{server.url}/v1/models"
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers={"x-api-key": "secret"}).status_code == 200
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert server.end() == 0


def test_the_environment_sets_options(demo: str, tmp_path: Path):
    """Keys from a file, limits, a model's cache and the log's form, each by its variable; the log
    is JSON to the last line, without keys or prompts."""
    keys = tmp_path / "keys"
    keys.write_text("sesame anna inference\nopen-up probe metrics\n")
    keys.chmod(0o600)
    env = {
        "QUINTET_SERVE_API_KEY_FILE": str(keys),
        "QUINTET_SERVE_RATE_LIMIT_REQUESTS": "2",
        "QUINTET_SERVE_KV_DTYPE": "int8",
        "QUINTET_SERVE_NGRAM_SPECULATION": "1",
        "QUINTET_SERVE_LOG_FORMAT": "json",
        "QUINTET_SERVE_DRAIN_TIMEOUT": "1",
        "QUINTET_SERVE_SANDBOX_LOAD": "1",
    }
    process = subprocess.Popen(
        [*COMMAND, "serve", demo, "--port", "0"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    try:
        before = set()
        for text in process.stderr:
            line = json.loads(text)
            if line["message"] == "serving":
                break
            before.add(line["message"])
        assert "a model's files were read on trial" in before
        assert line["models"] == ["demo"]
        with httpx.Client(base_url=line["url"], headers={"x-api-key": "sesame"}) as api:
            body = {"model": "demo", "prompt": "riddle", "max_tokens": 2}
            replies = [api.post("/v1/completions", json=body) for _ in range(3)]
            assert [reply.status_code for reply in replies] == [200, 200, 429]
            assert api.get("/metrics").status_code == 403
            reply = api.get("/metrics", headers={"x-api-key": "open-up"})
            assert "quintet_requests_total" in reply.text
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    lines = [json.loads(text) for text in rest.splitlines()]
    assert [(x["route"], x["status"], x["client"]) for x in lines if x["message"] == "request"] == [
        ("/v1/completions", 200, "anna"),
        ("/v1/completions", 200, "anna"),
        ("/v1/completions", 429, "anna"),
        ("/metrics", 403, ""),
    ]
    assert not {"sesame", "open-up", "riddle"} & set(re.findall(r"[\w-]+", rest))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cors-origin", "*"),
        ("--cors-origin", "https://a.b/"),
        ("--tls-cert", "/nothing.pem"),
        ("--api-key-file", "/nothing"),
        ("--host", "0.0.0.0"),
        ("--draft-model", "demo", "another=demo"),
    ],
)
def test_bad_options_are_one_line(quintet: Quintet, demo: str, arguments: tuple[str, ...]):
    """Before anything is loaded."""
    result = quintet("serve", demo, *arguments, "--port", "0")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr


def test_several_models_by_name(demo: str):
    """Each model answers to the name it was given."""
    with serving("first=demo", "second=demo") as server, client(server) as api:
        assert [model.id for model in api.models.list()] == ["first", "second"]
        for name in ("first", "second"):
            assert api.completions.create(model=name, prompt="a", max_tokens=2).model == name
        assert server.end() == 0


def workers(server: Server) -> list[int]:
    """Process ids of a server's workers."""
    return [pid for pid in children(server) if b"worker.child" in command(pid)]


def command(pid: int) -> bytes:
    """What a process runs; nothing once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(server: Server) -> list[int]:
    """Process ids of a server's workers and helpers."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == server.process.pid and state != "Z":
                pids.append(int(path.parent.name))
    return sorted(pids)


def test_a_crash_is_one_models_and_passes(demo: str):
    """A killed worker ends its streams with an error; the other model and the server go on."""
    endless = {"prompt": "a", "max_tokens": 2000, "extra_body": {"ignore_eos": True}}
    with serving(f"first={demo}", f"second={demo}") as server, client(server) as api:
        first, second = workers(server)  # started one after the other
        stream = iter(api.completions.create(model="first", **endless, n=16, stream=True))
        next(stream)
        other = iter(api.completions.create(model="second", **endless, stream=True))
        next(other)
        os.kill(first, signal.SIGSEGV)
        with pytest.raises(openai.APIError, match="ended by SIGSEGV; it is being restarted"):
            list(stream)
        assert [chunk.choices[0].finish_reason for chunk in other][-1] == "length"
        patient = api.with_options(max_retries=5)  # by the 503's Retry-After
        assert patient.completions.create(model="first", prompt="a", max_tokens=2).model == "first"
        assert second in workers(server)
        assert first not in workers(server)
        assert server.end() == 0
    assert children(server) == []


@pytest.mark.parametrize(("arguments", "num_workers"), [((), 1), (("--in-process",), 0)])
def test_models_run_in_processes_of_their_own(demo: str, arguments: tuple, num_workers: int):
    """By default; --in-process keeps them in the server's."""
    with serving(demo, *arguments) as server, client(server) as api:
        assert len(workers(server)) == num_workers
        assert api.completions.create(model="demo", prompt="a", max_tokens=2).choices
        assert server.end() == 0


def test_workers_do_not_outlive_a_killed_server(demo: str):
    """SIGKILL to the server, in the middle of a stream, takes its workers along."""
    with serving(demo) as server, client(server) as api:
        stream = iter(
            api.completions.create(model="demo", prompt="a", max_tokens=2000, stream=True)
        )
        next(stream)
        pids = children(server)
        assert len(pids) == 2  # a worker, and what renders its chat template
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 2
        while any(command(pid) for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("cut", [100, 0.5])
def test_a_broken_file_is_one_line(quintet: Quintet, tmp_path: Path, cut: float):
    """A file cut in its header, or in its tensors, is named; nothing is served, status 1."""
    data = packaged_models()["demo"].read_bytes()
    path = tmp_path / "bad.gguf"
    path.write_bytes(data[: cut if cut > 1 else int(len(data) * cut)])
    result = quintet("serve", str(path), "--port", "0")
    assert result.returncode == 1
    assert result.stderr.startswith(f"quintet: {path}")
    assert result.stderr.count("\n") == 1, result.stderr


def test_a_taken_port_is_one_line(quintet: Quintet, demo: str):
    """The address in use is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = quintet("serve", demo, "--port", str(port))
    assert result.returncode == 1
    assert result.stderr == (
        f"quintet: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


def test_names_of_served_models():
    """A name is given, or it is the model's own, or its file's."""
    assert served_models(["demo", "a=demo", "/models/b.gguf", "c/d", "e=/x=y.gguf"]) == {
        "demo": "demo",
        "a": "demo",
        "b": "/models/b.gguf",
        "d": "c/d",
        "e": "/x=y.gguf",
    }
    for bad in (["a=", "b"], ["=x"], ["x.gguf", "x=y"]):
        with pytest.raises(RequestError):
            served_models(bad)
