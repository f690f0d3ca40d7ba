// How fast attention is on one thread, against what the machine can do in the same minute.
//
//   bench_attention [table, default all but the reference]
//
// Head shapes of Qwen3-0.6B (16 heads, 8 KV heads, head_dim 128), bf16 cache.  Prefill: the last 512 tokens of a
// sequence, in GMAC/s over the causal part, beside the peak of VDPBF16PS.  Decode: one token in each of so many
// sequences that the caches of the CPU are cold, in GB/s of K and V read, beside a mere read of as much memory in order
// and in 4 KiB pieces out of order, which is how a KV head lies in blocks that do not follow each other.
#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "compare.h"
#include "kernels.h"
#include "paged.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using namespace quintet;
using tests::PagedSequence;
using tests::Shape;

constexpr int kRepeats = 5;

// CPU time of this thread, which does not count what other processes take.
double thread_time_s() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Seconds of the shortest of some runs.
template <class Body>
double best_time_s(int repeats, const Body& body) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const double begin = thread_time_s();
    body();
    best = std::min(best, thread_time_s() - begin);
  }
  return best;
}

#if defined(__x86_64__)
// 24 independent chains, more than latency times throughput.
__attribute__((target("avx512f,avx512bf16"))) float dot_products(int count) {
  __m512 acc[24];
  for (auto& chain : acc) chain = _mm512_setzero_ps();
  const auto ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int i = 0; i < count; ++i) {
#pragma GCC unroll 24
    for (auto& chain : acc) chain = _mm512_dpbf16_ps(chain, ones, ones);
  }
  float sum = 0.0f;
  for (const auto& chain : acc) sum += chain[0];
  return sum;
}

double peak_gmacs() {
  if (!__builtin_cpu_supports("avx512bf16")) return 0.0;
  constexpr int kCount = 20000;
  volatile float sink = 0.0f;
  return 24.0 * 32 * kCount / best_time_s(20, [&] { sink = dot_products(kCount); }) / 1e9;
}
#else
double peak_gmacs() { return 0.0; }
#endif

using Line = uint64_t __attribute__((vector_size(64)));
constexpr size_t kPieceBytes = 4096;  // a KV head's K or V in one block

// Reads all pieces, prefetching as attention does.
#if defined(__x86_64__)
__attribute__((target_clones("default", "avx2", "avx512f")))
#endif
void read_pieces(const std::vector<const Line*>& pieces, Line& sum) {
  constexpr size_t kAhead = 4;
  Line sums = sum;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Line* next = pieces[i + kAhead < pieces.size() ? i + kAhead : pieces.size() - 1];
    for (size_t line = 0; line < kPieceBytes / sizeof(Line); ++line) {
      __builtin_prefetch(next + line);
      sums += pieces[i][line];
    }
  }
  sum = sums;
}

double read_gbps(size_t bytes, bool in_order) {
  tests::Pages<Line> memory(bytes / sizeof(Line));
  std::vector<const Line*> pieces(bytes / kPieceBytes);
  for (size_t i = 0; i < pieces.size(); ++i) pieces[i] = memory.data() + i * kPieceBytes / sizeof(Line);
  if (!in_order) std::shuffle(pieces.begin(), pieces.end(), std::mt19937(1));
  Line sum = {};
  const double time_s = best_time_s(kRepeats, [&] { read_pieces(pieces, sum); });
  volatile uint64_t sink = sum[0];
  static_cast<void>(sink);
  return static_cast<double>(bytes) / time_s / 1e9;
}

void bench_prefill(const KernelTable& table, int seq_len, double peak) {
  const int num_queries = std::min(seq_len, 512);  // a chunk
  PagedSequence sequence({KVType::kBF16, 128, 1, 2, seq_len}, 1);
  sequence.write(table, 0, seq_len);
  const int begin = seq_len - num_queries;
  double macs = 0.0;
  for (int token = begin; token < seq_len; ++token) macs += 2.0 * 2 * 128 * (token + 1);
  const double time_s = best_time_s(kRepeats, [&] { sequence.attend(table, begin, seq_len); });
  std::printf(
      "%-10s prefill %4d tokens at %4d  %7.1f GMAC/s  %4.0f %% of peak  %7.1f us per token, 8 KV heads, 28 layers\n",
      table.name, seq_len - begin, seq_len, macs / time_s / 1e9, peak > 0 ? macs / time_s / 1e7 / peak : 0.0,
      time_s * 1e6 / (seq_len - begin) * 8 * 28);
}

void bench_decode(const KernelTable& table, int seq_len, bool in_order) {
  const Shape shape{KVType::kBF16, 128, 8, 2, seq_len};
  std::vector<std::unique_ptr<PagedSequence>> sequences;
  size_t bytes = 0;
  while (bytes < size_t{96} << 20) {
    sequences.push_back(std::make_unique<PagedSequence>(shape, static_cast<uint32_t>(sequences.size()), 0));
    if (in_order) sequences.back()->order_blocks();
    sequences.back()->write(table, 0, seq_len);
    bytes += 2 * sequences.back()->cache_bytes();
  }
  const double best = best_time_s(kRepeats, [&] {
    for (auto& sequence : sequences) sequence->attend(table, seq_len - 1, seq_len);
  });
  std::printf(
      "%-10s decode at %4d, blocks %-12s  %6.1f GB/s (read in order %.1f, in pieces %.1f)  %7.1f us per token and "
      "layer\n",
      table.name, seq_len, in_order ? "consecutive" : "shuffled", static_cast<double>(bytes) / best / 1e9,
      read_gbps(bytes, true), read_gbps(bytes, false), best * 1e6 / static_cast<double>(sequences.size()));
}

}  // namespace

int main(int argc, char** argv) {
  const double peak = peak_gmacs();
  std::printf("bf16 dot product peak %.1f GMAC/s\n", peak);
  for (const KernelTable* table : tests::tables()) {
    if (table == &reference_kernels() || (argc > 1 && std::strcmp(argv[1], table->name) != 0)) continue;
    for (const int seq_len : {512, 4096}) bench_prefill(*table, seq_len, peak);
    for (const int seq_len : {256, 1024, 4096}) {
      for (const bool in_order : {true, false}) bench_decode(*table, seq_len, in_order);
    }
  }
}
