"""Quintet's native core.  The C++ headers under csrc/ hold each function's contract."""

import enum
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

LAYOUTS_VERSION: int
"""Differs between builds whose packed weights do."""

class Layout(enum.Enum):
    """How a packed matrix lies in memory; see csrc/kernels/layouts.h."""

    F32 = 0
    F16 = 1
    BF16 = 2
    W8 = 3
    W4 = 4
    W5 = 5
    W4M = 6
    W5M = 7
    W4K = 8
    W5K = 9
    W6K = 10
    W3K = 11
    W2K = 12
    W4N = 13
    W4X = 14
    W4E = 15
    W4T = 16
    W3T = 17

class SourceType(enum.Enum):
    """What a matrix is packed from."""

    F32 = 0
    F16 = 1
    BF16 = 2
    Q8_0 = 3
    Q4_0 = 4
    Q5_0 = 5
    Q4_1 = 6
    Q5_1 = 7
    Q4_K = 8
    Q5_K = 9
    Q6_K = 10
    Q3_K = 11
    Q2_K = 12
    IQ4_NL = 13
    IQ4_XS = 14
    MXFP4 = 15
    TABLE4 = 16
    TABLE3 = 17

def kernels_info() -> dict[str, Any]:
    """`active`: the kernel table in use, or None; `available`: all, slowest first."""

def default_num_threads() -> int:
    """min(affinity mask, cgroup CPU quota, physical cores)."""

def measure_read_bandwidth(*, num_threads: int, size_bytes: int = 0, seconds: float = 0.5) -> float:
    """Best bytes per second of reading `size_bytes` once; 0 bytes: more than caches hold."""

def measure_int8_peak(*, num_threads: int, seconds: float = 0.5) -> float:
    """Best int8 multiply-accumulates per second, with the active kernels' instructions."""

def quantize_rows(
    format: int,
    source: int,
    rows: npt.NDArray[np.uint8],
    row_size: int,
    blocks: npt.NDArray[np.uint8],
    *,
    importance: npt.NDArray[np.float32] | None = None,
    num_threads: int = 1,
) -> bool:
    """Encode rows of F32, F16 or BF16 to `format` in `blocks`; types are GGUF's ids.

    False where a value is NaN or infinite and the format cannot hold it.
    """

def decode_strings(encoded: bytes, starts: npt.NDArray[np.int64]) -> list[str]:
    """Strings, each behind eight bytes of length and in front of the next start."""

def decode_pairs(encoded: bytes, starts: npt.NDArray[np.int64]) -> list[tuple[str, str]] | int:
    """The same, cut in two at a space, or the index of one that cannot be cut.

    It is the first space, but for one at the start, which belongs to the left half.
    """

def string_starts(
    data: npt.NDArray[np.uint8], begin: int, end: int, count: int
) -> npt.NDArray[np.int64]:
    """Where strings behind their lengths begin, and where the last ends.

    Fewer where one passes `end`; the last place is then where that one begins.
    """

class StringIndex:
    """Finds strings, each behind eight bytes of length."""

    def __init__(self, encoded: bytes, starts: npt.NDArray[np.int64]) -> None: ...
    def find(self, text: bytes) -> int:
        """The place of the first string that is this one, or -1."""
    def duplicate(self) -> tuple[int, int]:
        """The first string that is there twice and where it is again, or -1 twice."""
    def first_invalid(self) -> int:
        """The first string that is not UTF-8, or -1."""

class BytePairs:
    """Byte pair encoding over a vocabulary in GPT-2's byte alphabet."""

    def __init__(
        self,
        tokens: StringIndex,
        encoded: bytes,
        starts: npt.NDArray[np.int64],
        alphabet: Sequence[str],
    ) -> None: ...
    def first_bad_merge(self) -> int:
        """The first merge that is not two tokens whose join is a third, or -1."""
    def makes(self, token: int) -> bool:
        """Whether some merge results in this token."""
    def encode(
        self,
        text: str,
        ids: list[int],
        offsets: list[tuple[int, int]],
        *,
        known: Sequence[int],
        ignores_merges: bool,
        is_hidden: bytes,
    ) -> list[int]:
        """Tokens of a text cut into parts.

        Where an id is 0 the characters between the two offsets are encoded, others stand for
        known[id - 1].  `is_hidden`: a byte per token, or none.
        """

class ThreadPool:
    """Threads that work together: a plan's, or others.  One caller at a time."""

    def __init__(self, num_threads: int) -> None: ...
    @property
    def num_threads(self) -> int: ...

class Plan:
    """A compiled program with its weights and KV cache; see csrc/plan/plan.h."""

    def __init__(
        self,
        *,
        max_tokens: int,
        max_logits_rows: int,
        num_blocks: int,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        kv_type: str,
        num_threads: int,
        kernels: str = "",
    ) -> None: ...
    def add_matrix(self, n: int, k: int, layout: Layout) -> int: ...
    def allocate_weights(self) -> None:
        """Memory for all matrices added; none can be added afterwards."""

    def map_weights(self, file: int, offset: int) -> bool:
        """Instead of allocating, take packed weights from a file descriptor; False: too short."""

    def unmap_weights(self) -> None:
        """Let go of what was mapped, to take other memory."""

    def lock_weights(self) -> int:
        """Keep the packed weights in physical memory; 0, or errno."""

    def pack(
        self,
        sources: Sequence[tuple[int, npt.NDArray[np.uint8], SourceType]],
        *,
        is_mapped: bool,
    ) -> None:
        """Pack (matrix, bytes, type) each, on all threads, with the GIL released.

        Pages of `is_mapped` sources, read-only mappings of files, are let go of once packed.
        """

    def weights_checksum(self) -> int:
        """64 bits of all packed weights, for finding damage."""

    def matrix_places(self) -> list[tuple[int, int, int, int, int]]:
        """Per matrix: n, k, layout, and its offset and bytes in `packed_weights`."""

    def packed_weights(self) -> npt.NDArray[np.uint8]:
        """All packed matrices as bytes, read-only; empty until there is memory for them."""

    def add_vector(self, values: npt.NDArray[np.float32]) -> int: ...
    def add_buffer(self, width: int, logits_rows: bool = False) -> int: ...
    def add_forms(
        self, width: int, *, f32: bool, bf16: bool, q8: bool, logits_rows: bool = False
    ) -> int: ...
    def add_rotation(
        self,
        inv_freq: npt.NDArray[np.float64],
        *,
        head_dim: int,
        interleaved: bool,
        factor: float,
    ) -> int: ...
    def begin_rows(self, logits_rows: bool = False) -> None: ...
    def row_embed(self, matrix: int, dst: int) -> None: ...
    def row_embed_position(self, matrix: int, dst: int) -> None: ...
    def row_embed_type(self, matrix: int, dst: int) -> None: ...
    def row_layer_norm(self, src: int, vector: int, bias: int, eps: float, dst: int) -> None: ...
    def row_gelu(self, src: int, up: int, dst: int) -> None: ...
    def row_tanh(self, src: int, dst: int) -> None: ...
    def row_columns(self, src: int, begin: int, dst: int) -> None: ...
    def row_arrange(
        self, srcs: Sequence[int], runs: Sequence[tuple[int, int, int]], dst: int
    ) -> None:
        """A run is (which of srcs or -1 for zeros, begin, width)."""

    def row_add(self, src: int, dst: int) -> None: ...
    def row_copy(self, src: int, dst: int) -> None: ...
    def row_select(self, src: int, dst: int) -> None: ...
    def row_rms_norm(self, src: int, vector: int, eps: float, dst: int) -> None: ...
    def row_rope(self, buffer: int, rotation: int) -> None: ...
    def row_silu_mul(self, gate: int, up: int, dst: int) -> None: ...
    def row_gelu_tanh(self, src: int, up: int, dst: int) -> None: ...
    def row_scale(self, src: int, factor: float, dst: int) -> None: ...
    def row_scale_by_position(self, src: int, growth: float, period: int, dst: int) -> None: ...
    def row_softcap(self, src: int, cap: float, dst: int) -> None: ...
    def add_experts(
        self,
        *,
        num_experts: int,
        num_used: int,
        gate: int,
        up: int,
        down: int,
        gate_bias: int,
        up_bias: int,
        down_bias: int,
        selection_bias: int,
        num_groups: int,
        num_groups_used: int,
        group_top: int,
        sigmoid: bool,
        normalize: bool,
        factor: float,
        limit: float,
    ) -> int: ...
    def row_route(self, scores: int, experts: int) -> None: ...
    def run_experts(self, src: int, experts: int, *, is_observed: bool = False) -> int:
        """Rows that have been routed, through their experts; the observation's number, or -1."""

    def observe(self, buffer: int, logits_rows: bool = False) -> int:
        """Rows that `run_observed` shows before the next op; the observation's number."""

    def row_combine(self, experts: int, dst: int) -> None: ...
    def row_forms(self, src: int, forms: int) -> None: ...
    def row_write_kv(self, k: int, v: int, layer: int) -> None: ...
    def linear(self, tasks: Sequence[tuple[int, int, int, int]], logits_rows: bool = False) -> None:
        """Independent products; a task is (matrix, forms, output, bias or -1)."""

    def attention(
        self,
        q: int,
        out: int,
        layer: int,
        scale: float,
        *,
        left: int,
        right: int,
        softcap: float = 0.0,
        sinks: int = -1,
    ) -> None: ...
    def mark_hidden(self, buffer: int) -> None: ...
    def finish(self, logits: int) -> None: ...
    def run(
        self,
        token_ids: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int32],
        slot_mapping: npt.NDArray[np.int32],
        block_tables: npt.NDArray[np.int32],
        seq_lens: npt.NDArray[np.int32],
        logits_rows: npt.NDArray[np.int32],
        token_types: npt.NDArray[np.int32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """One step with the GIL released; logits [len(logits_rows), vocab_size]."""

    def run_observed(
        self,
        token_ids: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int32],
        slot_mapping: npt.NDArray[np.int32],
        block_tables: npt.NDArray[np.int32],
        seq_lens: npt.NDArray[np.int32],
        logits_rows: npt.NDArray[np.int32],
        token_types: npt.NDArray[np.int32] | None,
        observer: Callable[..., None],
    ) -> None:
        """Run one step up to its head; call `observer` in between.

        With (observation, rows), or of experts (observation, rows, visits [n, num_used],
        begins [1, num_experts + 1], inner [n * num_used, inner_width]), valid during the call.
        """

    def run_hidden(
        self,
        token_ids: npt.NDArray[np.int32],
        positions: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int32],
        slot_mapping: npt.NDArray[np.int32],
        block_tables: npt.NDArray[np.int32],
        seq_lens: npt.NDArray[np.int32],
        logits_rows: npt.NDArray[np.int32],
        out: npt.NDArray[np.float32],
        token_types: npt.NDArray[np.int32] | None = None,
    ) -> None:
        """One step up to its head with the GIL released; writes [len(logits_rows), hidden_size]."""

    def start_profile(self) -> None:
        """Time every phase from now on; forget earlier times."""

    def stop_profile(self) -> None: ...
    def profile(self) -> list[tuple[str, int, float, float, float, int, int]]:
        """Per phase: label, calls, work_s, wait_s, cpu_s, weight_bytes, num_weights.

        Times are those of the calling thread: in the phase, at the barrier behind it, and of
        the former what it had a CPU for.
        """

    @property
    def first_phase_s(self) -> float:
        """When the latest profiled step's first phase began, on the clock of time.monotonic()."""

    @property
    def kernels(self) -> str: ...
    @property
    def num_threads(self) -> int: ...
    @property
    def threads(self) -> ThreadPool: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def cache_bytes(self) -> int: ...
    @property
    def buffer_bytes(self) -> int: ...

class Stage(enum.Enum):
    """A stage of the sampler; see quintet.sampling.SamplingParams.sampler_order."""

    PENALTIES = 0
    DRY = 1
    TOP_N_SIGMA = 2
    TEMPERATURE = 3
    TOP_K = 4
    TYPICAL_P = 5
    TOP_P = 6
    MIN_P = 7
    XTC = 8

class TokenSequences:
    """Token sequences to look for; made once, shared by many samplers."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None: ...

class DryParams:
    """What the DRY penalty acts on; as made, it is off."""

    multiplier: float
    base: float
    allowed_length: int
    last_n: int
    breakers: TokenSequences | None
    def __init__(self) -> None: ...

class RowParams:
    """What a sampler acts on; as made, it only draws."""

    temperature: float
    dynatemp_range: float
    dynatemp_exponent: float
    top_n_sigma: float
    top_k: int
    typical_p: float
    top_p: float
    min_p: float
    xtc_probability: float
    xtc_threshold: float
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_last_n: int
    logit_bias: Sequence[tuple[int, float]]
    min_tokens: int
    ending_ids: Sequence[int]
    num_logprobs: int
    order: Sequence[Stage]
    dry: DryParams
    def __init__(self) -> None: ...

class RowSampler:
    """One sequence's sampler; quintet.sampling.RowSampler is its public form."""

    def __init__(
        self, params: RowParams, *, vocab_size: int, prompt_ids: Sequence[int], seed: int
    ) -> None: ...
    def accept(self, token_id: int) -> None: ...
    def distribution(
        self, logits: npt.NDArray[np.float32], mask: npt.NDArray[np.uint32] | None = None
    ) -> list[tuple[int, float]]: ...
    @property
    def num_accepted(self) -> int: ...

def sample(
    logits: npt.NDArray[np.float32],
    samplers: tuple[RowSampler, ...],
    masks: tuple[npt.NDArray[np.uint32] | None, ...] = (),
    threads: ThreadPool | None = None,
) -> list[tuple[int, float | None, tuple[tuple[int, float], ...] | None]]: ...
def score(
    logits: npt.NDArray[np.float32],
    *,
    vocab_size: int,
    token_ids: Sequence[int],
    num_top: int,
    threads: ThreadPool | None = None,
) -> list[tuple[float, tuple[tuple[int, float], ...]] | None]: ...
