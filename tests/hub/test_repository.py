"""Which files of a repository make a model: lists as public repositories have them."""

from __future__ import annotations

import pytest

from quintet.errors import DownloadError, ModelNotFoundError
from quintet.hub.manifest import canonical_name
from quintet.hub.names import aliases, hub_source
from quintet.hub.repository import RepoFile, Repository, choose_files


def repository(*paths: str, small: tuple[str, ...] = ()) -> Repository:
    """Files in large file storage, and small ones."""
    large = [RepoFile(path, 1000 + i, f"{i:064x}", f"{i:040x}") for i, path in enumerate(paths)]
    plain = [RepoFile(path, 10, None, "0" * 40) for path in small]
    return Repository("user/repo", "c" * 40, [*large, *plain])


BARTOWSKI = repository(
    *(
        f"Llama-3.2-1B-Instruct-{quant}.gguf"
        for quant in ("IQ3_M", "IQ4_XS", "Q3_K_L", "Q3_K_XL", "Q4_0", "Q4_0_4_4", "Q4_K_L")
    ),
    *(f"Llama-3.2-1B-Instruct-{quant}.gguf" for quant in ("Q4_K_M", "Q6_K_L", "Q8_0", "f16")),
    "Llama-3.2-1B-Instruct.imatrix",
)
QWEN = repository(
    *(f"qwen2.5-7b-instruct-q4_k_m-0000{i}-of-00002.gguf" for i in (2, 1)),
    *(f"qwen2.5-7b-instruct-q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)),
    "qwen2.5-7b-instruct-q2_k.gguf",
)
UNSLOTH = repository(
    "BF16/Qwen3-32B-BF16-00001-of-00002.gguf",
    "BF16/Qwen3-32B-BF16-00002-of-00002.gguf",
    "Qwen3-32B-UD-Q4_K_XL.gguf",
    "Qwen3-32B-Q4_K_M.gguf",
    "mmproj-F16.gguf",
    "imatrix_unsloth.gguf",
)
THE_BLOKE = repository("tinyllama-1.1b-chat-v1.0.Q2_K.gguf", "tinyllama-1.1b-chat-v1.0.Q5_K_S.gguf")
PLAIN = repository("weights.gguf")


@pytest.mark.parametrize(
    ("files", "quant", "chosen"),
    [
        (BARTOWSKI, None, ["Llama-3.2-1B-Instruct-Q4_K_M.gguf"]),
        (BARTOWSKI, "q8_0", ["Llama-3.2-1B-Instruct-Q8_0.gguf"]),
        (BARTOWSKI, "F16", ["Llama-3.2-1B-Instruct-f16.gguf"]),
        (BARTOWSKI, "Q4_0", ["Llama-3.2-1B-Instruct-Q4_0.gguf"]),
        (BARTOWSKI, "Q4_0_4_4", ["Llama-3.2-1B-Instruct-Q4_0_4_4.gguf"]),
        (BARTOWSKI, "llama-3.2-1b-instruct-iq3_m.gguf", ["Llama-3.2-1B-Instruct-IQ3_M.gguf"]),
        (QWEN, None, [f"qwen2.5-7b-instruct-q4_k_m-0000{i}-of-00002.gguf" for i in (1, 2)]),
        (QWEN, "Q8_0", [f"qwen2.5-7b-instruct-q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]),
        (UNSLOTH, None, ["Qwen3-32B-Q4_K_M.gguf"]),
        (UNSLOTH, "UD-Q4_K_XL", ["Qwen3-32B-UD-Q4_K_XL.gguf"]),
        (UNSLOTH, "BF16", [f"BF16/Qwen3-32B-BF16-0000{i}-of-00002.gguf" for i in (1, 2)]),
        (THE_BLOKE, None, ["tinyllama-1.1b-chat-v1.0.Q5_K_S.gguf"]),
        (PLAIN, None, ["weights.gguf"]),
    ],
)
def test_the_file_that_is_meant(files: Repository, quant: str | None, chosen: list[str]) -> None:
    """By number format whatever the case, by file name, or the usual one; split ones whole."""
    assert [file.path for file in choose_files(files, quant)] == chosen


@pytest.mark.parametrize(
    ("files", "quant", "message"),
    [
        (BARTOWSKI, "Q5_K_M", r"has no Q5_K_M; it has IQ3_M \(0\.00 GB\), IQ4_XS"),
        (UNSLOTH, "F16", "has no F16"),
        (repository("a-Q2_K.gguf", "b-Q2_K.gguf"), None, "has no file of a usual format"),
        (repository("a-Q2_K.gguf", small=("a-Q4_0.gguf",)), "Q4_0", "has no Q4_0"),
        (repository("pytorch_model.bin", small=("config.json",)), None, "neither a GGUF file nor"),
        (repository("model.safetensors"), None, "neither a GGUF file nor"),
    ],
)
def test_what_is_not_there(files: Repository, quant: str | None, message: str) -> None:
    """Said with what there is instead."""
    with pytest.raises(ModelNotFoundError, match=message):
        choose_files(files, quant)


def test_a_split_model_with_a_part_missing() -> None:
    """Half a model is not downloaded."""
    with pytest.raises(DownloadError, match="m-Q8_0 has 2 of its 3 parts"):
        choose_files(repository(*(f"m-Q8_0-0000{i}-of-00003.gguf" for i in (1, 3))), None)


def test_a_safetensors_model() -> None:
    """The shards that the index names, and what a tokenizer and a configuration need."""
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    small = ("config.json", "model.safetensors.index.json", "merges.txt", "README.md", ".git")
    files = repository(
        *shards, "consolidated.safetensors", "tokenizer.json", "onnx/model.onnx", small=small
    )
    assert [file.path for file in choose_files(files, None)] == [
        "config.json",
        "merges.txt",
        *shards,
        "model.safetensors.index.json",
        "tokenizer.json",
    ]


def test_weights_need_a_hash() -> None:
    """Weights outside large file storage would have none that is worth the name."""
    files = repository(small=("config.json", "model.safetensors"))
    with pytest.raises(DownloadError, match="without a sha256"):
        choose_files(files, None)


def test_aliases_are_names_in_full() -> None:
    """Each is what it would be stored under, and stands for a repository of the Hub."""
    for name, source in aliases().items():
        assert canonical_name(name) == name == name.lower()
        assert hub_source(name) == source
        assert hub_source(f"hf.co/{source.repo}") == source


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("qwen3:0.6b", "hf.co/Qwen/Qwen3-0.6B-GGUF"),
        ("Qwen3:0.6B", "hf.co/Qwen/Qwen3-0.6B-GGUF"),
        ("qwen3", "hf.co/Qwen/Qwen3-8B-GGUF"),
        ("hf.co/user/repo:Q8_0", "hf.co/user/repo:Q8_0"),
        ("https://huggingface.co/user/repo", "hf.co/user/repo"),
        ("hf.co/user/repo:latest", "hf.co/user/repo"),
    ],
)
def test_where_names_lead(name: str, source: str) -> None:
    """Short names by the table, long ones by themselves."""
    assert str(hub_source(name)) == source


@pytest.mark.parametrize("name", ["hf.co/user", "hf.co/a/b/c", "qwen3:0.7b", "user/repo", "x"])
def test_names_that_lead_nowhere(name: str) -> None:
    """No guess is made."""
    with pytest.raises(ModelNotFoundError):
        hub_source(name)
