// The one public header of the kernels: each operation once, with its contract.
//
// Every kernel works on a range of the output that the caller names, so that threads share nothing; none allocates,
// throws or touches Python.  Pointers do not alias unless a contract says so.  Rows of float data are 64-byte
// aligned; other alignments are as stated.
//
// Same bits whatever the batch: a row's result is a function of that row, the weights and (for attention) its own
// KV tokens only.  It does not depend on num_rows, on the row's index, on the range split between threads, or on
// which rows share a register tile.  Each output is one chain of float operations in ascending k.  Between
// instruction sets the integer parts are equal and the float chains are the same operations in the same order, except
// kBF16 products, whose hardware instructions round in their own ways.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layouts.h"

namespace quintet {

struct PackedMatrix {
  Layout layout;
  int n;                // output columns, before padding
  int k;                // input columns
  const uint8_t* data;  // num_panels(n) * panel_bytes(layout, k) bytes, 64-byte aligned
};

// Memory that the caller will read later.  Kernels that wait for arithmetic rather than memory ask for some of it now
// and then, and bring `at` forward; others leave it.
struct Ahead {
  const std::byte* at;      // what is next, up to `end`
  const std::byte* end;     // whole lines of 64 bytes
  bool (*next)(Ahead& it);  // at the end: sets the range that follows; false where there is none
};

// The activations of num_rows tokens, in whichever forms the step's matrices read; absent forms are null.
struct Rows {
  int num_rows;
  int width;              // k; a multiple of 32 when q8 is present
  const float* f32;       // [num_rows][width]
  const uint16_t* bf16;   // [num_rows][width rounded up to even]; an odd tail is zero
  const int8_t* q8;       // [num_rows][width], never -128
  const float* q8_scale;  // [num_rows][width / 32]
  const int32_t* q8_sum;  // [num_rows][width / 32]; sum of q8 over the group
  Ahead* ahead = nullptr;
};

// Where make_rows writes; any pointer may be null, then that form is not made.  Shapes as in Rows.
struct RowsOut {
  float* f32;
  uint16_t* bf16;
  int8_t* q8;
  float* q8_scale;
  int32_t* q8_sum;
};

inline constexpr int kBlockTokens = 16;     // tokens per KV block
inline constexpr int kSegmentTokens = 512;  // tokens per softmax segment of attention
inline constexpr int kUnlimited = INT32_MAX;

// A q8 group whose largest magnitude is below this counts as zero: 1 / scale would overflow.
inline constexpr float kSmallestGroup = 0x1p-100f;

inline constexpr int kRunBlocks = 16;

enum class KVType : uint8_t { kF32 = 0, kBF16 = 1, kInt8 = 2 };

// One layer's paged KV cache.  A head's kRunBlocks consecutive blocks lie side by side, a stream to read; behind them
// those of the next head, and `run_stride` bytes on, the next run of the first.  So a run of all layers can share its
// pages: a token of a fresh cache touches one run, not a huge page per layer and head.  head_dim is even and at most
// 256.
//   kBF16  K block bf16 [head_dim / 2][16 tokens][2];   V block bf16 [8 token pairs][head_dim][2]
//   kF32   K block float [head_dim][16 tokens];         V block float [16 tokens][head_dim]
//   kInt8  K block int8 [head_dim / 4][16 tokens][4];   V block int8 [4 fours of tokens][head_dim][4]; either, padded
//   as
//          if head_dim were a multiple of four, is followed by float scale[16 tokens].  A value is int8 * scale.
// A slot that a query does not see changes no bit of its result: it may hold anything, NaN included, so blocks are
// reused as they are.
struct KVCache {
  KVType type;
  size_t run_stride;
  int num_kv_heads;
  int head_dim;
  void* k;
  void* v;
};

// One sequence's share of a step, for attention.
struct SequenceView {
  const int32_t* block_table;  // [ceil(seq_len / 16)]
  int query_begin;             // first row of the step that belongs to it
  int num_queries;             // new tokens: rows query_begin .. query_begin + num_queries - 1
  int seq_len;                 // tokens including the new ones; query i stands at seq_len - num_queries + i
};

struct AttentionArgs {
  const float* q;  // [num_rows][q_stride]; head h of a row is at q + h * head_dim
  size_t q_stride;
  float* out;  // [num_rows][out_stride], head h at out + h * head_dim
  size_t out_stride;
  int num_heads;  // a multiple of cache.num_kv_heads (GQA)
  float scale;    // multiplies scores before softmax
  // A query at position i sees the tokens i - left .. i + right of its sequence: by default all up to itself (causal).
  int left = kUnlimited;
  int right = 0;
  float softcap = 0;             // scores become softcap * tanh(score / softcap); 0: they stay
  const float* sinks = nullptr;  // [num_heads]: a score that each query has beside its tokens', of no value; null: none
};

struct RopeArgs {
  int head_dim;
  int rotary_dim;    // even, <= head_dim; the rest of a head passes through
  bool interleaved;  // pairs (2i, 2i+1) instead of (i, i + rotary_dim / 2)
  const float* cos;  // [rotary_dim / 2], for this row's position
  const float* sin;  // [rotary_dim / 2]
};

struct KernelTable {
  const char* name;  // "reference", "avx2", "avx512", "amx", "neon"

  // y[r][j] = sum_k x[r][k] * w[j][k] for r in [row_begin, row_end), panels in [panel_begin, panel_end).
  // Writes whole panels: columns 16 * panel_begin .. 16 * panel_end - 1, so y's rows have ldy >= 16 * num_panels(n)
  // floats.  Indexed by Layout.  Reads the activation form of that layout; x.width is w.k.
  //
  // One chain of fused steps per output, from 0, in ascending order:
  //   kF32, kF16   sum = fma(x[k], w[k], sum)
  //   kBF16        the same, with products that are exact in float; avx512 takes VDPBF16PS, two k per step; amx takes
  //                TDPBF16PS: of each 32 k the even and the odd ones in chains of their own, from 0, whose sum is added
  //   codes        per group, with dot = the exact integer sum of (code - zero point) * q8:
  //     kW8, kW4, kW5, kW4n, kW4x, kW4e
  //                                sum = fma(float(dot), s * q8_scale, sum)
  //     kW4m, kW5m, kW4k, kW5k     the same, then sum = fma(-m, float(q8_sum) * q8_scale, sum)
  //     kW6k, kW3k, kW4t, kW3t     the same for the dot and s of the first half, then of the second
  //     kW2k, dot = the exact sum of s code q8, min_sum = that of m q8, over both halves
  //                                sum = fma(fma(-e, float(min_sum), d * float(dot)), q8_scale, sum)
  //   where, but in kW2k, s and m are with the scales of scales multiplied in, which is exact, as are products with
  //   scales that make_rows gives.
  //
  // A call walks its panels, and all its rows within each: it reads a panel from memory once and x once per panel or
  // two.  So
  // x should fit the second-level cache: at most 256 rows of 1024, fewer of wider rows, per call.
  void (*linear[kNumLayouts])(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin,
                              int panel_end, float* y, size_t ldy);

  // out[i] = w[row][i] as float, i in [0, k): one output column of a packed matrix, for embeddings.
  void (*unpack_row)(const PackedMatrix& w, int row, float* out);

  // x [rows][width] into the forms asked for; bf16 rounds to nearest even and keeps NaN.  q8: per group of 32, scale =
  // max|x| / 127 rounded up to four significant bits (q8_scale.h), q = round-to-nearest-even of x / scale (as
  // x * (1 / scale)); a group below kSmallestGroup is zero with scale 0, one with a NaN or an infinity is zero with
  // scale NaN.  The row functions from here to write_kv have
  // the same bits in every table and no alignment beyond that of float.
  void (*make_rows)(const float* x, size_t ldx, int num_rows, int width, const RowsOut& out);

  // y[i] = x[i] * rsqrt(mean(x^2) + eps) * weight[i], one row; the sum of squares has a fixed order (16 lane sums,
  // then a fixed tree).  x and y may be the same.
  void (*rms_norm)(const float* x, const float* weight, int width, float eps, float* y);

  // y[i] += x[i].
  void (*add)(const float* x, int width, float* y);

  // y[i] = gate[i] / (1 + exp(-gate[i])) * up[i], one row; exp is that of exp.h.  y may be gate or up.
  void (*silu_mul)(const float* gate, const float* up, int width, float* y);

  // y[i] = (x[i] - mean) * rsqrt(mean((x - mean)^2) + eps) * weight[i] + bias[i], one row; both sums have the order of
  // rms_norm.  bias may be null, x and y the same.  Source: Ba et al. 2016, arXiv:1607.06450.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, int width, float eps, float* y);

  // y[i] = gelu(x[i]) * up[i], or gelu(x[i]) where up is null; gelu(x) = x * Phi(x), within 5e-7 of max(1, |x|).  y may
  // be x or up.  Source: Hendrycks and Gimpel 2016, arXiv:1606.08415; erf by Abramowitz and Stegun 1964, 7.1.26.
  void (*gelu)(const float* x, const float* up, int width, float* y);

  // y[i] = tanh(x[i]) = 1 - 2 / (exp(2 x[i]) + 1).  y may be x.
  void (*tanh)(const float* x, int width, float* y);

  // As gelu with the approximation 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
  void (*gelu_tanh)(const float* x, const float* up, int width, float* y);

  // y[i] = g / (1 + exp(-1.702 g)) * (u + 1), with g = min(gate[i], limit) and u = up[i] within -limit .. limit.  y may
  // be gate or up.  Source: the gpt-oss model card, arXiv:2508.10925, section 2.2.
  void (*swiglu_clamped)(const float* gate, const float* up, float limit, int width, float* y);

  // y[i] = x[i] * factor.  y may be x.
  void (*scale)(const float* x, float factor, int width, float* y);

  // y[i] = fma(x[i], factor, y[i]).
  void (*add_scaled)(const float* x, float factor, int width, float* y);

  // y[i] = cap * tanh(x[i] / cap), tanh as above.  y may be x.  Source: Gemma 2, arXiv:2408.00118, section 2.
  void (*softcap)(const float* x, float cap, int width, float* y);

  // Rotates num_heads heads of one row in place.  Source: Su et al. 2021, arXiv:2104.09864.
  void (*rope)(float* x, int num_heads, const RopeArgs& args);

  // Stores one token's k and v rows ([num_kv_heads][head_dim] float) into `slot` = block * 16 + offset.  kInt8 rounds
  // a head as make_rows rounds a group.
  void (*write_kv)(const KVCache& cache, int64_t slot, const float* k, const float* v);

  // Attention of the queries [query_begin, query_end) (relative to the sequence's first new token) of one
  // sequence for the heads of one KV head, which share each read of it.  K and V of all tokens the queries see are
  // written before.  scratch: attention_scratch_bytes(...) bytes, 64-byte aligned, private to the caller, not
  // initialised; its size does not depend on the queries.  Of the shape, only multiples of 16 are fast head_dims.
  //
  // Per query and head, for the n tokens up to the last it sees, in float unless said (kBF16 rounds q and p to bf16);
  // where `left` hides the first of them, their scores count as -infinity, and their v as 0 times it:
  //   1. Segments are cut at absolute multiples of kSegmentTokens.  In each, ascending:
  //      score[t] = scale * (chain of fma over head_dim, from 0);  m = max score;  p[t] = exp(score[t] - m)
  //      sum = tree of 16 lane sums of p, lane = t % 16;  o[d] = chain of fma(p[t], v[t][d]) over its tokens, from 0
  //   2. The first segment is the state (m, sum, o); each other is merged into it in ascending order, even where one
  //      thread does all: m' = max, x' = fma(x_segment, exp(m_segment - m'), x * exp(m - m')) for sum and o.
  //   3. out = o * (1 / sum); with sinks 1 / (sum + exp(sink - m)) instead.
  // A softcap is applied to scores as they stand, before `left` hides any.
  // On kInt8, q and the weights p[t] * scale of v[t] are rounded to 16 bits as make_rows rounds to 8, q over a head,
  // the weights over those a segment gives a query; both chains are then exact sums of integers:
  //      score[t] = float(dot) * (scale * scale of q) * scale of k[t];  o[d] = float(dot) * scale of the weights
  // On kBF16, avx512 takes its chains by VDPBF16PS, two k per step, amx by TDPBF16PS, 32 per step; a last step has
  // zeros where its tokens end.  kF32 and kInt8 have the same bits in every table, kBF16 in all but avx512 and amx.
  //
  // A NaN or +infinite score makes the output of its query and head NaN; -infinity counts as p = 0, and gives NaN only
  // where there is nothing else.
  // Source: Milakov and Gimelshein 2018, arXiv:1805.02867 (online softmax); Kwon et al. 2023, arXiv:2309.06180,
  // section 4.1 (paged KV).
  void (*attention)(const KVCache& cache, const AttentionArgs& args, const SequenceView& seq, int kv_head,
                    int query_begin, int query_end, void* scratch);
  size_t (*attention_scratch_bytes)(int head_dim, int heads_per_kv_head);
};

// The scalar definition; always built.
const KernelTable& reference_kernels();

// The fastest table this CPU can run, or the one QUINTET_KERNELS names ("reference", "avx2", "avx512",
// "amx", "neon").  Decided once.  Null when QUINTET_KERNELS names a table that is unknown or that this CPU cannot run.
const KernelTable* active_kernels();

// Tables this CPU can run, slowest first; returns how many (at most max_tables).
int available_kernels(const KernelTable** tables, int max_tables);

// What weights are packed from: plain floats, or GGUF's blocks of these types.
enum class SourceType : uint8_t {
  kF32 = 0,
  kF16 = 1,
  kBF16 = 2,
  kQ8_0 = 3,
  kQ4_0 = 4,
  kQ5_0 = 5,
  kQ4_1 = 6,
  kQ5_1 = 7,
  kQ4_K = 8,
  kQ5_K = 9,
  kQ6_K = 10,
  kQ3_K = 11,
  kQ2_K = 12,
  kIQ4_NL = 13,
  kIQ4_XS = 14,
  kMXFP4 = 15,
  // Not GGUF's: blocks of whole numbers from a table, see gguf_blocks.h.
  kTable4 = 16,
  kTable3 = 17,
};

// Bytes of a row of k elements; 0 when k is not a positive multiple of the type's block.
size_t source_row_bytes(SourceType type, int k);

// Packs a matrix [n, k] of a source type into a layout.  `panel_begin` .. `panel_end` bounds what is written, so that
// threads can share one matrix.  The source holds all n rows, at any alignment; `packed` is the start of the whole
// matrix.  Each type packs into the layout that is exact for it (see layouts.h); kF32 also into kF16 and kBF16 (to
// nearest even) and into kW8 and kW4 (quantised by GGUF's rules for Q8_0 and Q4_0).  Returns false, having written
// nothing, for any other combination, for k that is not a multiple of k_multiple(layout) or of the type's block, and
// for layouts with halves with k above kMaxHalvesK.
bool pack_panels(SourceType source_type, const uint8_t* source, int n, int k, Layout layout, int panel_begin,
                 int panel_end, uint8_t* packed);

}  // namespace quintet
