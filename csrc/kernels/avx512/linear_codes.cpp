// Matrix kernels of integer codes for AVX-512 with VNNI.
//
// Weights are the unsigned operand of the dot product and stay in registers, activations are {1to16} memory operands.
// Rows go in pairs and reordering overlaps the pairs: on Zen 5 pairs reach 74 % of the dot product's peak, fours 67 %,
// eights (which spill) 58 %.
#include "tiles.h"

namespace quintet::avx512 {
namespace {

// sum[lane] += dot(codes[4 * lane ..], x[0 .. 3]), exact.  gcc 12 would load x into a register of its own first: half
// as many instructions again.  Sanitizers cannot see into the assembly, so they get the intrinsic.
[[gnu::always_inline]] inline __m512i dot4(__m512i sum, __m512i codes, const int8_t* x) {
#ifdef __SANITIZE_ADDRESS__
  return _mm512_dpbusd_epi32(sum, codes, broadcast4(x));
#else
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(*reinterpret_cast<const char (*)[4]>(x)));
  return sum;
#endif
}

constexpr size_t kMaxGroups = kMaxHalvesK / kGroup;

// The sums of each half of a group, for layouts whose scales change there.
struct HalfSums {
  static constexpr int kMaxRows = 12;
  static constexpr int kPanelsPerUse = 16;  // their cost is a twentieth of these panels'
  HalfSums(const Rows& x, int row, int rows) {
    const size_t width = static_cast<size_t>(x.width);
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      const int8_t* q = x.q8 + (static_cast<size_t>(row) + r) * width;
      for (size_t g = 0; g < width / kGroup; ++g) {
        const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + g * kGroup));
        __m128i sum = _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1), half);
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
        const int32_t first = _mm_cvtsi128_si32(sum);
        halves[r][g][0] = static_cast<int16_t>(first);
        halves[r][g][1] = static_cast<int16_t>(x.q8_sum[(static_cast<size_t>(row) + r) * (width / kGroup) + g] - first);
      }
    }
  }
  int16_t halves[kMaxRows][kMaxGroups + 16][2];  // a line more, or all rows would share one set of the cache
};

// The q8 form of some rows, from one group on.  The compiler would keep a pointer per row and array, and spill them;
// `hide` leaves it a pointer per array and two strides.
template <typename Prepared>
struct Q8Rows {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  size_t width;   // elements between rows of q
  size_t groups;  // elements between rows of scale and of sum
  const Prepared& prepared;
  size_t row;  // of the tile
  size_t group;

  [[gnu::always_inline]] void hide() { __asm__("" : "+r"(q), "+r"(scale), "+r"(sum)); }
  [[gnu::always_inline]] void next_rows(size_t rows) {
    q += rows * width;
    scale += rows * groups;
    sum += rows * groups;
    row += rows;
  }
  [[gnu::always_inline]] void next_group() {
    q += kGroup;
    ++scale;
    ++sum;
    ++group;
  }
};

// Codes of a group, unpacked to eight registers of unsigned bytes: unit j for k = 4j .. 4j+3.
template <Layout LAYOUT>
[[gnu::always_inline]] inline void unpack(const uint8_t* group, __m512i (&codes)[8]) {
  constexpr CodeLayout kLayout = code_layout(LAYOUT);
  if constexpr (kLayout.code_bytes == 512) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm512_loadu_si512(group + j * 64);
  } else if constexpr (kLayout.code_bytes == 256) {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i both = _mm512_loadu_si512(group + j * 64);
      codes[j] = _mm512_and_si512(both, low);
      codes[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
  } else {
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      const __m512i four = _mm512_loadu_si512(group + j / 4 * 64);
      codes[j] = _mm512_and_si512(_mm512_srli_epi16(four, j % 4 * 2), _mm512_set1_epi8(3));
    }
  }
  // Shifts move whole 16-bit lanes; the mask drops what came from the neighbouring byte.  0xf8: a | (b & c).
  if constexpr (kLayout.bit_bytes == 64) {
    constexpr unsigned kTo = kLayout.code_bits();
    const __m512i mask = _mm512_set1_epi8(1 << kTo);
    const __m512i bits = _mm512_loadu_si512(group + kLayout.code_bytes);
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      const __m512i moved = j < kTo ? _mm512_slli_epi16(bits, kTo - j) : _mm512_srli_epi16(bits, j - kTo);
      codes[j] = _mm512_ternarylogic_epi32(codes[j], moved, mask, 0xf8);
    }
  }
  if constexpr (kLayout.bit_bytes == 128) {
    const __m512i mask = _mm512_set1_epi8(48);
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      const __m512i bits = _mm512_loadu_si512(group + kLayout.code_bytes + j / 4 * 64);
      const unsigned from = j % 4 * 2;
      const __m512i moved = from < 4 ? _mm512_slli_epi16(bits, 4 - from) : _mm512_srli_epi16(bits, from - 4);
      codes[j] = _mm512_ternarylogic_epi32(codes[j], moved, mask, 0xf8);
    }
  }
}

[[gnu::always_inline]] inline __m512 load_bytes(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

[[gnu::always_inline]] inline __m512 load_signed_bytes(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

// 2^(e - 128): e - 1 is the exponent field, but of the smallest two, which are denormals.
[[gnu::always_inline]] inline __m512 load_exponents(const uint8_t* p) {
  const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
  const __mmask16 tiny = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
  return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, tiny, _mm512_set1_epi32(0x00200000), e));
}

// Codes that are looked up become what they stand for, above the zero point.
template <Layout LAYOUT>
[[gnu::always_inline]] inline void look_up(__m512i (&codes)[8]) {
  constexpr const int8_t* kValues = code_values(LAYOUT);
  if constexpr (kValues != nullptr) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kValues));
    const __m128i above = _mm_add_epi8(values, _mm_set1_epi8(static_cast<char>(zero_point(LAYOUT))));
    const __m512i table = _mm512_broadcast_i32x4(above);
#pragma GCC unroll 8
    for (auto& c : codes) c = _mm512_shuffle_epi8(table, c);
  }
}

// s (code - zero point): the zero point is where the integer sum starts.
template <Layout LAYOUT>
struct Symmetric {
  static constexpr int kMaxRows = 16;
  static constexpr int kZeroPoint = zero_point(LAYOUT);
  using Prepared = NothingPrepared;
  __m512 scale;
  [[gnu::always_inline]] static __m512 load(const uint8_t* block, const uint8_t* p) {
    if constexpr (LAYOUT == Layout::kW4x) return _mm512_mul_ps(load_halves(block), load_signed_bytes(p));
    if constexpr (LAYOUT == Layout::kW4e) return load_exponents(p);
    return load_halves(p);
  }
  [[gnu::always_inline]] Symmetric(const uint8_t* block, const uint8_t* p) : scale(load(block, p)) {}
  [[gnu::always_inline]] void prepare(__m512i (&codes)[8]) const { look_up<LAYOUT>(codes); }

  template <int ROWS>
  [[gnu::always_inline]] void add_group(const __m512i (&codes)[8], const Q8Rows<Prepared>& x, __m512* sum) const {
    __m512i dot[ROWS];
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) dot[r] = _mm512_set1_epi32(-kZeroPoint * x.sum[r * x.groups]);
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; ++j) {
#pragma GCC unroll 2
      for (size_t r = 0; r < ROWS; ++r) dot[r] = dot4(dot[r], codes[j], x.q + r * x.width + j * 4);
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) {
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x.scale[r * x.groups]));
      sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r]), both, sum[r]);
    }
  }
};

// s code - m.
struct WithMin {
  static constexpr int kMaxRows = 16;
  using Prepared = NothingPrepared;
  __m512 scale;
  __m512 min;
  [[gnu::always_inline]] void prepare(__m512i (&)[8]) const {}

  template <int ROWS>
  [[gnu::always_inline]] void add_group(const __m512i (&codes)[8], const Q8Rows<Prepared>& x, __m512* sum) const {
    __m512i dot[ROWS];
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) dot[r] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; ++j) {
#pragma GCC unroll 2
      for (size_t r = 0; r < ROWS; ++r) dot[r] = dot4(dot[r], codes[j], x.q + r * x.width + j * 4);
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) {
      const __m512 q_sum = _mm512_set1_ps(static_cast<float>(x.sum[r * x.groups]));
      const __m512 part = _mm512_fnmadd_ps(min, q_sum, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dot[r])));
      sum[r] = _mm512_fmadd_ps(part, _mm512_set1_ps(x.scale[r * x.groups]), sum[r]);
    }
  }
};

struct HalfWithMin : WithMin {
  [[gnu::always_inline]] HalfWithMin(const uint8_t*, const uint8_t* p) : WithMin{load_halves(p), load_halves(p + 32)} {}
};

struct ByteWithMin : WithMin {
  [[gnu::always_inline]] ByteWithMin(const uint8_t* block, const uint8_t* p)
      : WithMin{_mm512_mul_ps(load_halves(block), load_bytes(p)),
                _mm512_mul_ps(load_halves(block + 32), load_bytes(p + 16))} {}
};

// s (code - zero point) with a scale per 16 k: two integer sums.
template <Layout LAYOUT>
struct TwoScales {
  static constexpr int kMaxRows = HalfSums::kMaxRows;  // sixteen would spill
  using Prepared = HalfSums;
  static constexpr int kZeroPoint = zero_point(LAYOUT);
  __m512 first;
  __m512 second;
  [[gnu::always_inline]] TwoScales(const uint8_t* block, const uint8_t* p)
      : first(_mm512_mul_ps(load_halves(block), load_signed_bytes(p))),
        second(_mm512_mul_ps(load_halves(block), load_signed_bytes(p + 16))) {}
  [[gnu::always_inline]] void prepare(__m512i (&)[8]) const {}

  template <int ROWS>
  [[gnu::always_inline]] void add_group(const __m512i (&codes)[8], const Q8Rows<Prepared>& x, __m512* sum) const {
    __m512i low[ROWS];
    __m512i high[ROWS];
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) {
      const int16_t (&sums)[2] = x.prepared.halves[x.row + r][x.group];
      low[r] = _mm512_set1_epi32(-kZeroPoint * sums[0]);
      high[r] = _mm512_set1_epi32(-kZeroPoint * sums[1]);
    }
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
#pragma GCC unroll 2
      for (size_t r = 0; r < ROWS; ++r) {
        low[r] = dot4(low[r], codes[j], x.q + r * x.width + j * 4);
        high[r] = dot4(high[r], codes[j + 4], x.q + r * x.width + 16 + j * 4);
      }
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) {
      const __m512 part =
          _mm512_fmadd_ps(second, _mm512_cvtepi32_ps(high[r]), _mm512_mul_ps(first, _mm512_cvtepi32_ps(low[r])));
      sum[r] = _mm512_fmadd_ps(part, _mm512_set1_ps(x.scale[r * x.groups]), sum[r]);
    }
  }
};

// d s code - e m with s and m per 16 k.  Codes of two bits times s of four still fit a byte, so that both halves are
// one integer sum, and one step sums both minima.
struct ScaledCodes {
  static constexpr int kMaxRows = HalfSums::kMaxRows;
  using Prepared = HalfSums;
  __m512 d;
  __m512 e;
  __m512i both;  // per column the bytes of the two halves, s and m, as 16 bits each
  [[gnu::always_inline]] ScaledCodes(const uint8_t* block, const uint8_t* p)
      : d(load_halves(block)),
        e(load_halves(block + 32)),
        both(_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))) {}

  // A product of 16 bits multiplies two codes at once: neither exceeds its byte.
  [[gnu::always_inline]] void prepare(__m512i (&codes)[8]) const {
    const __m512i s = _mm512_and_si512(both, _mm512_set1_epi16(15));
    const __m512i first = _mm512_or_si512(_mm512_slli_epi32(s, 16), _mm512_and_si512(s, _mm512_set1_epi32(15)));
    const __m512i second = _mm512_or_si512(_mm512_srli_epi32(s, 16), _mm512_andnot_si512(_mm512_set1_epi32(15), s));
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm512_mullo_epi16(codes[j], j < 4 ? first : second);
  }

  template <int ROWS>
  [[gnu::always_inline]] void add_group(const __m512i (&codes)[8], const Q8Rows<Prepared>& x, __m512* sum) const {
    __m512i dot[ROWS];
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) dot[r] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; ++j) {
#pragma GCC unroll 2
      for (size_t r = 0; r < ROWS; ++r) dot[r] = dot4(dot[r], codes[j], x.q + r * x.width + j * 4);
    }
    const __m512i m = _mm512_srli_epi16(both, 4);
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) {
      const __m512i mins = _mm512_madd_epi16(m, broadcast4(x.prepared.halves[x.row + r][x.group]));
      const __m512 scaled = _mm512_mul_ps(d, _mm512_cvtepi32_ps(dot[r]));
      const __m512 part = _mm512_fnmadd_ps(e, _mm512_cvtepi32_ps(mins), scaled);
      sum[r] = _mm512_fmadd_ps(part, _mm512_set1_ps(x.scale[r * x.groups]), sum[r]);
    }
  }
};

// One group of k for ROWS rows, two by two.
template <int ROWS, typename Scales>
[[gnu::always_inline]] inline void add_group(const __m512i (&codes)[8], const Scales& scales,
                                             Q8Rows<typename Scales::Prepared> x, __m512* sum) {
  x.hide();
  scales.template add_group<(ROWS >= 2 ? 2 : 1)>(codes, x, sum);
  if constexpr (ROWS > 2) {
    x.next_rows(2);
    add_group<ROWS - 2>(codes, scales, x, sum + 2);
  }
}

// Registers: 8 codes, ROWS sums, 2 integer sums and 1 scale, or 4 and 2.
template <Layout LAYOUT, typename Scales>
struct CodesTile {
  static constexpr CodeLayout kLayout = code_layout(LAYOUT);
  static constexpr int kMaxRows = Scales::kMaxRows;
  static constexpr int kPanels = 1;
  using Prepared = typename Scales::Prepared;
  static size_t panel_bytes(size_t k) { return k / kLayout.block_k() * kLayout.block_bytes(); }

  template <int ROWS, int PANELS>
  static void run(const TileArgs& t, const Prepared& prepared) {
    static_assert(PANELS == 1);
    const size_t width = static_cast<size_t>(t.x.width);
    const size_t groups = width / kGroup;
    const size_t row = static_cast<size_t>(t.row);
    Q8Rows<Prepared> x{
        t.x.q8 + row * width, t.x.q8_scale + row * groups, t.x.q8_sum + row * groups, width, groups, prepared, 0, 0};
    const uint8_t* block = t.panel;

    __m512 sum[ROWS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) sum[r] = _mm512_setzero_ps();

    for (size_t g = 0; g < groups; g += kLayout.groups_per_block, block += kLayout.block_bytes()) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, group += kLayout.group_bytes(), x.next_group()) {
        prefetch<kLayout.group_bytes()>(group);
        __m512i codes[8];
        unpack<LAYOUT>(group, codes);
        const Scales scales(block, group + kLayout.scale_offset());
        scales.prepare(codes);
        add_group<ROWS>(codes, scales, x, sum);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) _mm512_storeu_ps(t.y + static_cast<size_t>(r) * t.ldy, sum[r]);
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
  linear<CodesTile<Layout::kW4m, HalfWithMin>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5m(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5m, HalfWithMin>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w4k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW4k, ByteWithMin>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
}

void linear_w5k(const PackedMatrix& w, const Rows& x, int row_begin, int row_end, int panel_begin, int panel_end,
                float* y, size_t ldy) {
  linear<CodesTile<Layout::kW5k, ByteWithMin>>(w, x, row_begin, row_end, panel_begin, panel_end, y, ldy);
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

}  // namespace quintet::avx512
