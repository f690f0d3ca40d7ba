// Matrix kernels of integer codes for AVX2, which has no dot product: VPMADDUBSW takes unsigned times signed bytes and
// saturates the sum of two products at 16 bits, VPMADDWD adds those in pairs to 32.  Nothing here saturates.
#include "tiles.h"

namespace quintet::avx2 {
namespace {

// Half a panel's codes of a group, unpacked to eight registers of bytes: unit j for k = 4j .. 4j+3.
template <Layout LAYOUT>
[[gnu::always_inline]] inline void unpack(const uint8_t* group, size_t half, __m256i (&codes)[8]) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  const uint8_t* p = group + half * 32;
  if constexpr (kLayout.code_bytes == 512) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = load_bytes(p + j * 64);
  } else if constexpr (kLayout.code_bytes == 256) {
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i both = load_bytes(p + j * 64);
      codes[j] = _mm256_and_si256(both, low);
      codes[j + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    }
  } else {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      codes[j] = _mm256_and_si256(_mm256_srli_epi16(load_bytes(p + j / 4 * 64), j % 4 * 2), _mm256_set1_epi8(3));
    }
  }
  // Shifts move whole 16-bit lanes; the mask drops what came from the neighbouring byte.
  if constexpr (kLayout.bit_bytes == 64) {
    constexpr int kTo = kLayout.code_bits();
    const __m256i bits = load_bytes(p + kLayout.code_bytes);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m256i moved = j < kTo ? _mm256_slli_epi16(bits, kTo - j) : _mm256_srli_epi16(bits, j - kTo);
      codes[j] = _mm256_or_si256(codes[j], _mm256_and_si256(moved, _mm256_set1_epi8(1 << kTo)));
    }
  }
  if constexpr (kLayout.bit_bytes == 128) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m256i bits = load_bytes(p + kLayout.code_bytes + j / 4 * 64);
      const int from = j % 4 * 2;
      const __m256i moved = from < 4 ? _mm256_slli_epi16(bits, 4 - from) : _mm256_srli_epi16(bits, from - 4);
      codes[j] = _mm256_or_si256(codes[j], _mm256_and_si256(moved, _mm256_set1_epi8(48)));
    }
  }
}

// Exact dot products of unsigned codes with one row.  Two products of a code c and 127 are 254 c: eight such sums of 15
// are 30480, four of 31 are 31496, two of 45 are 22860.
template <int MAX_CODE>
[[gnu::always_inline]] inline __m256i dot_unsigned(const __m256i (&codes)[8], const int8_t* q) {
  constexpr int kTerms = MAX_CODE <= 15 ? 8 : MAX_CODE <= 31 ? 4 : 2;
  static_assert(2 * MAX_CODE * 127 * kTerms <= 32767);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 2
  for (int begin = 0; begin < 8; begin += kTerms) {
    __m256i sum16 = _mm256_maddubs_epi16(codes[begin], broadcast4(q + begin * 4));
#pragma GCC unroll 8
    for (int j = begin + 1; j < begin + kTerms; ++j) {
      sum16 = _mm256_add_epi16(sum16, _mm256_maddubs_epi16(codes[j], broadcast4(q + j * 4)));
    }
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(sum16, ones));
  }
  return sum;
}

// Exact dot products of some units of signed weights with one row, as |w| times x with w's sign.  |w| may be 128, x may
// not be -128: two products are at most 2 * 128 * 127 = 32512.  (|x| times w with x's sign would leave -128 negative.)
template <int MAX_MAGNITUDE, int BEGIN, int END>
[[gnu::always_inline]] inline __m256i dot_signed(const __m256i (&w)[8], const int8_t* q) {
  constexpr int kTerms = MAX_MAGNITUDE <= 32 ? 4 : 1;
  static_assert(2 * MAX_MAGNITUDE * 127 * kTerms <= 32767);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int begin = BEGIN; begin < END; begin += kTerms) {
    __m256i sum16 = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int j = begin; j < begin + kTerms; ++j) {
      const __m256i signed_x = _mm256_sign_epi8(broadcast4(q + j * 4), w[j]);
      sum16 = _mm256_add_epi16(sum16, _mm256_maddubs_epi16(_mm256_abs_epi8(w[j]), signed_x));
    }
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(sum16, ones));
  }
  return sum;
}

[[gnu::always_inline]] inline __m256 to_floats(__m256i x) { return _mm256_cvtepi32_ps(x); }

// One row's part in one group.
struct Q8Group {
  const int8_t* q;
  float scale;
  int32_t sum;
};

// Eight bytes of half a panel.
[[gnu::always_inline]] inline __m128i load_half(const uint8_t* p, size_t half) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + half * 8));
}

// 2^(e - 128): e - 1 is the exponent field, but of the smallest two, which are denormals.
[[gnu::always_inline]] inline __m256 to_scales(__m256i e) {
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}

// s (code - zero point), from what scales half a panel of a group at p; the block is where its header is.
template <Layout LAYOUT>
struct Symmetric {
  static constexpr const int8_t* kValues = code_values(LAYOUT);
  static constexpr bool kSigned = zero_point(LAYOUT) == 128;  // weights, not codes, are what is multiplied
  __m256 scale;
  [[gnu::always_inline]] static __m256 load(const uint8_t* block, const uint8_t* p, size_t half) {
    if constexpr (LAYOUT == Layout::kW4x) {
      return _mm256_mul_ps(load_halves(block + half * 16), to_floats(_mm256_cvtepi8_epi32(load_half(p, half))));
    }
    if constexpr (LAYOUT == Layout::kW4e) return to_scales(_mm256_cvtepu8_epi32(load_half(p, half)));
    return load_halves(p + half * 16);
  }
  [[gnu::always_inline]] Symmetric(const uint8_t* block, const uint8_t* p, size_t half) : scale(load(block, p, half)) {}
  [[gnu::always_inline]] void prepare(__m256i (&codes)[8]) const {
    if constexpr (kValues != nullptr) {
      const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kValues));
      const __m128i above = _mm_add_epi8(values, _mm_set1_epi8(kSigned ? 0 : zero_point(LAYOUT)));
      const __m256i table = _mm256_broadcastsi128_si256(above);
#pragma GCC unroll 8
      for (auto& c : codes) c = _mm256_shuffle_epi8(table, c);
    }
    if constexpr (LAYOUT == Layout::kW8) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) codes[j] = _mm256_xor_si256(codes[j], _mm256_set1_epi8(static_cast<char>(0x80)));
    }
  }
  [[gnu::always_inline]] __m256 add_group(const __m256i (&codes)[8], const Q8Group& x, __m256 sum) const {
    __m256i dot;
    if constexpr (kSigned) {
      dot = dot_signed<128, 0, 8>(codes, x.q);
    } else {
      constexpr int kMaxCode = LAYOUT == Layout::kW4 ? 15 : 31;
      dot = _mm256_sub_epi32(dot_unsigned<kMaxCode>(codes, x.q), _mm256_set1_epi32(zero_point(LAYOUT) * x.sum));
    }
    return _mm256_fmadd_ps(to_floats(dot), _mm256_mul_ps(scale, _mm256_set1_ps(x.scale)), sum);
  }
};

// s code - m.
template <Layout LAYOUT>
struct WithMin {
  static constexpr bool kBytes = LAYOUT == Layout::kW4k || LAYOUT == Layout::kW5k;
  static constexpr int kMaxCode = code_layout(LAYOUT).bit_bytes == 0 ? 15 : 31;
  __m256 scale;
  __m256 min;
  [[gnu::always_inline]] static __m256 load(const uint8_t* header, const uint8_t* p, size_t half) {
    if constexpr (!kBytes) return load_halves(p + half * 16);
    return _mm256_mul_ps(load_halves(header + half * 16), to_floats(_mm256_cvtepu8_epi32(load_half(p, half))));
  }
  [[gnu::always_inline]] WithMin(const uint8_t* block, const uint8_t* p, size_t half)
      : scale(load(block, p, half)), min(load(block + 32, p + (kBytes ? 16 : 32), half)) {}
  [[gnu::always_inline]] void prepare(__m256i (&)[8]) const {}
  [[gnu::always_inline]] __m256 add_group(const __m256i (&codes)[8], const Q8Group& x, __m256 sum) const {
    const __m256 q_sum = _mm256_set1_ps(static_cast<float>(x.sum));
    const __m256 part =
        _mm256_fnmadd_ps(min, q_sum, _mm256_mul_ps(scale, to_floats(dot_unsigned<kMaxCode>(codes, x.q))));
    return _mm256_fmadd_ps(part, _mm256_set1_ps(x.scale), sum);
  }
};

// s (code - zero point) with a scale per 16 k.
template <Layout LAYOUT>
struct TwoScales {
  __m256 first;
  __m256 second;
  [[gnu::always_inline]] static __m256 load(const uint8_t* header, const uint8_t* p, size_t half) {
    return _mm256_mul_ps(load_halves(header + half * 16), to_floats(_mm256_cvtepi8_epi32(load_half(p, half))));
  }
  [[gnu::always_inline]] TwoScales(const uint8_t* block, const uint8_t* p, size_t half)
      : first(load(block, p, half)), second(load(block, p + 16, half)) {}
  [[gnu::always_inline]] void prepare(__m256i (&codes)[8]) const {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm256_sub_epi8(codes[j], _mm256_set1_epi8(zero_point(LAYOUT)));
  }
  [[gnu::always_inline]] __m256 add_group(const __m256i (&w)[8], const Q8Group& x, __m256 sum) const {
    const __m256 low = to_floats(dot_signed<32, 0, 4>(w, x.q));
    const __m256 high = to_floats(dot_signed<32, 4, 8>(w, x.q));
    const __m256 part = _mm256_fmadd_ps(second, high, _mm256_mul_ps(first, low));
    return _mm256_fmadd_ps(part, _mm256_set1_ps(x.scale), sum);
  }
};

// d s code - e m with s and m per 16 k.  Codes of two bits times s of four still fit a byte, so that both halves are
// one integer sum, and one step sums both minima.
struct ScaledCodes {
  __m256 d;
  __m256 e;
  __m256i both;  // per column the bytes of the two halves, s and m, as 16 bits each
  [[gnu::always_inline]] ScaledCodes(const uint8_t* block, const uint8_t* p, size_t half)
      : d(load_halves(block + half * 16)),
        e(load_halves(block + 32 + half * 16)),
        both(_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + half * 16)))) {}

  // A product of 16 bits multiplies two codes at once: neither exceeds its byte.
  [[gnu::always_inline]] void prepare(__m256i (&codes)[8]) const {
    const __m256i s = _mm256_and_si256(both, _mm256_set1_epi16(15));
    const __m256i first = _mm256_blend_epi16(s, _mm256_slli_epi32(s, 16), 0xaa);
    const __m256i second = _mm256_blend_epi16(_mm256_srli_epi32(s, 16), s, 0xaa);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm256_mullo_epi16(codes[j], j < 4 ? first : second);
  }

  // Per column the sums of the two halves of a row's group, as 16 bits each.
  [[gnu::always_inline]] static __m256i half_sums(const int8_t* q) {
    const __m256i q32 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
    const __m256i fours = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q32), _mm256_set1_epi16(1));
    const __m256i twos = _mm256_add_epi32(fours, _mm256_shuffle_epi32(fours, 0x4e));
    const __m256i sums = _mm256_add_epi32(twos, _mm256_shuffle_epi32(twos, 0xb1));
    const __m256i first = _mm256_permute2x128_si256(sums, sums, 0x00);
    const __m256i second = _mm256_permute2x128_si256(sums, sums, 0x11);
    return _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
  }

  [[gnu::always_inline]] __m256 add_group(const __m256i (&codes)[8], const Q8Group& x, __m256 sum) const {
    const __m256 mins = to_floats(_mm256_madd_epi16(_mm256_srli_epi16(both, 4), half_sums(x.q)));
    const __m256 part = _mm256_fnmadd_ps(e, mins, _mm256_mul_ps(d, to_floats(dot_unsigned<45>(codes, x.q))));
    return _mm256_fmadd_ps(part, _mm256_set1_ps(x.scale), sum);
  }
};

// Eight columns at a time: their unpacked codes fill half the registers.
template <Layout LAYOUT, typename Scales>
struct CodesTile {
  static constexpr CodeLayout kLayout = code_layout(LAYOUT);
  static constexpr int kMaxRows = 4;
  static size_t panel_bytes(size_t k) { return k / kLayout.block_k() * kLayout.block_bytes(); }

  template <int ROWS>
  [[gnu::always_inline]] static void half_panel(const TileArgs& t, size_t half) {
    const size_t width = static_cast<size_t>(t.x.width);
    const size_t groups = width / kGroup;
    const int8_t* q = t.x.q8 + static_cast<size_t>(t.row) * width;
    const float* q_scale = t.x.q8_scale + static_cast<size_t>(t.row) * groups;
    const int32_t* q_sum = t.x.q8_sum + static_cast<size_t>(t.row) * groups;
    const uint8_t* block = t.panel;
    __m256 sum[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) sum[r] = _mm256_setzero_ps();
    for (size_t g = 0; g < groups; block += kLayout.block_bytes()) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, ++g, group += kLayout.group_bytes(), q += kGroup) {
        for (size_t at = 0; half == 0 && at < kLayout.group_bytes(); at += 64) prefetch(group + at);
        __m256i codes[8];
        unpack<LAYOUT>(group, half, codes);
        const Scales scales(block, group + kLayout.scale_offset(), half);
        scales.prepare(codes);
#pragma GCC unroll 4
        for (size_t r = 0; r < ROWS; ++r) {
          sum[r] = scales.add_group(codes, {q + r * width, q_scale[r * groups + g], q_sum[r * groups + g]}, sum[r]);
        }
      }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) _mm256_storeu_ps(t.y + r * t.ldy + half * kHalfColumns, sum[r]);
  }

  template <int ROWS>
  static void run(const TileArgs& t) {
    half_panel<ROWS>(t, 0);
    half_panel<ROWS>(t, 1);
  }
};

}  // namespace

void linear_w8(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<Layout::kW8, Symmetric<Layout::kW8>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4, Symmetric<Layout::kW4>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
               float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5, Symmetric<Layout::kW5>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4m(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4m, WithMin<Layout::kW4m>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5m(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5m, WithMin<Layout::kW5m>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4k, WithMin<Layout::kW4k>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5k, WithMin<Layout::kW5k>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w6k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW6k, TwoScales<Layout::kW6k>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w3k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW3k, TwoScales<Layout::kW3k>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w2k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW2k, ScaledCodes>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4n(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4n, Symmetric<Layout::kW4n>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4x(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4x, Symmetric<Layout::kW4x>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4e(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4e, Symmetric<Layout::kW4e>>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

}  // namespace quintet::avx2
