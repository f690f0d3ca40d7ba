"""The local store: names, manifests, blobs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.manifests import make_manifest
from quintet.errors import CapacityError, ModelFormatError, ModelNotFoundError, RequestError
from quintet.hub import files
from quintet.hub.manifest import Manifest, ModelFile, canonical_name, decode, encode
from quintet.hub.store import Store

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FILE = ModelFile(name="model.gguf", digest=DIGEST, size_bytes=len(CONTENT))


def saved(store: Store, name: str) -> Manifest:
    """A model whose file is a blob of the store."""
    path = store.add_blob(DIGEST, [CONTENT])
    manifest = make_manifest(name, path, digest=DIGEST, size_bytes=len(CONTENT), files=(FILE,))
    store.save(manifest)
    return manifest


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("qwen3", "qwen3:latest"),
        ("qwen3:0.6b", "qwen3:0.6b"),
        ("user/model", "user/model:latest"),
        ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"),
        ("HuggingFace.co/user/repo", "hf.co/user/repo:latest"),
    ],
)
def test_names_in_full(text: str, name: str) -> None:
    """A tag left out is latest; a host is spelt one way; a name in full stays."""
    assert canonical_name(text) == canonical_name(canonical_name(text)) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "../x", "a/../b", "a:../b", "/etc/passwd", "a//b", "a/", "a:b:c", "a:"),
        *(":b", "-f", "a b", "a\0b", "a\n", "\u00e9", "a%b", "a\\b", "a/b/c/d/e", "x" * 97),
        "a/" * 3 + "x" * 201,
    ],
)
def test_what_is_no_name(text: str, store: Store) -> None:
    """Nothing that could leave the store's folder, or be taken for an option, is a name."""
    for use in (canonical_name, store.get, store.delete):
        with pytest.raises(RequestError) as caught:
            use(text)
        assert caught.value.parameter == "model"
    assert not store.root.exists()


@given(st.text(max_size=40))
def test_names_stay_inside_the_store(text: str) -> None:
    """Whatever is taken for a name becomes one file right below the manifests."""
    try:
        name = canonical_name(text)
    except RequestError:
        return
    store = Store(Path("/nowhere"))
    assert store._manifest_path(name).parent == Path("/nowhere/manifests")
    assert Path(os.path.normpath(store._manifest_path(name))) == store._manifest_path(name)


def test_a_manifest_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    """Every field survives the way to the disk and back."""
    manifest = make_manifest(
        "mario:1",
        tmp_path / "m.gguf",
        template="{{ messages }}",
        system="It's-a me, \u00e9\U0001f600",
        parameters={"temperature": 0.5, "num_ctx": 4096, "stop": ["a", "b"], "flag": True},
        messages=({"role": "user", "content": "hi"},),
        license="MIT",
        parent="demo:latest",
        revision="f" * 40,
    )
    store.save(manifest)
    assert store.get("mario:1") == manifest
    assert decode(encode(manifest), path=tmp_path) == manifest


def test_the_content_digest_is_of_the_content() -> None:
    """A name and a date do not change what a model is; a system prompt does."""
    one = make_manifest("a:1", Path("/m"))
    other = make_manifest("b:2", Path("/m"), modified_at=3.0, digest="1" * 64)
    assert one.content_digest() == other.content_digest()
    assert one.content_digest() != make_manifest("a:1", Path("/m"), system="x").content_digest()


def test_the_list_has_packaged_models(store: Store) -> None:
    """What comes with Quintet is there before anything was stored, with its real hash."""
    (demo,) = store.list()
    assert demo.name == "demo:latest"
    assert demo.digest == hashlib.sha256(demo.path.read_bytes()).hexdigest()
    assert demo.size_bytes == demo.path.stat().st_size
    assert store.get("demo") == demo
    assert not store.root.exists()


def test_packaged_models_stay(store: Store) -> None:
    """They are neither deleted nor replaced, but can be copied, and the copy deleted."""
    for change in (lambda: store.delete("demo"), lambda: store.copy("demo", "Demo:latest")):
        with pytest.raises(RequestError, match="comes with Quintet"):
            change()
    copy = store.copy("demo", "mine")
    assert copy.path == store.get("demo").path
    store.delete("mine")
    assert copy.path.exists()


def test_deleting_removes_blobs_nobody_else_has(store: Store) -> None:
    """A blob of two models goes with the second."""
    manifest = saved(store, "a")
    store.copy("a", "b")
    store.delete("a")
    assert manifest.path.read_bytes() == CONTENT
    store.delete("b")
    assert not manifest.path.exists()
    assert [each.name for each in store.list()] == ["demo:latest"]


def test_deleting_by_an_alias(store: Store) -> None:
    """What a name stands for is deleted; one that stands for nothing is told like any other."""
    saved(store, "a")
    aliases = {"mine": "a", "lost": "gone"}
    (store.root / "aliases.json").write_text(json.dumps(aliases))
    assert store.delete("mine").name == "a:latest"
    for name in ("mine", "lost", "a"):
        with pytest.raises(ModelNotFoundError):
            store.delete(name)


def test_replacing_removes_what_the_old_one_had(store: Store, tmp_path: Path) -> None:
    """A name given to another model lets go of the blobs of the first."""
    manifest = saved(store, "a")
    store.save(make_manifest("A", tmp_path / "local.gguf"))
    assert not manifest.path.exists()


def test_deleting_leaves_local_files(store: Store, tmp_path: Path) -> None:
    """A model used where it lies is forgotten, not destroyed."""
    file = tmp_path / "mine.gguf"
    file.write_bytes(CONTENT)
    store.save(make_manifest("mine", file))
    store.delete("mine")
    assert file.read_bytes() == CONTENT


def test_links_go_with_their_model(store: Store) -> None:
    """A model of several files is a folder of links, removed with its last name."""
    blob = store.add_blob(DIGEST, [CONTENT])
    folder = store.link_files("a" * 64, {"model-00001-of-00001.gguf": blob})
    path = folder / "model-00001-of-00001.gguf"
    assert path.read_bytes() == CONTENT
    store.save(make_manifest("split", path, files=(FILE,)))
    store.copy("split", "again")
    store.delete("split")
    assert path.read_bytes() == CONTENT
    store.delete("again")
    assert not folder.exists()
    assert not blob.exists()


def test_link_names_are_names(store: Store) -> None:
    """A repository's file names cannot lead out of the folder."""
    for name in ("../x", "/x", "a/b", "..", ""):
        with pytest.raises(RequestError):
            store.link_files("a" * 64, {name: Path("/x")})


def test_unknown_names_come_with_near_ones(store: Store, tmp_path: Path) -> None:
    """A slip of the finger is answered with what was meant."""
    store.save(make_manifest("qwen3:0.6b", tmp_path / "q"))
    with pytest.raises(ModelNotFoundError, match=r"'qwn3:0\.6b' not found; there is qwen3:0\.6b"):
        store.get("qwn3:0.6b")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"format": 2}',
        b'{"format": true}',
        b"\xff",
        b"[" * 100_000,
        b'{"a":1,"a":2}',
        b" " * (4 * 2**20 + 1),
    ],
    ids=["empty", "no-fields", "array", "format", "bool", "utf8", "deep", "twice", "long"],
)
def test_damaged_manifests_are_named(store: Store, tmp_path: Path, content: bytes) -> None:
    """Reading one says which file is wrong; the list goes on without it; deleting works."""
    store.save(make_manifest("bad", tmp_path / "x"))
    store.save(make_manifest("good", tmp_path / "x"))
    path = store.root / "manifests" / "bad:latest.json"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"bad:latest\.json"):
        store.get("bad")
    assert [each.name for each in store.list()] == ["demo:latest", "good:latest"]
    with pytest.raises(ModelNotFoundError, match="it is gone now"):
        store.delete("bad")
    assert not path.exists()


@pytest.mark.parametrize("key", ["name", "path", "digest", "size_bytes", "files", "messages"])
def test_manifest_fields_have_types(tmp_path: Path, key: str) -> None:
    """A field of another type is refused by name."""
    fields = json.loads(encode(make_manifest("a:b", tmp_path)))
    for value in (None, True, [1], {"x": 1}, 1.5):
        with pytest.raises(ModelFormatError):
            decode(json.dumps({**fields, key: value}).encode(), path=tmp_path)


def test_a_manifest_that_names_another_is_damaged(store: Store, tmp_path: Path) -> None:
    """A manifest copied by hand to another name is not believed."""
    store.save(make_manifest("a", tmp_path / "x"))
    path = store.root / "manifests"
    (path / "b:latest.json").write_bytes((path / "a:latest.json").read_bytes())
    with pytest.raises(ModelFormatError, match="names another"):
        store.get("b")


def test_blobs_of_a_damaged_manifest_stay(store: Store) -> None:
    """While one manifest cannot be read, nobody knows which blobs it has: none is removed."""
    manifest = saved(store, "a")
    store.copy("a", "b")
    (store.root / "manifests" / "b:latest.json").write_bytes(b"?")
    store.delete("a")
    assert manifest.path.exists()
    assert store.prune(older_than_s=-1) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", object(), {"x": b""}])
def test_values_that_json_has_no_form_for(store: Store, tmp_path: Path, value: object) -> None:
    """What could not be read back is not written."""
    with pytest.raises(RequestError):
        store.save(make_manifest("a", tmp_path, parameters={"x": value}))
    assert store.find("a") is None


def test_a_blob_has_its_content(store: Store) -> None:
    """It is there only under its own hash, and read-only."""
    assert not store.has_blob(DIGEST)
    path = store.add_blob(f"sha256:{DIGEST}", [CONTENT[:10], b"", CONTENT[10:]])
    assert path == store.blob_path(f"sha256-{DIGEST}")
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert store.has_blob(DIGEST)


def test_a_blob_from_a_request(store: Store) -> None:
    """The asynchronous way in is the same."""

    async def chunks() -> AsyncIterator[bytes]:
        yield CONTENT[:10]
        yield CONTENT[10:]

    assert asyncio.run(store.add_blob_async(DIGEST, chunks())).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("chunks", "max_bytes", "message"),
    [
        ([CONTENT[:-1]], None, "expected content with sha256"),
        ([], None, "expected content with sha256"),
        ([CONTENT], len(CONTENT) - 1, "expected at most"),
    ],
)
def test_wrong_content_leaves_nothing(
    store: Store, chunks: list[bytes], max_bytes: int | None, message: str
) -> None:
    """Content with another hash, or too long, is refused and its bytes are gone."""
    with pytest.raises(RequestError, match=message):
        store.add_blob(DIGEST, chunks, max_bytes=max_bytes)
    assert list((store.root / "blobs").iterdir()) == []


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "x" * 64, "A" * 64, "sha256:../../etc/passwd", DIGEST + "0", "md5:0"]
)
def test_what_is_no_digest(store: Store, digest: str) -> None:
    """A digest is 64 hexadecimal digits and cannot be a path."""
    for use in (store.has_blob, store.blob_path, lambda text: store.add_blob(text, [])):
        with pytest.raises(RequestError, match="sha256"):
            use(digest)


def test_a_model_needs_its_blobs(store: Store) -> None:
    """A manifest is not written for content that is not there."""
    with pytest.raises(ModelNotFoundError, match="blob sha256:"):
        store.save(make_manifest("a", store.blob_path(DIGEST), files=(FILE,)))


def test_pruning_removes_old_orphans(store: Store) -> None:
    """Uploads nobody used and temporary files go after their time, models' blobs never."""
    manifest = saved(store, "a")
    orphan = store.add_blob(hashlib.sha256(b"x").hexdigest(), [b"x"])
    scrap = store.root / "blobs" / "scrap.partial"
    scrap.write_bytes(b"12345")
    assert store.prune() == 0
    assert orphan.exists()
    long_ago = time.time() - 8 * 24 * 3600
    for path in (manifest.path, orphan, scrap):
        os.utime(path, (long_ago, long_ago))
    assert store.prune() == 6
    assert [path.name for path in (store.root / "blobs").iterdir()] == [manifest.path.name]


def test_a_full_disk_is_said_with_numbers(store: Store) -> None:
    """Running out of room names what was needed, and leaves nothing behind."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(CapacityError, match=r"no room for 7,000 bytes .* bytes are free"):
            store.add_blob(DIGEST, [CONTENT])
        with pytest.raises(CapacityError, match="no room"):
            store.save(make_manifest("a", Path("/x"), system="x" * 2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list((store.root / "blobs").iterdir()) == []
    assert list((store.root / "manifests").iterdir()) == []


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    """Who waits too long learns for whom."""
    path = tmp_path / "x.lock"
    program = (
        "import sys; from pathlib import Path; from quintet.hub.files import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); print(lock.try_acquire(), flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "True\n"
        lock = files.FileLock(path)
        with pytest.raises(CapacityError, match=f"process {process.pid} for"), lock.held(0.0):
            pass
        process.kill()  # the kernel lets go for it
        with lock.held(10.0):
            pass


SAVE = """
import sys
from pathlib import Path
from quintet.hub.store import Store
from quintet.hub.manifest import Manifest
store = Store(Path(sys.argv[1]))
for turn in range(12):
    store.save(Manifest(name="shared", path=Path("/x"), digest="0" * 64, size_bytes=1,
                        modified_at=1.0, source="local", system=sys.argv[2] * 5000))
    system = store.get("shared").system
    assert len(system) == 5000 and len(set(system)) == 1, system[:10]
    own = f"own-{sys.argv[2]}"
    store.copy("shared", own)
    store.delete(own)
"""


def test_processes_do_not_trample_each_other(tmp_path: Path) -> None:
    """Four processes that write, copy and delete: every read finds a whole manifest."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SAVE, str(tmp_path), letter], stderr=subprocess.PIPE, text=True
        )
        for letter in "abcd"
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert [each.name for each in Store(tmp_path).list()] == ["demo:latest", "shared:latest"]
    assert [path.name for path in (tmp_path / "manifests").iterdir()] == ["shared:latest.json"]
