// Attention's dot products by FMLA, of int8 by SDOT; bf16 pairs are widened to float, the first of a pair before the
// second.
#include "../lanes/attention.h"

#include <algorithm>

#include "../impl.h"
#include "../lanes/write_kv.h"
#include "lanes.h"

namespace quintet::neon {
namespace {

// 4 x 1 vectors of 16 lanes are 16 registers of accumulators, bf16 operands 8 more, of 32.  Two vectors of one row are
// eight chains: enough for two FMLA a cycle at a latency of four.
constexpr int kRegisterRows = 4;
constexpr int vectors_for(int rows) { return rows == 1 ? 2 : 1; }

[[gnu::always_inline]] inline Lanes::F multiply_add_all(float a, Lanes::F b, Lanes::F acc) {
  return {vfmaq_n_f32(acc.a, b.a, a), vfmaq_n_f32(acc.b, b.b, a), vfmaq_n_f32(acc.c, b.c, a),
          vfmaq_n_f32(acc.d, b.d, a)};
}

struct DotF32 {
  using Lanes = neon::Lanes;
  using Element = float;
  using Operand = Lanes::F;
  using Scalar = float;
  static constexpr int kStep = 1;
  static constexpr bool kQuantized = false;
  static constexpr int kMaxRows = kRegisterRows;
  static constexpr int max_vectors(int rows) { return vectors_for(rows); }

  QUINTET_INLINE Operand load(const std::byte* p) { return Lanes::load(reinterpret_cast<const float*>(p)); }
  QUINTET_INLINE Operand load_first(const std::byte* p, int n) {
    return Lanes::load_first(reinterpret_cast<const float*>(p), n);
  }
  QUINTET_INLINE Scalar broadcast(const float* p) { return *p; }
  QUINTET_INLINE Lanes::F multiply_add(Scalar a, Operand b, Lanes::F acc) { return multiply_add_all(a, b, acc); }
  QUINTET_INLINE Lanes::F store(float* p, Lanes::F x) {
    Lanes::store(p, x);
    return x;
  }
};

struct DotBF16 {
  using Lanes = neon::Lanes;
  using Element = float;  // already rounded to bf16
  struct Operand {
    Lanes::F first, second;
  };
  struct Scalar {
    float first, second;
  };
  static constexpr int kStep = 2;
  static constexpr bool kQuantized = false;
  static constexpr int kMaxRows = kRegisterRows;
  static constexpr int max_vectors(int rows) { return vectors_for(rows); }

  QUINTET_INLINE Operand load(const std::byte* p) { return widen(Lanes::load(reinterpret_cast<const float*>(p))); }
  QUINTET_INLINE Operand load_first(const std::byte* p, int n) {
    return widen(Lanes::load_first(reinterpret_cast<const float*>(p), n));
  }
  QUINTET_INLINE Scalar broadcast(const float* p) { return {p[0], p[1]}; }
  QUINTET_INLINE Lanes::F multiply_add_first(const Scalar& a, const Operand& b, Lanes::F acc) {
    return multiply_add_all(a.first, b.first, acc);
  }
  QUINTET_INLINE Lanes::F multiply_add(const Scalar& a, const Operand& b, Lanes::F acc) {
    return multiply_add_all(a.second, b.second, multiply_add_first(a, b, acc));
  }
  QUINTET_INLINE Lanes::F store(float* p, Lanes::F x) {
    const Lanes::F rounded = Lanes::round_bf16(x);
    Lanes::store(p, rounded);
    return rounded;
  }

 private:
  QUINTET_INLINE Operand widen(Lanes::F pairs) {
    return {{first(pairs.a), first(pairs.b), first(pairs.c), first(pairs.d)},
            {second(pairs.a), second(pairs.b), second(pairs.c), second(pairs.d)}};
  }
  QUINTET_INLINE float32x4_t first(float32x4_t x) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), 16));
  }
  QUINTET_INLINE float32x4_t second(float32x4_t x) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0xffff0000u)));
  }
};

// A 16-bit q or weight is 256 high + low + 128 with two signed bytes, so with b a dot product of bytes
//   sum q b = 256 sum high b + sum low b + 128 sum b.
// Sums wrap at 32 bits and so are exact where the whole is: 512 tokens of 127 * 32767 fit.
struct DotInt8 {
  using Lanes = neon::Lanes;
  using Element = int16_t;  // of each four, the four high bytes, then the four low ones
  struct Operand {
    int8x16_t a, b, c, d;
    int32x4_t a_sum, b_sum, c_sum, d_sum;  // 128 sum b
  };
  using Scalar = int8x8_t;
  static constexpr int kStep = 4;
  static constexpr bool kQuantized = true;
  static constexpr int kMaxRows = kRegisterRows;
  static constexpr int max_vectors(int rows) { return vectors_for(rows); }

  QUINTET_INLINE Operand load(const std::byte* p) { return with_sums(Lanes::load(reinterpret_cast<const float*>(p))); }
  QUINTET_INLINE Operand load_first(const std::byte* p, int n) {
    return with_sums(Lanes::load_first(reinterpret_cast<const float*>(p), n));
  }
  QUINTET_INLINE Scalar broadcast(const int16_t* p) { return vreinterpret_s8_s16(vld1_s16(p)); }
  QUINTET_INLINE Lanes::F multiply_add(Scalar q, const Operand& b, Lanes::F acc) {
    return {multiply_add(q, b.a, b.a_sum, acc.a), multiply_add(q, b.b, b.b_sum, acc.b),
            multiply_add(q, b.c, b.c_sum, acc.c), multiply_add(q, b.d, b.d_sum, acc.d)};
  }
  QUINTET_INLINE Lanes::F to_float(Lanes::F sum) {
    return {vcvtq_f32_s32(vreinterpretq_s32_f32(sum.a)), vcvtq_f32_s32(vreinterpretq_s32_f32(sum.b)),
            vcvtq_f32_s32(vreinterpretq_s32_f32(sum.c)), vcvtq_f32_s32(vreinterpretq_s32_f32(sum.d))};
  }
  QUINTET_INLINE void store(int16_t* p, Lanes::F x) {
    store_eight(p, Lanes::round_shorts(x.a, x.b));
    store_eight(p + 8, Lanes::round_shorts(x.c, x.d));
  }

 private:
  QUINTET_INLINE Operand with_sums(Lanes::F x) {
    const int8x16_t a = vreinterpretq_s8_f32(x.a);
    const int8x16_t b = vreinterpretq_s8_f32(x.b);
    const int8x16_t c = vreinterpretq_s8_f32(x.c);
    const int8x16_t d = vreinterpretq_s8_f32(x.d);
    return {a, b, c, d, times_128(a), times_128(b), times_128(c), times_128(d)};
  }
  QUINTET_INLINE int32x4_t times_128(int8x16_t b) {
    return vshlq_n_s32(vdotq_s32(vdupq_n_s32(0), b, vdupq_n_s8(1)), 7);
  }
  QUINTET_INLINE float32x4_t multiply_add(Scalar q, int8x16_t b, int32x4_t b_sum, float32x4_t acc) {
    const int32x4_t high = vdotq_lane_s32(vdupq_n_s32(0), b, q, 0);
    const int32x4_t low = vdotq_lane_s32(vaddq_s32(vreinterpretq_s32_f32(acc), b_sum), b, q, 1);
    return vreinterpretq_f32_s32(vmlaq_n_s32(low, high, 256));
  }
  QUINTET_INLINE void store_eight(int16_t* p, int16x8_t x) {
    const int32x2_t high = vreinterpret_s32_s8(vshrn_n_s16(x, 8));
    const int32x2_t low = vreinterpret_s32_s8(veor_s8(vmovn_s16(x), vdup_n_s8(-128)));
    const int32x2x2_t fours = vzip_s32(high, low);
    vst1q_s16(p, vreinterpretq_s16_s32(vcombine_s32(fours.val[0], fours.val[1])));
  }
};

}  // namespace

void write_kv(const KVCache& cache, int64_t slot, const float* k, const float* v) {
  lanes::write_kv<Lanes>(cache, slot, k, v);
}

void attention(const KVCache& cache, const AttentionArgs& args, const SequenceView& seq, int kv_head, int query_begin,
               int query_end, void* scratch) {
  const auto run = cache.type == KVType::kInt8   ? lanes::attention<DotInt8>
                   : cache.type == KVType::kBF16 ? lanes::attention<DotBF16>
                                                 : lanes::attention<DotF32>;
  run(cache, args, seq, kv_head, query_begin, query_end, scratch);
}

size_t attention_scratch_bytes(int, int) {
  return std::max({sizeof(lanes::Scratch<DotF32>), sizeof(lanes::Scratch<DotBF16>), sizeof(lanes::Scratch<DotInt8>)});
}

}  // namespace quintet::neon
