"""What is in a repository of the Hub, and which of it makes a model.

Source: Hugging Face Hub API, `/api/models/{repo}/revision/{revision}?blobs=true`, as
huggingface_hub's `HfApi.model_info(files_metadata=True)` reads it; GGUF file names as
docs/gguf.md of ggml-org/ggml has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from quintet.errors import DownloadError, ModelNotFoundError
from quintet.hub.transport import RepositoryRefusedError, Transport

MAX_FILE_BYTES = 4 * 2**40
MAX_PLAIN_BYTES = 64 * 2**20  # of a file that is not in large file storage

# The first that a repository has is taken; the smallest loss for its size comes first.
_PREFERRED = (
    *("Q4_K_M", "Q4_0", "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q5_0", "Q6_K", "Q8_0", "Q3_K_M"),
    *("IQ4_NL", "IQ4_XS", "BF16", "F16", "F32"),
)

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+ -]{0,199}")
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})")
_QUANT = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|F16|F32|FP16|FP32))"
    r"(?=$|[-.])",
    re.IGNORECASE,
)
_COMPANIONS = re.compile(
    r"config\.json|generation_config\.json|tokenizer\.json|tokenizer_config\.json|tokenizer\.model|"
    r"special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|vocab\.txt|"
    r"chat_template\.(?:jinja|json)|model\.safetensors\.index\.json|modules\.json|"
    r"sentence_bert_config\.json"
)


@dataclass(frozen=True)
class RepoFile:
    """
    A file of a repository.

    Args:
        path: in the repository; its parts are plain names.
        size_bytes: of its content.
        sha256: of its content, if it is in large file storage; 64 hexadecimal digits.
        git_oid: git's id of it otherwise; 40 hexadecimal digits.
    """

    path: str
    size_bytes: int
    sha256: str | None
    git_oid: str | None

    @property
    def name(self) -> str:
        """Without its folders."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, so that all its files belong together."""

    repo: str
    commit: str
    files: Sequence[RepoFile]

    def url(self, endpoint: str, file: RepoFile) -> str:
        """Where the content of a file is."""
        return f"{endpoint}/{self.repo}/resolve/{self.commit}/{quote(file.path)}"


def read_repository(transport: Transport, repo: str) -> Repository:
    """
    Ask what there is.

    Raises:
        ModelNotFoundError: no such repository.
        TransferInterrupted, DownloadError: see `Transport.open`.
        DownloadError, ModelFormatError: the answer is not what the API promises.
    """
    try:
        answer = transport.get_json(f"/api/models/{repo}/revision/main?blobs=true")
    except RepositoryRefusedError as error:
        if error.status == 404:
            raise ModelNotFoundError(f"no repository {repo!r} at {transport.endpoint}") from error
        raise
    where = f"{transport.endpoint}: the list of {repo}"
    fields = answer if isinstance(answer, dict) else {}
    commit, siblings = fields.get("sha"), fields.get("siblings")
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise DownloadError(f"{where}: expected a commit, found {commit!r:.60}")
    if not isinstance(siblings, list):
        raise DownloadError(f"{where}: expected files, found {type(siblings).__name__}")
    found = [_read_file(item, where) for item in siblings]
    return Repository(repo, commit, tuple(file for file in found if file is not None))


def _read_file(item: Any, where: str) -> RepoFile | None:
    """A file of the list; None for one that we would never want."""
    path = item.get("rfilename") if isinstance(item, dict) else None
    if not isinstance(path, str):
        raise DownloadError(f"{where}: expected a file name, found {path!r:.60}")
    if not all(_SEGMENT.fullmatch(part) for part in path.split("/")):
        return None
    large = item.get("lfs")
    size, sha256 = item.get("size"), None
    if isinstance(large, dict):
        size, sha256 = large.get("size"), large.get("sha256")
        if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise DownloadError(f"{where}: {path}: expected a sha256, found {sha256!r:.80}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
        raise DownloadError(f"{where}: {path}: expected a size, found {size!r:.60}")
    oid = item.get("blobId")
    if not isinstance(oid, str) or not re.fullmatch(r"[0-9a-f]{40}", oid):
        oid = None
    return RepoFile(path, size, sha256, oid)


def choose_files(repository: Repository, quant: str | None) -> list[RepoFile]:
    """
    The files of one model: those of a GGUF in order, else of a safetensors model.

    Args:
        quant: a number format such as Q4_K_M, or the name of a file; None: a usual one.

    Raises:
        ModelNotFoundError: there is none; lists what there is.
        DownloadError: parts of a split file are missing.
    """
    models = _gguf_models(repository.files)
    if not models:
        return _safetensors_model(repository, quant)
    if quant is None:
        by_quant = {model.quant: model for model in reversed(models)}
        for name in _PREFERRED:
            if name in by_quant:
                return by_quant[name].complete(repository)
        if len(models) == 1:
            return models[0].complete(repository)
        wanted = "file of a usual format"
    else:
        for model in models:
            if quant.lower() in (str(model.quant).lower(), *model.names()):
                return model.complete(repository)
        wanted = quant
    there = ", ".join(
        f"{model.quant or model.stem} ({model.size_bytes / 1e9:.2f} GB)" for model in models
    )
    raise ModelNotFoundError(f"hf.co/{repository.repo} has no {wanted}; it has {there}")


@dataclass(frozen=True)
class _GGUFModel:
    stem: str  # with its folder
    quant: str | None
    num_parts: int
    parts: dict[int, RepoFile]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.parts.values())

    def names(self) -> tuple[str, ...]:
        """What a user may call it by, besides its number format."""
        stem = self.stem.rpartition("/")[2].lower()
        return stem, f"{stem}.gguf"

    def complete(self, repository: Repository) -> list[RepoFile]:
        if sorted(self.parts) != list(range(1, self.num_parts + 1)):
            raise DownloadError(
                f"hf.co/{repository.repo}: {self.stem} has {len(self.parts)} "
                f"of its {self.num_parts} parts"
            )
        return [self.parts[number] for number in sorted(self.parts)]


def _gguf_models(files: Iterable[RepoFile]) -> list[_GGUFModel]:
    models: dict[tuple[str, int], _GGUFModel] = {}
    for file in sorted(files, key=lambda file: file.path):
        if not file.path.lower().endswith(".gguf") or file.sha256 is None:
            continue
        if "mmproj" in file.name.lower() or "imatrix" in file.name.lower():
            continue  # parts of other things
        stem, number, count = file.path[: -len(".gguf")], 1, 1
        split = _SPLIT.fullmatch(stem)
        if split is not None:
            stem, number, count = split["stem"], int(split["number"]), int(split["count"])
        labels = _QUANT.findall(stem.rpartition("/")[2])
        quant = labels[-1].upper() if labels else None
        model = models.setdefault((stem, count), _GGUFModel(stem, quant, count, {}))
        model.parts[number] = file
    return list(models.values())


def _safetensors_model(repository: Repository, quant: str | None) -> list[RepoFile]:
    top = {file.path: file for file in repository.files if "/" not in file.path}
    weights = [path for path in top if path.endswith(".safetensors")]
    if "model.safetensors" in weights:
        weights = ["model.safetensors"]
    elif "model.safetensors.index.json" in top:
        weights = [path for path in weights if re.fullmatch(r"model-\d{5}-of-\d{5}\..*", path)]
    if not weights or "config.json" not in top:
        raise ModelNotFoundError(
            f"hf.co/{repository.repo} has neither a GGUF file nor a safetensors model"
        )
    if quant is not None:
        raise ModelNotFoundError(
            f"hf.co/{repository.repo} has no {quant}; it is a safetensors model: leave the tag out"
        )
    for path in weights:
        if top[path].sha256 is None:
            raise DownloadError(f"hf.co/{repository.repo}: {path} comes without a sha256")
    chosen = sorted(path for path in top if path in weights or _COMPANIONS.fullmatch(path))
    return [top[path] for path in chosen]
