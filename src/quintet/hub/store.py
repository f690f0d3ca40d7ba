"""The local store of models: manifests by name, blobs by content.

    ROOT/manifests/NAME.json   what there is of a model; "/" is written "%"
    ROOT/blobs/sha256-HEX      its files, read-only, each once however many models have it
    ROOT/links/HEX/FILE        the files of a model that has several, under their own names
    ROOT/locks/                kernel locks; never removed

Nothing is made before the first write.  A blob is there only when its content has been checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import difflib
import logging
import os
import shutil
import time
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from quintet.errors import ModelFormatError, ModelNotFoundError, QuintetError, RequestError
from quintet.hub import files
from quintet.hub.aliases import alias_of
from quintet.hub.blobs import BlobWriter
from quintet.hub.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    canonical_name,
    checked_digest,
    decode,
    encode,
)
from quintet.hub.names import hub_source
from quintet.hub.packaged import packaged_manifests

ORPHAN_AGE_S = 7 * 24 * 3600.0  # an interrupted download may be resumed until then
_log = logging.getLogger(__name__)


class Store:
    """
    The models of this machine.

    Several processes may use one store at the same time.

    Args:
        root: its folder; None: `files.default_root()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (files.default_root() if root is None else root).absolute()

    def list(self) -> list[Manifest]:
        """All models, packaged ones included, by name; one that cannot be read is logged."""
        found = packaged_manifests()
        for path in sorted(self._manifests.glob("*.json")):
            try:
                manifest = self._read(path)
            except (QuintetError, OSError) as error:
                _log.warning("a manifest was left out: %s", error)
                continue
            found.setdefault(manifest.name, manifest)
        return sorted(found.values(), key=lambda manifest: manifest.name.lower())

    def get(self, name: str) -> Manifest:
        """
        The model of that name.

        Raises:
            RequestError: it is no name.
            ModelNotFoundError: there is none; suggests names that are close.
            ModelFormatError: its manifest is damaged.
        """
        manifest = self.find(name)
        if manifest is not None:
            return manifest
        known = [each.name for each in self.list()]
        near = difflib.get_close_matches(canonical_name(name), known, n=3) or known[:5]
        raise ModelNotFoundError(
            f"model {name!r} not found; there is {', '.join(near) or 'none'}{_advice(name)}"
        )

    def find(self, name: str) -> Manifest | None:
        """The same as `get`, with None instead of ModelNotFoundError."""
        name = canonical_name(alias_of(name, self.root))
        for packaged in packaged_manifests().values():
            if packaged.name.lower() == name.lower():
                return packaged
        try:
            return self._read(self._manifest_path(name))
        except FileNotFoundError:
            return None

    def save(self, manifest: Manifest) -> None:
        """
        Add a model, or replace the one of that name.

        Raises:
            RequestError: the name is none, or a packaged model's, or a value is no JSON.
            ModelNotFoundError: a blob it needs is not there.
            CapacityError: the disk is full, or the store locked for long.
        """
        name = canonical_name(manifest.name)
        self._refuse_packaged(name)
        manifest = dataclasses.replace(manifest, name=name)
        encoded = encode(manifest)
        decode(encoded, path=self._manifest_path(name))  # what is written can be read
        if len(encoded) > MAX_MANIFEST_BYTES:
            raise RequestError(
                f"expected a manifest of at most {MAX_MANIFEST_BYTES:,} bytes, "
                f"found {len(encoded):,}",
                parameter="model",
            )
        with self._locked():
            # Under the lock that `delete` takes: a blob seen here stays.
            for file in manifest.files:
                if not self.has_blob(file.digest):
                    raise ModelNotFoundError(f"blob sha256:{file.digest} not found ({file.name})")
            replaced = self._read_or_none(name)
            files.write_whole(self._manifest_path(name), encoded)
            if replaced is not None:
                self._collect(replaced)

    def copy(self, source: str, destination: str) -> Manifest:
        """
        Give a model a second name; returns what is stored under it.

        Raises: as `get` for the source and `save` for the destination.
        """
        name = canonical_name(destination)
        manifest = dataclasses.replace(self.get(source), name=name, modified_at=time.time())
        if manifest.source == "package":
            manifest = dataclasses.replace(manifest, source="local")
        self.save(manifest)
        return manifest

    def delete(self, name: str) -> Manifest:
        """
        Forget a model, and remove the files that no other has; returns what it was.

        A model that was used where it lies keeps its file.  An alias stands for its model.

        Raises: as `get`; RequestError: it is packaged.
        """
        name = canonical_name(alias_of(name, self.root))
        self._refuse_packaged(name)
        with self._locked():
            try:
                manifest = self.get(name)
            except ModelFormatError as error:  # damaged, yet to be got rid of
                _log.warning("deleting a damaged manifest: %s", error)
                manifest = None
            self._manifest_path(name).unlink()
            files.sync_folder(self._manifests)
            if manifest is not None:
                self._collect(manifest)
        if manifest is None:
            raise ModelNotFoundError(f"the manifest of {name!r} was damaged; it is gone now")
        return manifest

    def has_blob(self, digest: str) -> bool:
        """Whether the store has the content."""
        return self.blob_path(digest).is_file()

    def blob_path(self, digest: str) -> Path:
        """Where the content of a digest is, or would be."""
        return self._blobs / f"sha256-{checked_digest(digest)}"

    def make_blob_folder(self) -> None:
        """For who writes blobs by himself."""
        files.make_private(self._blobs)

    def blob_writer(self, digest: str, *, max_bytes: int | None = None) -> BlobWriter:
        """
        Add content piece by piece; see `BlobWriter`.

        Args:
            digest: sha256 of the whole.
            max_bytes: it may have; None: what is free on the disk.
        """
        path = self.blob_path(digest)
        self.make_blob_folder()
        limit = files.free_bytes(path.parent) if max_bytes is None else max_bytes
        return BlobWriter(path, checked_digest(digest), limit)

    def add_blob(
        self, digest: str, chunks: Iterable[bytes], *, max_bytes: int | None = None
    ) -> Path:
        """
        Add content; returns where it is.

        Raises:
            RequestError: it is not what the digest says, or longer than `max_bytes`.
            CapacityError: the disk is full.
        """
        with self.blob_writer(digest, max_bytes=max_bytes) as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()

    async def add_blob_async(
        self, digest: str, chunks: AsyncIterable[bytes], *, max_bytes: int | None = None
    ) -> Path:
        """`add_blob` for a request's body; disk and hash work in threads."""
        with await asyncio.to_thread(self.blob_writer, digest, max_bytes=max_bytes) as writer:
            async for chunk in chunks:
                await asyncio.to_thread(writer.write, chunk)
            return await asyncio.to_thread(writer.commit)

    def prune(self, *, older_than_s: float = ORPHAN_AGE_S) -> int:
        """
        Remove blobs that no model has, and temporary files, once they are old.

        Returns:
            Bytes that are free again.
        """
        if not self._blobs.is_dir():
            return 0
        freed = 0
        with self._locked():
            manifests = self._all()
            if manifests is None:
                return 0
            used = {f"sha256-{file.digest}" for each in manifests for file in each.files}
            for path in self._blobs.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    if path.name not in used and time.time() - status.st_mtime > older_than_s:
                        path.unlink()
                        freed += status.st_size
        return freed

    def link_files(self, key: str, targets: Mapping[str, Path]) -> Path:
        """
        A folder in which files have the names a model's format asks for.

        Args:
            key: 64 hexadecimal digits of the model, the folder's name.
            targets: where the files are, by the names they get.
        """
        folder = files.make_private(self.root / "links" / checked_digest(key))
        for name, target in targets.items():
            if Path(name).name != name or name in ("", ".", ".."):
                raise RequestError(f"expected a file's name, found {name!r}", parameter="name")
            temporary = files.temporary_name(folder / name)
            os.symlink(target, temporary)
            os.rename(temporary, folder / name)
        files.sync_folder(folder)
        return folder

    def lock(self, key: str) -> files.FileLock:
        """The lock of that name; `key` is ours, never from outside."""
        return files.FileLock(files.make_private(self.root / "locks") / f"{key}.lock")

    @property
    def _manifests(self) -> Path:
        return self.root / "manifests"

    @property
    def _blobs(self) -> Path:
        return self.root / "blobs"

    def _manifest_path(self, name: str) -> Path:
        return self._manifests / f"{name.lower().replace('/', '%')}.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        files.make_private(self._manifests)
        with self.lock("store").held():
            yield

    def _read(self, path: Path) -> Manifest:
        with open(path, "rb") as file:
            encoded = file.read(MAX_MANIFEST_BYTES + 1)
        if len(encoded) > MAX_MANIFEST_BYTES:
            raise ModelFormatError(
                f"expected at most {MAX_MANIFEST_BYTES:,} bytes, found more", path=path
            )
        manifest = decode(encoded, path=path)
        if self._manifest_path(manifest.name) != path:
            raise ModelFormatError(f"it names another model, {manifest.name!r}", path=path)
        return manifest

    def _read_or_none(self, name: str) -> Manifest | None:
        try:
            return self._read(self._manifest_path(name))
        except (FileNotFoundError, ModelFormatError):
            return None

    def _all(self) -> Sequence[Manifest] | None:
        """Every manifest; None if one cannot be read, since its blobs are not known then."""
        try:
            return [self._read(path) for path in self._manifests.glob("*.json")]
        except (QuintetError, OSError) as error:
            _log.warning("nothing was removed: %s", error)
            return None

    def _refuse_packaged(self, name: str) -> None:
        if name.lower() in packaged_manifests():
            raise RequestError(f"{name!r} comes with Quintet and stays as it is", parameter="model")

    def _collect(self, gone: Manifest) -> None:
        """Remove what only `gone` had; its manifest is no longer there.  Needs the lock."""
        manifests = self._all()
        if manifests is None:
            return
        used = {file.digest for manifest in manifests for file in manifest.files}
        folder = self._link_folder(gone)
        if folder is not None and folder not in map(self._link_folder, manifests):
            shutil.rmtree(folder, ignore_errors=True)
        for file in gone.files:
            if file.digest not in used:
                self.blob_path(file.digest).unlink(missing_ok=True)

    def _link_folder(self, manifest: Manifest) -> Path | None:
        """The folder of links that a model's path leads through, if it does."""
        links = self.root / "links"
        for folder in (manifest.path, manifest.path.parent):
            if folder.parent == links:
                return folder
        return None


def _advice(name: str) -> str:
    """How to get a model that is not there, if it can be got."""
    try:
        hub_source(name)
    except ModelNotFoundError:
        return ""
    return f"; to download it: quintet pull {name}"
