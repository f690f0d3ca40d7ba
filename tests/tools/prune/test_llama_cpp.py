"""Cut files in llama.cpp: which it opens, and what it makes of them.

The whole files give what they give here to the same tolerance, but for those left out: a V2 with
groups of experts, and gpt-oss with YaRN, which it computes otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from backends.steps import prefill
from models.encoders import ENCODERS, hidden_rows, make_encoder, write_encoder_gguf
from models.tiny import PARITY, Row, make_hf, write_gguf
from quintet import LLM, SamplingParams
from quintet.backends.reference import ReferenceExecutor
from quintet.formats.gguf import GGUFFile
from quintet.hub.packaged import packaged_models
from quintet.models import load_model
from quintet.tools.prune import prune
from quintet.tools.quantize import quantize

from .dead_parts import Dying, make_dying, with_fields

llama_cpp = pytest.importorskip("llama_cpp")

NO_YARN = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
TINIEST = {"hidden_size": 32, "intermediate_size": 32}
ROWS = {row.id: row for row in PARITY}
CASES = [
    *("llama", "llama-mha", "mistral", "qwen2", "qwen3", "phi3", "granite", "olmo2", "olmo3"),
    *("smollm3", "glm4", "ministral3", "gemma2", "gemma3", "mixtral", "qwen3moe", "gpt-oss"),
    *("deepseek2-split", "deepseek2-yarn", "deepseek3-groups"),
]
STRATEGIES = ("depth", "width", "attention", "experts", "combined")
# Its gelu is a table in half precision; phi3's windows it leaves out, so texts are shorter.
TOLERANCE = 1e-3
TOKENS = np.random.default_rng(7).integers(3, 160, 16).tolist()


def ours(path: Path) -> np.ndarray:
    with GGUFFile.open(path) as file:
        executor = ReferenceExecutor(load_model(file), num_blocks=1, dtype=np.float64)
        return prefill(executor, TOKENS, [0], chunk=len(TOKENS))


def opened(path: Path):
    f32 = llama_cpp.GGML_TYPE_F32  # its cache is in float16 by default
    return llama_cpp.Llama(
        str(path),
        n_ctx=64,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        verbose=False,
        type_k=f32,
        type_v=f32,
        flash_attn=False,
    )


def theirs(path: Path) -> np.ndarray:
    peer = opened(path)
    peer.eval(TOKENS)
    return np.array(peer.scores[: len(TOKENS)])


@pytest.fixture(scope="module", params=CASES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, without YaRN where llama.cpp reads that otherwise."""
    row = ROWS[request.param]
    changes = NO_YARN if row.id == "gpt-oss" else {}
    row = replace(row, overrides={**row.overrides, "num_hidden_layers": 7, **changes})
    directory = tmp_path_factory.mktemp("model")
    path = directory / "whole.gguf"
    write_gguf(row, make_hf(row, directory), path, gguf.GGMLQuantizationType.F32)
    return path


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_computes_what_we_compute(strategy: str, whole: Path, tmp_path: Path):
    """Every cut of every architecture: the same logits, or refused as the report said."""
    with GGUFFile.open(whole) as file:
        if strategy == "experts" and "blk.2.ffn_gate_inp.weight" not in file.tensors:
            pytest.skip("a model without experts")
    output = tmp_path / "out.gguf"
    options = {"head_ratio": 0.5, "width_ratio": 0.5, "expert_ratio": 0.7}
    report = prune(whole, output, strategy=strategy, target_n_layer=5, **options)
    if report.llama_cpp_refuses:
        with pytest.raises(ValueError, match="Failed to load"):
            opened(output)
        return
    expected = ours(output)
    assert np.linalg.norm(theirs(output) - expected) < TOLERANCE * np.linalg.norm(expected)


def lite(num_layers: int) -> Row:
    """DeepSeek-V2-Lite but for its widths."""
    overrides = {**ROWS["deepseek2-lite"].overrides, "num_hidden_layers": num_layers}
    return replace(ROWS["deepseek2-lite"], overrides=overrides)


@pytest.mark.parametrize("num_layers", [26, 25])
def test_a_lite_deepseek_is_known_by_its_blocks(num_layers: int, tmp_path: Path):
    """27 or 26 blocks, and no other number."""
    path, output = tmp_path / "whole.gguf", tmp_path / "out.gguf"
    write_gguf(lite(27), make_hf(lite(27), tmp_path), path, gguf.GGMLQuantizationType.F32)
    report = prune(path, output, target_n_layer=num_layers)
    assert bool(report.llama_cpp_refuses) == (num_layers == 25)
    if report.llama_cpp_refuses:
        with pytest.raises(ValueError, match="Failed to load"):
            opened(output)
    else:
        expected = ours(output)
        assert np.linalg.norm(theirs(output) - expected) < TOLERANCE * np.linalg.norm(expected)


def rows_of(path: Path) -> np.ndarray:
    """The hidden rows that llama.cpp makes of an encoder's text."""
    parameters = llama_cpp.llama_context_default_params()
    parameters.embeddings = True
    parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
    parameters.flash_attn_type = 0  # it would round keys and values to float16
    parameters.n_ctx = parameters.n_ubatch = 64
    parameters.n_threads = parameters.n_threads_batch = 1
    opened = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), opened)
    assert model
    context = llama_cpp.llama_init_from_model(model, parameters)
    batch = llama_cpp.llama_batch_init(len(TOKENS), 0, 1)
    batch.n_tokens = len(TOKENS)
    for i, token in enumerate(TOKENS):
        batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    assert llama_cpp.llama_encode(context, batch) == 0
    width = (llama_cpp.llama_model_n_embd(model),)
    rows = [llama_cpp.llama_get_embeddings_ith(context, i) for i in range(len(TOKENS))]
    found = np.array([np.ctypeslib.as_array(row, width).copy() for row in rows])
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return found


@pytest.mark.parametrize("name", ["bert", "nomic", "modern"])
def test_it_reads_cut_encoders(name: str, tmp_path: Path):
    """The same hidden rows, without blocks and columns."""
    row = next(row for row in ENCODERS if row.id == name)
    make_encoder(row, tmp_path, num_hidden_layers=7)
    path, output = tmp_path / "whole.gguf", tmp_path / "out.gguf"
    write_encoder_gguf(row, tmp_path, path)
    vocabulary = {"tokenizer__ggml__model": "none", "tokenizer__ggml__token_type_count": 2}
    size = {f"{gguf.MODEL_ARCH_NAMES[row.arch]}__vocab_size": 160}
    path = with_fields(path, **vocabulary, **size)
    prune(path, output, strategy="combined", target_n_layer=5)
    with GGUFFile.open(output) as file:
        executor = ReferenceExecutor(load_model(file), num_blocks=1, dtype=np.float64)
        (expected,) = hidden_rows(executor, [TOKENS])
    assert np.linalg.norm(rows_of(output) - expected) < TOLERANCE * np.linalg.norm(expected)


def test_a_leading_dense_block_may_go(tmp_path: Path):
    """It reads how many lead, which is one less."""
    _, path = make_dying(Dying("deepseek2-split", 5, (1,), {"first_k_dense_replace": 2}), tmp_path)
    output = tmp_path / "out.gguf"
    assert prune(path, output, target_n_layer=4).removed_layers == (1,)
    expected = ours(output)
    assert np.linalg.norm(theirs(output) - expected) < TOLERANCE * np.linalg.norm(expected)


@pytest.mark.parametrize(("name", "num_layers"), [("gemma2", 46), ("gemma3", 62)])
@pytest.mark.parametrize("strategy", ["depth", "attention"])
def test_the_largest_gemmas_are_known_by_their_blocks(
    strategy: str, name: str, num_layers: int, tmp_path: Path
):
    """It scales queries by the number of blocks, before and after, as we do: what we put into the
    weights for that (see test_architectures.py) is right there too."""
    row = ROWS[name]
    row = replace(row, overrides={**row.overrides, **TINIEST, "num_hidden_layers": num_layers})
    path, output = tmp_path / "whole.gguf", tmp_path / "out.gguf"
    write_gguf(row, make_hf(row, tmp_path), path, gguf.GGMLQuantizationType.F32)
    prune(path, output, strategy=strategy, target_n_layer=num_layers - 6, head_ratio=0.5)
    expected = ours(output)
    assert np.linalg.norm(theirs(output) - expected) < 10 * TOLERANCE * np.linalg.norm(expected)


@pytest.mark.parametrize("strategy", ["depth", "width", "attention", "combined"])
def test_it_writes_the_same_text(strategy: str, tmp_path: Path):
    """The demo model, cut: greedily the same tokens.

    In float32, for llama.cpp multiplies blocks of weights with rounded activations.
    """
    output = tmp_path / "out.gguf"
    quantize(packaged_models()["demo"], tmp_path / "whole.gguf", "F32")
    prune(tmp_path / "whole.gguf", output, strategy=strategy)
    params = SamplingParams(max_tokens=16, temperature=0, ignore_eos=True)
    peer = opened(output)
    prompt = peer.tokenize(b"Once upon a time", add_bos=False)
    found = []
    for token in peer.generate(prompt, temp=0.0):
        found.append(token)
        if len(found) == 16:
            break
    with LLM(str(output), dtype="float32") as llm:
        (answer,) = llm.generate([prompt], params)
    assert list(answer.token_ids) == found
