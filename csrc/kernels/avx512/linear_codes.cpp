// Matrix kernels of integer codes for AVX-512 with VNNI.
//
// Weights are the unsigned operand of the dot product and stay in registers while rows pass.  In cache on Zen 5, of the
// dot product's peak at 8, 16 and 256 rows: kW4 74, 76 and 77 %, kW8 73, 75 and 75 %, kW4k 65, 67 and 67 %, kW6k 58, 63
// and 64 %.  Scaling takes the same units: 80 % is the bound of kW4 and kW8, 73 % that of kW4k and kW6k.
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

// The sums of the first 16 of each group, for layouts whose scales change there.
struct HalfSums {
  static constexpr int kMaxRows = 24;      // 100 kB
  static constexpr int kPanelsPerUse = 8;  // of two; their cost is small beside that of these
  HalfSums(const Rows& x, int row, int rows) {
    const size_t width = static_cast<size_t>(x.width);
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      const int8_t* q = x.q8 + (static_cast<size_t>(row) + r) * width;
      // Two groups at a time, of which k has an even number: absolute differences sum what is made unsigned.
      for (size_t g = 0; g < width / kGroup; g += 2) {
        const __m512i both = _mm512_xor_si512(_mm512_loadu_si512(q + g * kGroup), _mm512_set1_epi8(-128));
        __m512i sum = _mm512_sad_epu8(both, _mm512_setzero_si512());
        sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_BADC));
        first[r][g] = static_cast<int16_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sum)) - 128 * 16);
        first[r][g + 1] = static_cast<int16_t>(_mm_cvtsi128_si32(_mm512_extracti32x4_epi32(sum, 2)) - 128 * 16);
      }
    }
  }
  int16_t first[kMaxRows][kMaxGroups + 32];  // a line more, or all rows would share one set of the cache
};

// The q8 form of one row, from one group on.
template <typename Prepared>
struct Q8Row {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  size_t width;   // elements between rows of q
  size_t groups;  // elements between rows of scale and of sum
  const Prepared& prepared;
  size_t row;  // of the tile
  size_t group;

  [[gnu::always_inline]] void next_row() {
    q += width;
    scale += groups;
    sum += groups;
    ++row;
  }
  [[gnu::always_inline]] void next_group() {
    q += kGroup;
    ++scale;
    ++sum;
    ++group;
  }
};

// A load of its own: loads are scarce, and the compiler would repeat one as the operand of each shift.
[[gnu::always_inline]] inline __m512i load_once(const uint8_t* p) {
  __m512i value = _mm512_loadu_si512(p);
  __asm__("" : "+v"(value));
  return value;
}

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
      const __m512i both = load_once(group + j * 64);
      codes[j] = _mm512_and_si512(both, low);
      codes[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
  } else {
    const __m512i fours[2] = {load_once(group), load_once(group + 64)};
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      codes[j] = _mm512_and_si512(_mm512_srli_epi16(fours[j / 4], j % 4 * 2), _mm512_set1_epi8(3));
    }
  }
  // Shifts move whole 16-bit lanes; the mask drops what came from the neighbouring byte.  0xf8: a | (b & c).
  if constexpr (kLayout.bit_bytes == 64) {
    constexpr unsigned kTo = kLayout.code_bits();
    const __m512i mask = _mm512_set1_epi8(1 << kTo);
    const __m512i bits = load_once(group + kLayout.code_bytes);
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      const __m512i moved = j < kTo ? _mm512_slli_epi16(bits, kTo - j) : _mm512_srli_epi16(bits, j - kTo);
      codes[j] = _mm512_ternarylogic_epi32(codes[j], moved, mask, 0xf8);
    }
  }
  if constexpr (kLayout.bit_bytes == 128) {
    const __m512i mask = _mm512_set1_epi8(48);
    const __m512i both[2] = {load_once(group + kLayout.code_bytes), load_once(group + kLayout.code_bytes + 64)};
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; ++j) {
      const __m512i bits = both[j / 4];
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

// The integer sums of one row and group: k = 0 .. 15 and 16 .. 31.  Two, because a chain of eight dot products takes
// too long to end: what waits for it fills the scheduler.
struct Dots {
  __m512i first;
  __m512i second;
  [[gnu::always_inline]] __m512 total() const { return _mm512_cvtepi32_ps(_mm512_add_epi32(first, second)); }
};

// s (code - zero point): the zero point is where the integer sum starts.
template <Layout LAYOUT>
struct Symmetric {
  static constexpr int kMaxRows = 32;
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

  [[gnu::always_inline]] static Dots start(const Q8Row<Prepared>& x) {
    return {_mm512_set1_epi32(-kZeroPoint * *x.sum), _mm512_setzero_si512()};
  }
  [[gnu::always_inline]] __m512 add(const Dots& dots, const Q8Row<Prepared>& x, __m512 sum) const {
    return _mm512_fmadd_ps(dots.total(), _mm512_mul_ps(scale, _mm512_set1_ps(*x.scale)), sum);
  }
};

// s code - m.
struct WithMin {
  static constexpr int kMaxRows = 32;
  using Prepared = NothingPrepared;
  __m512 scale;
  __m512 min;
  [[gnu::always_inline]] void prepare(__m512i (&)[8]) const {}

  [[gnu::always_inline]] static Dots start(const Q8Row<Prepared>&) {
    return {_mm512_setzero_si512(), _mm512_setzero_si512()};
  }
  [[gnu::always_inline]] __m512 add(const Dots& dots, const Q8Row<Prepared>& x, __m512 sum) const {
    const __m512 q_sum = _mm512_cvtepi32_ps(broadcast4(x.sum));
    const __m512 part = _mm512_fnmadd_ps(min, q_sum, _mm512_mul_ps(scale, dots.total()));
    return _mm512_fmadd_ps(part, _mm512_set1_ps(*x.scale), sum);
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

// s (code - zero point) with a scale per 16 k.
template <Layout LAYOUT>
struct TwoScales {
  static constexpr int kMaxRows = HalfSums::kMaxRows;
  using Prepared = HalfSums;
  static constexpr int kZeroPoint = zero_point(LAYOUT);
  __m512 first;
  __m512 second;
  [[gnu::always_inline]] TwoScales(const uint8_t* block, const uint8_t* p)
      : first(_mm512_mul_ps(load_halves(block), load_signed_bytes(p))),
        second(_mm512_mul_ps(load_halves(block), load_signed_bytes(p + 16))) {}
  [[gnu::always_inline]] void prepare(__m512i (&)[8]) const {}

  [[gnu::always_inline]] static Dots start(const Q8Row<Prepared>& x) {
    const int32_t first_sum = x.prepared.first[x.row][x.group];
    return {_mm512_set1_epi32(-kZeroPoint * first_sum), _mm512_set1_epi32(-kZeroPoint * (*x.sum - first_sum))};
  }
  [[gnu::always_inline]] __m512 add(const Dots& dots, const Q8Row<Prepared>& x, __m512 sum) const {
    const __m512 part =
        _mm512_fmadd_ps(second, _mm512_cvtepi32_ps(dots.second), _mm512_mul_ps(first, _mm512_cvtepi32_ps(dots.first)));
    return _mm512_fmadd_ps(part, _mm512_set1_ps(*x.scale), sum);
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

  [[gnu::always_inline]] static Dots start(const Q8Row<Prepared>&) {
    return {_mm512_setzero_si512(), _mm512_setzero_si512()};
  }
  [[gnu::always_inline]] __m512 add(const Dots& dots, const Q8Row<Prepared>& x, __m512 sum) const {
    const int16_t first = x.prepared.first[x.row][x.group];
    const int16_t halves[2] = {first, static_cast<int16_t>(*x.sum - first)};
    const __m512i mins = _mm512_madd_epi16(_mm512_srli_epi16(both, 4), broadcast4(halves));
    const __m512 part = _mm512_fnmadd_ps(e, _mm512_cvtepi32_ps(mins), _mm512_mul_ps(d, dots.total()));
    return _mm512_fmadd_ps(part, _mm512_set1_ps(*x.scale), sum);
  }
};

// A few rows wait for memory: one panel after the other, two rows at a time, sums in registers.  Registers: 8 codes,
// ROWS sums, 4 integer sums, 1 or 2 scales.
//
// More rows take two panels at once, which share each load of x: on Zen 5 two loads a cycle are as scarce as two dot
// products a cycle.  Their sums lie in memory and rows are a loop, which ends a row's integer sums after those of the
// next row have begun.  Registers: 16 codes, 8 integer sums, 2 or 4 scales, 1 or 2 activations.
template <Layout LAYOUT, typename Scales>
struct CodesTile {
  static constexpr CodeLayout kLayout = code_layout(LAYOUT);
  static constexpr int kMaxRows = Scales::kMaxRows;
  static constexpr int kPanels = 2;
  static constexpr int kFewRows = kLayout.group_bytes() > 384 ? 6 : 3;  // from memory; two streams are slower there
  static constexpr size_t kFarBytes = kPrefetchBytes * 3 / 2;  // many rows: 8 of kW8 from memory gain a seventh by it
  using Prepared = typename Scales::Prepared;
  using X = Q8Row<Prepared>;
  static size_t panel_bytes(size_t k) { return k / kLayout.block_k() * kLayout.block_bytes(); }

  template <int ROWS, int PANELS>
  static void run(const TileArgs& t, const Prepared& prepared) {
    if constexpr (ROWS <= kFewRows) {
      for (size_t p = 0; p < PANELS; ++p) few_rows<ROWS>(t, prepared, p);
    } else {
      many_rows(t, prepared, ROWS, std::make_index_sequence<PANELS>());
    }
  }

 private:
  static X first_row(const TileArgs& t, const Prepared& prepared) {
    const size_t width = static_cast<size_t>(t.x.width);
    const size_t groups = width / kGroup;
    const size_t row = static_cast<size_t>(t.row);
    return {
        t.x.q8 + row * width, t.x.q8_scale + row * groups, t.x.q8_sum + row * groups, width, groups, prepared, 0, 0};
  }

  template <int ROWS>
  static void few_rows(const TileArgs& t, const Prepared& prepared, size_t p) {
    X x = first_row(t, prepared);
    const uint8_t* block = t.panel + p * t.panel_stride;
    __m512 sum[ROWS];
#pragma GCC unroll 6
    for (auto& s : sum) s = _mm512_setzero_ps();

    while (x.group < x.groups) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, group += kLayout.group_bytes(), x.next_group()) {
        prefetch<kLayout.group_bytes()>(group);
        __m512i codes[8];
        unpack<LAYOUT>(group, codes);
        const Scales scales(block, group + kLayout.scale_offset());
        scales.prepare(codes);
        add_few<ROWS>(codes, scales, x, sum);
      }
      block += kLayout.block_bytes();
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) _mm512_storeu_ps(t.y + r * t.ldy + p * kPanelColumns, sum[r]);
  }

  // Two by two.
  template <int ROWS>
  [[gnu::always_inline]] static void add_few(const __m512i (&codes)[8], const Scales& scales, X x, __m512* sum) {
    constexpr size_t kNow = ROWS < 2 ? ROWS : 2;
    X rows[2] = {x, x};
    rows[1].next_row();
    Dots dots[kNow];
#pragma GCC unroll 2
    for (size_t r = 0; r < kNow; ++r) dots[r] = Scales::start(rows[r]);
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
#pragma GCC unroll 2
      for (size_t r = 0; r < kNow; ++r) {
        dots[r].first = dot4(dots[r].first, codes[j], rows[r].q + j * 4);
        dots[r].second = dot4(dots[r].second, codes[j + 4], rows[r].q + 16 + j * 4);
      }
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < kNow; ++r) sum[r] = scales.add(dots[r], rows[r], sum[r]);
    if constexpr (ROWS > 2) {
      rows[1].next_row();
      add_few<ROWS - 2>(codes, scales, rows[1], sum + 2);
    }
  }

  template <size_t... P>
  static void many_rows(const TileArgs& t, const Prepared& prepared, size_t rows, std::index_sequence<P...>) {
    constexpr size_t kPanelsHere = sizeof...(P);
    X x = first_row(t, prepared);
    const uint8_t* block = t.panel;
    alignas(64) float sums[kMaxRows][kPanelsHere][kPanelColumns];
    std::memset(sums, 0, rows * sizeof sums[0]);

    while (x.group < x.groups) {
      const uint8_t* group = block + kLayout.header_bytes;
#pragma GCC unroll 1
      for (int i = 0; i < kLayout.groups_per_block; ++i, group += kLayout.group_bytes(), x.next_group()) {
        __m512i codes[kPanelsHere][8];
        // What follows a panel's end is the other panel's begin, already read; the next pass is at the end of both.
        const bool inside = group + kFarBytes < t.panel + t.panel_stride;
        const size_t ahead = inside ? kFarBytes : kFarBytes + (kPanelsHere - 1) * t.panel_stride;
        (prefetch<kLayout.group_bytes()>(group + P * t.panel_stride, ahead), ...);
        (unpack<LAYOUT>(group + P * t.panel_stride, codes[P]), ...);
        const Scales scales[] = {
            Scales(block + P * t.panel_stride, group + P * t.panel_stride + kLayout.scale_offset())...};
        (scales[P].prepare(codes[P]), ...);

        X row = x;
        Dots dots[kPanelsHere];
        dot_rows(codes, row, dots);
        float* out = sums[0][0];
#pragma GCC unroll 1
        for (size_t r = 1; r < rows; ++r) {
          X next_row = row;
          next_row.next_row();
          Dots next[kPanelsHere];
          dot_rows(codes, next_row, next);
          (keep_order(dots[P], next[P]), ...);
          add_row(scales, dots, row, out);
          ((dots[P] = next[P]), ...);
          row.next_row();
          out += kPanelsHere * kPanelColumns;
        }
        add_row(scales, dots, row, out);
      }
      block += kLayout.block_bytes();
    }
    for (size_t r = 0; r < rows; ++r) {
      (_mm512_storeu_ps(t.y + r * t.ldy + P * kPanelColumns, _mm512_load_ps(sums[r][P])), ...);
    }
  }

  // Without it the compiler would move one row's end before the next row's dot products.
  [[gnu::always_inline]] static void keep_order(Dots& a, Dots& b) {
    __asm__("" : "+v"(a.first), "+v"(a.second), "+v"(b.first), "+v"(b.second));
  }

  template <size_t PANELS>
  [[gnu::always_inline]] static void dot_rows(const __m512i (&codes)[PANELS][8], const X& row, Dots (&dots)[PANELS]) {
    const Dots start = Scales::start(row);
#pragma GCC unroll 2
    for (auto& d : dots) d = start;
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      const __m512i first = broadcast4(row.q + j * 4);
      const __m512i second = broadcast4(row.q + 16 + j * 4);
#pragma GCC unroll 2
      for (size_t p = 0; p < PANELS; ++p) {
        dots[p].first = _mm512_dpbusd_epi32(dots[p].first, codes[p][j], first);
        dots[p].second = _mm512_dpbusd_epi32(dots[p].second, codes[p][j + 4], second);
      }
    }
  }

  template <size_t PANELS>
  [[gnu::always_inline]] static void add_row(const Scales (&scales)[PANELS], const Dots (&dots)[PANELS], const X& row,
                                             float* out) {
    __m512 sum[PANELS];
#pragma GCC unroll 2
    for (size_t p = 0; p < PANELS; ++p) sum[p] = scales[p].add(dots[p], row, _mm512_load_ps(out + p * kPanelColumns));
#pragma GCC unroll 2
    for (size_t p = 0; p < PANELS; ++p) _mm512_store_ps(out + p * kPanelColumns, sum[p]);
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
