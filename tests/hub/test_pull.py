"""Downloads from a hub that misbehaves: every end is a whole model or a clean refusal."""

from __future__ import annotations

import hashlib
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub.fake_hub import COMMIT, FakeHub, Fault
from hub.manifests import make_manifest
from quintet.errors import CapacityError, DownloadError, ModelNotFoundError, RequestError
from quintet.hub import files, partial, space
from quintet.hub.download import Retries
from quintet.hub.gguf_front import kv_cache_bytes
from quintet.hub.packaged import packaged_models
from quintet.hub.pull import PullProgress, pull
from quintet.hub.repository import read_repository
from quintet.hub.resolve import resolve
from quintet.hub.store import Store
from quintet.hub.transport import Transport

CONTENT = random.Random(1).randbytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DEMO = packaged_models()["demo"]
REPO = "user/model"
NAME = f"hf.co/{REPO}"
WAITS: list[float] = []
QUICK = Retries(max_failures=3, sleep=WAITS.append)


@pytest.fixture(autouse=True)
def one_model(hub: FakeHub) -> None:
    """The hub has one file."""
    WAITS.clear()
    hub.add(REPO, "model-Q4_K_M.gguf", CONTENT)


def run(store: Store, name: str = NAME, retries: Retries = QUICK) -> list[PullProgress]:
    """Pull to the end."""
    return list(pull(name, store=store, retries=retries))


def assert_is_whole(store: Store, name: str = NAME) -> None:
    """The model is there, and nothing else."""
    manifest = store.get(name)
    assert manifest.path.read_bytes() == CONTENT
    assert manifest.digest == DIGEST
    assert_tidy(store, {f"sha256-{DIGEST}"})


def assert_tidy(store: Store, blobs: set[str]) -> None:
    """No temporary file is left."""
    assert {path.name for path in (store.root / "blobs").iterdir()} == blobs


def leave_partial(store: Store, content: bytes, suffix: str = "") -> Path:
    """The rest of an earlier download."""
    store.make_blob_folder()
    path = store.blob_path(DIGEST)
    path = path.with_name(f"{path.name}{suffix}.partial")
    path.write_bytes(content)
    return path


def test_a_pull_tells_its_steps(store: Store, hub: FakeHub) -> None:
    """The statuses are Ollama's, in order, and the bytes add up."""
    steps = run(store)
    statuses = [step.status for step in steps]
    assert list(dict.fromkeys(statuses)) == [
        "pulling manifest",
        f"pulling {DIGEST[:12]}",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    transfers = [step for step in steps if step.total is not None]
    assert all(step.digest == f"sha256:{DIGEST}" for step in transfers)
    assert all(step.total == len(CONTENT) for step in transfers)
    completed = [step.completed for step in transfers]
    assert completed == sorted(completed)
    assert (completed[0], completed[-1]) == (0, len(CONTENT))
    assert steps[0].as_json() == {"status": "pulling manifest"}
    assert_is_whole(store)


def test_what_was_pulled_is_known_by_name(store: Store, hub: FakeHub) -> None:
    """The manifest says where it came from, and the name leads to the file."""
    run(store)
    manifest = store.get(NAME)
    assert (manifest.source, manifest.revision) == ("hf.co/user/model", COMMIT)
    assert manifest.size_bytes == len(CONTENT)
    assert resolve(NAME, store) == store.blob_path(DIGEST) == manifest.path


def test_a_second_pull_transfers_nothing(store: Store, hub: FakeHub) -> None:
    """What the store has is not downloaded again, not even under another name."""
    run(store)
    run(store)
    run(store, f"{NAME}:Q4_K_M")
    assert len(hub.content_requests()) == 1
    store.delete(NAME)
    assert_is_whole(store, f"{NAME}:Q4_K_M")


@pytest.mark.parametrize("cut", [0, 1, 100_000, 299_999])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_cuts_are_resumed(store: Store, hub: FakeHub, cut: int, is_chunked: bool) -> None:
    """A connection that breaks costs only what had not arrived."""
    hub.faults = [Fault(cut=cut, is_chunked=is_chunked)]
    run(store)
    assert_is_whole(store)
    first, second = hub.content_requests()
    assert "range" not in first.headers
    if cut > 1 and not is_chunked:
        assert second.headers["range"] == f"bytes={cut}-"
        assert second.headers["if-range"] == f'"{DIGEST}"'


def test_many_cuts_are_resumed_while_there_is_progress(store: Store, hub: FakeHub) -> None:
    """Twelve cuts in a row are fine as long as each brings something new."""
    hub.faults = [Fault(cut=20_000) for _ in range(12)]
    run(store)
    assert_is_whole(store)
    assert WAITS == [1.0] * 12


def test_giving_up_keeps_what_has_come(store: Store, hub: FakeHub) -> None:
    """After tries that bring nothing the pull fails; the next one goes on from there."""
    hub.faults = [Fault(cut=100_000), *(Fault(status=503) for _ in range(4))]
    with pytest.raises(DownloadError, match=r"gave up after 4 tries, with 100,000 of 300,000"):
        run(store)
    assert store.find(NAME) is None
    assert_tidy(store, {f"sha256-{DIGEST}.partial"})
    assert WAITS == [1.0, 2.0, 4.0]
    run(store)
    assert hub.content_requests()[-1].headers["range"] == "bytes=100000-"
    assert_is_whole(store)


def test_a_host_that_always_starts_again_ends_the_pull(store: Store, hub: FakeHub) -> None:
    """Bytes that came before are no progress, so this cannot go on for ever."""
    hub.faults = [Fault(cut=100_000, ignores_range=True) for _ in range(50)]
    with pytest.raises(DownloadError, match="gave up"):
        run(store)
    assert len(hub.content_requests()) == 4


@pytest.mark.parametrize(
    "fault",
    [
        Fault(ignores_range=True),
        Fault(headers={"Content-Range": "bytes 0-299999/300000"}),
        Fault(headers={"Content-Range": "bytes 100000-299999/300001"}),
        Fault(headers={"Content-Range": "bytes 100000-200000/300000"}),
        Fault(headers={"Content-Range": "pages 1-2/3"}),
        Fault(headers={"Content-Range": "bytes " + "9" * 50 + "-1/1"}),
        Fault(headers={"Content-Range": None}),
        Fault(status=416),
    ],
    ids=["200", "from-0", "total", "end", "unit", "huge", "none", "416"],
)
def test_answers_to_a_range(store: Store, hub: FakeHub, fault: Fault) -> None:
    """A host that answers with other bytes than those asked for is asked for all."""
    leave_partial(store, CONTENT[:100_000])
    hub.faults = [fault]
    run(store)
    assert_is_whole(store)


def test_a_file_that_changes_meanwhile(store: Store, hub: FakeHub) -> None:
    """Another entity tag means other content: If-Range makes the host send all of it."""
    hub.faults = [Fault(cut=100_000), Fault(headers={"ETag": '"new"'})]
    run(store)
    assert_is_whole(store)
    assert hub.content_requests()[1].headers["if-range"] == f'"{DIGEST}"'


def test_weak_tags_prove_nothing(store: Store, hub: FakeHub) -> None:
    """RFC 9110, section 13.1.5: If-Range takes no weak entity tag."""
    hub.faults = [Fault(cut=100_000, headers={"ETag": 'W/"x"'})]
    run(store)
    assert "if-range" not in hub.content_requests()[1].headers
    assert_is_whole(store)


@pytest.mark.parametrize("leftover", [b"x" * 100_000, CONTENT[:-1] + b"x", CONTENT + b"x"])
def test_a_wrong_beginning_is_found_out(store: Store, hub: FakeHub, leftover: bytes) -> None:
    """What an earlier download left is checked with the rest; if wrong, all comes again."""
    leave_partial(store, leftover)
    run(store)
    assert_is_whole(store)


def test_wrong_content_once_is_mended(store: Store, hub: FakeHub) -> None:
    """One bad transfer is thrown away and repeated from the beginning."""
    hub.faults = [Fault(body=b"x" * len(CONTENT))]
    run(store)
    assert_is_whole(store)
    assert len(hub.content_requests()) == 2


def test_wrong_content_twice_is_refused(store: Store, hub: FakeHub) -> None:
    """The hash decides; nothing of the wrong content stays."""
    wrong = b"x" * len(CONTENT)
    hub.faults = [Fault(body=wrong), Fault(body=wrong)]
    with pytest.raises(DownloadError, match=f"expected sha256 {DIGEST}, found [0-9a-f]{{64}}"):
        run(store)
    assert_tidy(store, set())
    assert store.find(NAME) is None


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(body=CONTENT[:-1]), "expected 300,000 bytes, found 299999"),
        (Fault(body=CONTENT + b"x"), "expected 300,000 bytes, found 300001"),
        (Fault(extra=b"x" * 70_000, is_chunked=True), "expected 300,000 bytes, found more"),
        (Fault(headers={"Content-Encoding": "gzip"}), "expected no compression, found 'gzip'"),
        (Fault(status=403), "403 .*HF_TOKEN"),
        (Fault(status=404), "answered 404"),
        (Fault(status=204), "answered 204"),
    ],
    ids=["short", "long", "extra", "gzip", "403", "404", "204"],
)
def test_what_a_sound_host_would_not_do(
    store: Store, hub: FakeHub, fault: Fault, message: str
) -> None:
    """It is refused at once: trying again would not help."""
    hub.faults = [fault]
    with pytest.raises(DownloadError, match=message):
        run(store)
    assert len(hub.content_requests()) == 1
    assert store.find(NAME) is None
    run(store)
    assert_is_whole(store)


def test_a_host_asks_to_wait(store: Store, hub: FakeHub) -> None:
    """Retry-After is honoured, within reason; nonsense in it is not."""
    hub.faults = [
        Fault(status=429, headers={"Retry-After": "7"}),
        Fault(status=503, headers={"Retry-After": "1" * 30}),
        Fault(status=503, headers={"Retry-After": "soon"}),
    ]
    run(store)
    assert WAITS == [7.0, 120.0, 4.0]


def test_a_stall_is_an_interruption(
    store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that says nothing for too long is asked again."""
    monkeypatch.setattr(Transport.__init__, "__kwdefaults__", {"read_timeout_s": 1.0})
    hub.faults = [Fault(stall_s=5.0)]
    run(store)
    assert_is_whole(store)
    assert WAITS  # once, or more often on a machine that stalls by itself


def test_the_list_is_asked_for_again(store: Store, hub: FakeHub) -> None:
    """The first question is retried like the transfers."""
    hub.api_faults = [503, 500, 429]
    run(store)
    hub.api_faults = [503] * 4
    with pytest.raises(DownloadError, match=r"503 .*gave up after 4 tries"):
        run(store)


def test_an_unreachable_hub(store: Store, hub: FakeHub) -> None:
    """Nobody listens: said with the host, after the retries."""
    hub.close()
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1: .*gave up after 4 tries"):
        run(store)


def test_closing_the_generator_stops_the_pull(store: Store, hub: FakeHub) -> None:
    """A client that leaves ends the transfer; what has come is kept, and nothing is locked."""
    hub.pace_s = 0.02
    pulling = pull(NAME, store=store, retries=QUICK)
    for step in pulling:
        if step.completed:
            break
    pulling.close()
    assert store.find(NAME) is None
    assert_tidy(store, {f"sha256-{DIGEST}.partial"})
    hub.pace_s = 0.0
    run(store)
    assert_is_whole(store)
    assert hub.content_requests()[-1].headers["range"].startswith("bytes=")


# Redirects and the token


def test_the_token_goes_to_the_endpoint_alone(
    store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another port is another host, and gets no token."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    run(store)
    for request in hub.requests:
        expected = "Bearer secret" if request.port == hub.port else None
        assert request.headers.get("authorization") == expected
        assert request.headers["accept-encoding"] == "identity"


def test_redirect_loops_end(store: Store, hub: FakeHub) -> None:
    """Five redirects are followed, a sixth is not."""
    here = f"http://127.0.0.1:{hub.content_port}/user/model/model-Q4_K_M.gguf"
    hub.faults = [Fault(redirect=here) for _ in range(4)]
    run(store)
    assert_is_whole(store)
    hub.requests.clear()
    store.delete(NAME)
    hub.faults = [Fault(redirect=here) for _ in range(50)]
    with pytest.raises(DownloadError, match="more than 5 redirects"):
        run(store)
    assert len(hub.content_requests()) == 5


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/passwd", "http or https"),
        ("ftp://127.0.0.1/x", "http or https"),
        ("http://user:pass@127.0.0.1:1/x", "names credentials"),
        ("http://[x", "expected an address"),
        ("http://127.0.0.1:99999/x", "expected an address"),
    ],
)
def test_redirects_to_nowhere_good(store: Store, hub: FakeHub, target: str, message: str) -> None:
    """Only web addresses without credentials are followed."""
    hub.faults = [Fault(redirect=target)]
    with pytest.raises(DownloadError, match=message):
        run(store)


@pytest.mark.parametrize(
    ("endpoint", "target", "message"),
    [
        ("https://hub.example", "http://cdn.example/x", "from https to http"),
        ("https://hub.example", "https://127.0.0.1/x", "this machine or network"),
        ("https://hub.example", "https://10.1.2.3/x", "this machine or network"),
        ("https://hub.example", "https://[::1]/x", "this machine or network"),
        ("https://hub.example", "https://169.254.169.254/latest", "this machine or network"),
        ("https://hub.example", "https://localhost/x", "this machine or network"),
        ("https://hub.example", "https://8.8.8.8/x", None),
        ("http://127.0.0.1:1", "http://127.0.0.1:2/x", None),
        ("http://127.0.0.1:1", "https://8.8.8.8/x", None),
    ],
)
def test_where_redirects_may_lead(endpoint: str, target: str, message: str | None) -> None:
    """From the public to the public; never down from https."""
    with Transport(endpoint, "") as transport:
        if message is None:
            transport._check_redirect(f"{endpoint}/x", target)
        else:
            with pytest.raises(DownloadError, match=message):
                transport._check_redirect(f"{endpoint}/x", target)


def test_no_token_over_plain_http() -> None:
    """A token for a public host needs https."""
    with Transport("http://8.8.8.8", "secret") as transport:
        with pytest.raises(DownloadError, match="over https only"):
            transport._auth("http://8.8.8.8/api")
        assert transport._auth("http://8.8.4.4/api") == {}


@pytest.mark.parametrize("endpoint", ["ftp://x", "hub.example", "http://", "http://x:y"])
def test_endpoints_are_addresses(endpoint: str) -> None:
    """A typing error in HF_ENDPOINT is said as one."""
    with pytest.raises(DownloadError, match="expected an address"):
        Transport(endpoint, "")


# What the hub lists


@pytest.mark.parametrize(
    "change",
    [
        lambda listing: [],
        lambda listing: {**listing, "sha": "../../etc"},
        lambda listing: {**listing, "sha": None},
        lambda listing: {**listing, "siblings": {}},
        lambda listing: {**listing, "siblings": [1]},
        lambda listing: {**listing, "siblings": [{"rfilename": 5}]},
        lambda listing: {**listing, "siblings": [{"rfilename": "a.gguf", "size": "5"}]},
        lambda listing: {**listing, "siblings": [{"rfilename": "a.gguf", "size": -1}]},
        lambda listing: {**listing, "siblings": [{"rfilename": "a.gguf", "size": 2**60}]},
        lambda listing: {
            **listing,
            "siblings": [{"rfilename": "a.gguf", "lfs": {"size": 5, "sha256": "../x"}}],
        },
        lambda listing: {"x": "y" * (5 * 2**20)},
    ],
)
def test_lists_that_break_the_api(
    store: Store, hub: FakeHub, change: Callable[[dict[str, object]], object]
) -> None:
    """Nothing of the list is used before it was checked."""
    hub.listing = change
    with pytest.raises(DownloadError):
        run(store)
    assert not hub.content_requests()


@pytest.mark.parametrize(
    "path", ["../model-Q4_K_M.gguf", "/etc/x-Q4_K_M.gguf", "a/../b-Q4_K_M.gguf", ".hidden.gguf"]
)
def test_file_names_that_lead_elsewhere_are_ignored(store: Store, hub: FakeHub, path: str) -> None:
    """A hostile repository names no path of ours; the sound file beside it is taken."""
    hub.add(REPO, path, b"evil")
    run(store)
    assert_is_whole(store)


def test_an_unknown_repository(store: Store, hub: FakeHub) -> None:
    """Said with the place that was asked."""
    with pytest.raises(ModelNotFoundError, match=r"no repository 'user/nothing' at http://127"):
        run(store, "hf.co/user/nothing")


def test_names_that_stand_for_nothing(store: Store, hub: FakeHub) -> None:
    """The hub is not asked; the answer helps."""
    with pytest.raises(ModelNotFoundError, match=r"did you mean hf\.co/user/model"):
        run(store, "user/model")
    with pytest.raises(ModelNotFoundError, match=r"qwen3:0\.6b"):
        run(store, "qwen3:0.7b")
    with pytest.raises(RequestError):
        run(store, "../model")
    assert not hub.requests


def test_a_short_name_and_an_address(store: Store, hub: FakeHub) -> None:
    """An alias keeps its name; an address from the browser is the repository's name."""
    hub.add("Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf", CONTENT)
    run(store, "qwen3:0.6b")
    assert_is_whole(store, "qwen3:0.6b")
    assert store.get("qwen3:0.6b").source == "hf.co/Qwen/Qwen3-0.6B-GGUF"
    run(store, "https://huggingface.co/user/model/tree/main")
    assert_is_whole(store, NAME)


# Models of several files


def test_split_files_keep_their_names(store: Store, hub: FakeHub) -> None:
    """The parts of a split GGUF find each other by name, in a folder of links."""
    for number, content in ((1, b"one"), (2, b"two")):
        hub.add("user/split", f"Q8_0/m-Q8_0-0000{number}-of-00002.gguf", content)
    run(store, "hf.co/user/split")
    manifest = store.get("hf.co/user/split")
    assert manifest.path.name == "m-Q8_0-00001-of-00002.gguf"
    assert manifest.path.read_bytes() == b"one"
    assert (manifest.path.parent / "m-Q8_0-00002-of-00002.gguf").read_bytes() == b"two"
    assert manifest.size_bytes == 6
    store.delete("hf.co/user/split")
    assert not manifest.path.parent.exists()
    assert_tidy(store, set())


def test_a_safetensors_repository_becomes_a_folder(store: Store, hub: FakeHub) -> None:
    """Weights by sha256, the small files beside them by git's id."""
    repo = "user/plain"
    hub.add(repo, "config.json", b"{}", is_plain=True)
    hub.add(repo, "tokenizer.json", b"[]", is_plain=True)
    hub.add(repo, "README.md", b"#", is_plain=True)
    hub.add(repo, "model.safetensors", CONTENT)
    hub.add(repo, "consolidated.safetensors", b"twice")
    run(store, f"hf.co/{repo}")
    folder = resolve(f"hf.co/{repo}", store)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.json": b"{}",
        "tokenizer.json": b"[]",
        "model.safetensors": CONTENT,
    }
    with pytest.raises(ModelNotFoundError, match="leave the tag out"):
        run(store, f"hf.co/{repo}:Q8_0")


def test_small_files_are_checked_too(store: Store, hub: FakeHub) -> None:
    """A configuration that is not its commit's is refused."""
    hub.add("user/plain", "config.json", b"{}", is_plain=True)
    hub.add("user/plain", "model.safetensors", CONTENT)
    hub.faults = [Fault(body=b"[]")]
    with pytest.raises(DownloadError, match=r"config\.json is not what its commit has"):
        run(store, "hf.co/user/plain")


# The Hugging Face Hub's own library: what it reads from our hub, we read too


def test_lists_are_read_as_huggingface_hub_reads_them(hub: FakeHub) -> None:
    """Commit, names, sizes and hashes of HfApi.model_info and ours are the same."""
    import huggingface_hub

    hub.add(REPO, "config.json", b"{}", is_plain=True)
    api = huggingface_hub.HfApi(endpoint=hub.endpoint, token=False)
    info = api.model_info(REPO, revision="main", files_metadata=True)
    with Transport() as transport:
        ours = read_repository(transport, REPO)
    assert info.sha == ours.commit
    assert [
        (each.rfilename, each.size, each.lfs and each.lfs.sha256, each.blob_id)
        for each in info.siblings
    ] == [(each.path, each.size_bytes, each.sha256, each.git_oid) for each in ours.files]
    assert ours.url(hub.endpoint, ours.files[0]) == huggingface_hub.hf_hub_url(
        REPO, "model-Q4_K_M.gguf", revision=COMMIT, endpoint=hub.endpoint
    )


def test_the_cache_is_used_in_place(store: Store, hub: FakeHub, tmp_path: Path) -> None:
    """A file that huggingface_hub has downloaded is checked, and not downloaded again."""
    import huggingface_hub

    found = huggingface_hub.hf_hub_download(
        REPO,
        "model-Q4_K_M.gguf",
        revision=COMMIT,
        endpoint=hub.endpoint,
        cache_dir=tmp_path / "hf-cache",
        token=False,
    )
    before = len(hub.content_requests())
    run(store)
    assert str(store.get(NAME).path) == found
    assert len(hub.content_requests()) == before
    assert not store.has_blob(DIGEST)
    store.delete(NAME)
    assert Path(found).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"x" * len(CONTENT), CONTENT[:-1]])
def test_a_damaged_cache_is_not_believed(
    store: Store, hub: FakeHub, tmp_path: Path, content: bytes
) -> None:
    """Name and size are not enough."""
    blob = tmp_path / "hf-cache" / "models--user--model" / "blobs" / DIGEST
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    run(store)
    assert store.get(NAME).path == store.blob_path(DIGEST)
    assert_is_whole(store)


# Room


def test_too_large_for_the_memory(
    store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused with the numbers before a byte of it has come, unless forced."""
    monkeypatch.setattr(space, "total_memory_bytes", lambda: space.ENGINE_BYTES)
    with pytest.raises(CapacityError, match=r"needs about 0\.27 GB of memory .* has 0\.27 GB"):
        run(store)
    assert not hub.content_requests()
    assert [*pull(NAME, store=store, is_forced=True)][-1].status == "success"


def test_the_cache_counts_where_memory_is_short(
    store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights alone would fit; the header says what the KV cache takes beside them."""
    hub.add("user/demo", "demo-F32.gguf", DEMO.read_bytes())
    # Layers, heads of keys and values, their dimensions, bytes of float16, trained context.
    kv_bytes = 5 * 2 * (64 + 64) * 2 * 2048
    assert kv_cache_bytes(DEMO.read_bytes()) == kv_bytes
    monkeypatch.setattr(space, "ENGINE_BYTES", 0)
    needed = DEMO.stat().st_size + kv_bytes
    monkeypatch.setattr(space, "total_memory_bytes", lambda: needed - 1)
    with pytest.raises(CapacityError, match=r"0\.00 GB of weights, 0\.01 GB of KV cache"):
        run(store, "hf.co/user/demo")
    (front,) = hub.content_requests()
    assert front.headers["range"] == "bytes=0-65535"
    assert not store.root.exists()
    monkeypatch.setattr(space, "total_memory_bytes", lambda: needed)
    run(store, "hf.co/user/demo")


@pytest.mark.parametrize("end", [0, 3, 4, 8, 16, 24, 30, 100, 200, 300])
def test_a_front_that_says_nothing(end: int) -> None:
    """Cut anywhere before the sizes are known, or no GGUF at all: no estimate, no error."""
    assert kv_cache_bytes(DEMO.read_bytes()[:end]) == 0
    assert kv_cache_bytes(b"GGUF" + b"\xff" * 100) == 0
    assert kv_cache_bytes(random.Random(end).randbytes(1000)) == 0


def test_too_large_for_the_disk(
    store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there already is not counted."""
    monkeypatch.setattr(files, "free_bytes", lambda folder: 100_000)
    with pytest.raises(CapacityError, match="more on the disk of"):
        run(store)
    assert not hub.content_requests()
    leave_partial(store, CONTENT[:250_000])
    run(store)
    assert_is_whole(store)


def test_the_disk_fills_up_on_the_way(store: Store, hub: FakeHub) -> None:
    """The pull stops at once and gives the room back; later it succeeds."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CapacityError, match=r"no room for 300,000 bytes .* bytes are free"):
            run(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert_tidy(store, set())
    run(store)
    assert_is_whole(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB; skipped where it cannot be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk(small_disk: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing: refused before, and when that check is fooled, on the way."""
    store = Store(small_disk / "home")
    with pytest.raises(CapacityError, match="more on the disk of"):
        run(store)
    monkeypatch.setattr(space, "check_disk", lambda *_: None)
    with pytest.raises(CapacityError, match="No space left on device"):
        run(store)
    assert_tidy(store, set())


# Several processes


PULL = """
import sys
from pathlib import Path
from quintet.hub.gguf_front import kv_cache_bytes
from quintet.hub.packaged import packaged_models
from quintet.hub.pull import pull
from quintet.hub.store import Store
steps = list(pull("hf.co/user/model", store=Store(Path(sys.argv[1]))))
print(steps[-1].status, len({step.completed for step in steps}))
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_four_processes_share_one_download(store: Store, hub: FakeHub) -> None:
    """The content comes once; who waits sees the progress, and all have the model."""
    hub.pace_s = 0.06  # about a second for all of it
    processes = [start(PULL, str(store.root)) for _ in range(4)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert re.fullmatch(r"success \d+\n", output), output
    assert len(hub.content_requests()) == 1
    assert_is_whole(store)


def test_four_pulls_without_locks(
    store: Store, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system whose locks do nothing, each writes its own file: wasteful and right."""
    monkeypatch.setattr(files.fcntl, "flock", lambda descriptor, operation: None)
    hub.pace_s = 0.01
    failures: list[BaseException] = []

    def pull_once() -> None:
        try:
            run(store)
        except Exception as error:  # noqa: BLE001 - for the thread that asserts
            failures.append(error)

    threads = [threading.Thread(target=pull_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert_is_whole(store)


def test_whose_leftovers_are_taken(store: Store, hub: FakeHub) -> None:
    """Those of the dead and of nobody, the longest first; never those of the living."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    host = partial._host()
    living = leave_partial(store, CONTENT[:200_000], f".{host}.{files.os.getpid()}.ab")
    elsewhere = leave_partial(store, CONTENT[:180_000], ".other-host.1.ab")
    leave_partial(store, CONTENT[:150_000], f".{host}.{process.pid}.ab")
    leave_partial(store, CONTENT[:100_000])
    run(store)
    assert hub.content_requests()[0].headers["range"] == "bytes=150000-"
    assert living.exists()
    assert elsewhere.exists()
    long_ago = time.time() - 2 * 3600
    files.os.utime(elsewhere, (long_ago, long_ago))
    store.delete(NAME)
    run(store)
    assert hub.content_requests()[1].headers["range"] == "bytes=180000-"


def test_a_hub_that_is_not_there_is_told_at_once(store: Store) -> None:
    """To who waits for an answer; who has time asks again, and it may come back."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        waits: list[float] = []
        retries = Retries(max_failures=2, sleep=waits.append)
        for waits_for_hub, num_waits in ((False, 0), (True, 2)):
            with pytest.raises(DownloadError, match="cannot be reached"):
                list(
                    pull(
                        NAME,
                        store=store,
                        endpoint=endpoint,
                        retries=retries,
                        waits_for_hub=waits_for_hub,
                    )
                )
            assert len(waits) == num_waits


KILLED = """
import os, signal, sys
from pathlib import Path
from quintet.hub.download import Retries
from quintet.hub.gguf_front import kv_cache_bytes
from quintet.hub.packaged import packaged_models
from quintet.hub.pull import pull
from quintet.hub.store import Store
import httpx

real_pwrite = os.pwrite
CALLS = ("pwrite", "rename", "chmod", "fsync", "symlink", "ftruncate")

def pull_and_die(root, point):
    # Pull, and be killed at the end of the point-th call that changes the disk.
    count = 0
    def watched(call):
        def after(*arguments, **options):
            nonlocal count
            result = call(*arguments, **options)
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return after
    for name in CALLS:
        setattr(os, name, watched(getattr(os, name)))
    died_at_30_000 = os.pwrite
    def pwrite(descriptor, data, position):
        # How the network cuts the content must not change the number of points.
        end = position + min(len(data), 30_000 - position % 30_000)
        call = real_pwrite if end % 30_000 else died_at_30_000
        return call(descriptor, data[: end - position], position)
    os.pwrite = pwrite
    for _ in pull("hf.co/user/model", store=Store(root)):
        pass
    return count

def in_child(root, point):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(pull_and_die(root, point)).encode())
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    with open(read) as pipe:
        return status, pipe.read()

status, text = in_child(Path(sys.argv[1]) / "whole", 0)
total = int(text)
assert status == 0 and total >= 12, (status, total)
points = sorted({1 + round(i * (total - 1) / 11) for i in range(12)})
for point in points:
    root = Path(sys.argv[1]) / str(point)
    status, _ = in_child(root, point)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (point, status)
print(*points)
"""


def test_killed_at_twelve_points(store: Store, hub: FakeHub, tmp_path: Path) -> None:
    """After kill -9 at any of them: no half of anything, and the next pull succeeds."""
    process = start(KILLED, str(tmp_path))
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    points = output.split()
    assert len(points) == 12
    num_resumed = 0
    for point in points:
        store = Store(tmp_path / point)
        manifest = store.find(NAME)
        if store.has_blob(DIGEST):
            assert store.blob_path(DIGEST).read_bytes() == CONTENT
        if manifest is not None:
            assert manifest.path.read_bytes() == CONTENT
        hub.requests.clear()
        run(store)
        requests = hub.content_requests()
        num_resumed += bool(requests) and "range" in requests[0].headers
        assert_is_whole(store)
        scraps = [path.name for path in (store.root / "manifests").iterdir()]
        assert [name for name in scraps if name.endswith(".json")] == [
            "hf.co%user%model:latest.json"
        ]
    assert num_resumed >= 3


def test_a_blob_of_another_size_is_fetched_again(store: Store, hub: FakeHub) -> None:
    """A blob cut short by a broken disk is not taken for whole."""
    run(store)
    blob = store.blob_path(DIGEST)
    blob.chmod(0o600)
    blob.write_bytes(CONTENT[:1000])
    run(store)
    assert_is_whole(store)


def test_pulling_over_another_model(store: Store, hub: FakeHub, tmp_path: Path) -> None:
    """A name that was given to something else is the pulled model's afterwards."""
    store.save(make_manifest("qwen3:0.6b", tmp_path / "x"))
    hub.add("Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf", CONTENT)
    run(store, "qwen3:0.6b")
    assert_is_whole(store, "qwen3:0.6b")


def test_a_file_that_somebody_removes_meanwhile(store: Store, hub: FakeHub) -> None:
    """Found before the manifest is written, and downloaded again."""
    pulling = pull(NAME, store=store, retries=QUICK)
    for step in pulling:
        if step.status == "writing manifest":
            store.blob_path(DIGEST).unlink()
            break
    assert [*pulling][-1].status == "success"
    assert_is_whole(store)
    assert len(hub.content_requests()) == 2
