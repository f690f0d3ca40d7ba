// The inner loops of attention: register tiles of scores and values, and softmax of one row.
//
// They are written over an instruction set and KV type, given as a class Dot:
//   Lanes                        16 float lanes (<isa>/lanes.h)
//   Element                      type of a rounded q or p in scratch
//   kStep                        consecutive k (head dimensions or tokens) one multiply_add takes: 1, 2 for bf16, 4 for
//   int8 Operand                      kStep values of k for each of 16 lanes; 64 bytes in a cache block, for every type
//   Scalar                       kStep values of q or p, for all lanes
//   kMaxRows, max_vectors(rows)  largest register tile: rows x vectors of 16 lanes
//   load, load_first, broadcast, multiply_add, store
//   multiply_add_first           if kStep is 2: of the two only the first
//   kQuantized                   see attention_int8.h
#pragma once

#include <cstddef>
#include <limits>

#include "../kernels.h"
#include "../kv_block.h"
#include "exp.h"
#include "sixteen.h"

namespace quintet::lanes {

inline constexpr int kMaxHeadDim = 256;
inline constexpr int kOperandBytes = 64;
inline constexpr int kPrefetchBlocks = 4;
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Row strides in scratch are odd numbers of cache lines, so that the rows of a tile do not meet in one cache set.
inline constexpr int kQueryStride = kMaxHeadDim + 32;     // Elements
inline constexpr int kScoreStride = kSegmentTokens + 16;  // floats; p takes its scores' place, as Elements
inline constexpr int kValueStride = kMaxHeadDim + 16;     // floats

// acc[r][c] += sum over steps of a[r] * b[c].  Step s of b[c] is at b[c] + s * b_stride; prefetched is the same of what
// will be read later, next[c].  kTail: only the first `tail` lanes exist.
template <class Dot, int R, int C, bool kTail = false>
[[gnu::always_inline]] inline void accumulate(typename Dot::Lanes::F (&acc)[R][C], const typename Dot::Element* a,
                                              int a_stride, const std::byte* const (&b)[C],
                                              const std::byte* const (&next)[C], int b_stride, int steps,
                                              int tail = 0) {
  for (int s = 0; s < steps; ++s) {
    const ptrdiff_t offset = static_cast<ptrdiff_t>(s) * b_stride;
    typename Dot::Operand operand[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      if constexpr (kTail) {
        operand[c] = Dot::load_first(b[c] + offset, tail);
      } else {
        operand[c] = Dot::load(b[c] + offset);
      }
      __builtin_prefetch(next[c] + offset, 0, 2);  // to L2: more lines may be on their way than to L1
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto scalar = Dot::broadcast(a + r * a_stride + s * Dot::kStep);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) acc[r][c] = Dot::multiply_add(scalar, operand[c], acc[r][c]);
    }
  }
}

template <class Dot, int R, int C>
void score_tile(const typename Dot::Element* q, const std::byte* const* blocks, const std::byte* const* next_blocks,
                int head_dim, const float* factors, float* scores) {
  using Lanes = typename Dot::Lanes;
  typename Lanes::F acc[R][C];
  const std::byte* b[C];
  const std::byte* next[C];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) {
    b[c] = blocks[c];
    next[c] = next_blocks[c];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r][c] = Lanes::zero();
  }
  accumulate<Dot, R, C>(acc, q, kQueryStride, b, next, kOperandBytes, (head_dim + Dot::kStep - 1) / Dot::kStep);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const auto factor = Lanes::set1(factors[r]);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      float* to = scores + r * kScoreStride + c * kBlockTokens;
      if constexpr (Dot::kQuantized) {
        const auto* scales = reinterpret_cast<const float*>(blocks[c] + kv_scale_offset(head_dim));
        Lanes::store(to, Lanes::mul(Lanes::mul(Dot::to_float(acc[r][c]), factor), Lanes::load(scales)));
      } else {
        Lanes::store(to, Lanes::mul(acc[r][c], factor));
      }
    }
  }
}

// Turns the scores of the n tokens a row sees into p = exp(score - largest), zero up to a multiple of 16.
template <class Dot>
void softmax_row(float* scores, int n, float& largest, float& sum) {
  using Lanes = typename Dot::Lanes;
  const int full = n / 16 * 16;
  const int rest = n - full;
  auto maxima = Lanes::set1(kMinusInfinity);
  for (int i = 0; i < full; i += 16) maxima = Lanes::max(Lanes::load(scores + i), maxima);
  if (rest > 0) {
    const auto last = Lanes::select(Lanes::first(rest), Lanes::load(scores + full), Lanes::set1(kMinusInfinity));
    maxima = Lanes::max(last, maxima);
  }
  largest = Lanes::largest(maxima);
  const auto base = Lanes::set1(largest == kMinusInfinity ? 0.0f : largest);
  auto* p = reinterpret_cast<typename Dot::Element*>(scores);
  auto sums = Lanes::zero();
  for (int i = 0; i < full; i += 16) {
    sums = Lanes::add(sums, Dot::store(p + i, exp<Lanes>(Lanes::sub(Lanes::load(scores + i), base))));
  }
  if (rest > 0) {
    const auto last = exp<Lanes>(Lanes::sub(Lanes::load(scores + full), base));
    sums = Lanes::add(sums, Dot::store(p + full, Lanes::select(Lanes::first(rest), last, Lanes::zero())));
  }
  sum = Lanes::sum(sums);
}

// values[r][c] += p * v over steps [begin, end) of the segment, for C vectors of columns from `column` on.
template <class Dot, int R, int C, bool kTail>
void value_tile(const typename Dot::Element* p, const std::byte* const* blocks, int begin, int end, int head_dim,
                int column, float* values) {
  using Lanes = typename Dot::Lanes;
  constexpr int kBlockSteps = kBlockTokens / Dot::kStep;
  constexpr int kProbabilityStride = kScoreStride * static_cast<int>(sizeof(float) / sizeof(typename Dot::Element));
  const int b_stride = head_dim * 4;  // bytes of one step, for every type
  typename Lanes::F acc[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) acc[r][c] = Lanes::load(values + r * kValueStride + column + c * 16);
  }
  while (begin < end) {
    const int block = begin / kBlockSteps;
    const int stop = (block + 1) * kBlockSteps < end ? (block + 1) * kBlockSteps : end;
    const ptrdiff_t offset = static_cast<ptrdiff_t>(begin % kBlockSteps) * b_stride + column * 4;
    const std::byte* b[C];
    const std::byte* next[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      b[c] = blocks[block] + offset + c * kOperandBytes;
      next[c] = blocks[block + kPrefetchBlocks] + offset + c * kOperandBytes;
    }
    accumulate<Dot, R, C, kTail>(acc, p + begin * Dot::kStep, kProbabilityStride, b, next, b_stride, stop - begin,
                                 head_dim - column);
    begin = stop;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) Lanes::store(values + r * kValueStride + column + c * 16, acc[r][c]);
  }
}

// A row's last token where it is the first of its step: the other's v must not count, not even as a zero times it.
// p: the step's pair; v: its operands, all head dimensions.
template <class Dot>
void value_last_token(const typename Dot::Element* p, const std::byte* v, int head_dim, float* values) {
  using Lanes = typename Dot::Lanes;
  const auto scalar = Dot::broadcast(p);
  for_each_sixteen(head_dim, [&](int d, int n) {
    const auto operand = n == 16 ? Dot::load(v + d * 4) : Dot::load_first(v + d * 4, n);
    Lanes::store(values + d, Dot::multiply_add_first(scalar, operand, Lanes::load(values + d)));
  });
}

}  // namespace quintet::lanes
