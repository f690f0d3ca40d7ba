// How fast attention is on one thread, against what the machine can do in the same minute.
//
//   bench_attention [table, default all]
//
// Head shapes of Qwen3-0.6B (16 heads, 8 KV heads, head_dim 128), bf16 cache.  Prefill: the last 512 tokens of a
// sequence, in GMAC/s over the causal part, beside the peak of VDPBF16PS.  Decode: one token, in GB/s of K and V
// read, beside a plain read of as much memory; one sequence per repetition, so that the cache is cold.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
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

double read_gbps(size_t bytes) {
  std::vector<uint64_t> memory(bytes / 8, 1);
  volatile uint64_t sink = 0;
  const double time_s = best_time_s(kRepeats, [&] {
    uint64_t sums[16] = {};
    for (size_t i = 0; i + 128 <= memory.size(); i += 128) {
      for (size_t j = 0; j < 16; ++j) sums[j] += memory[i + j] + memory[i + 16 + j] + memory[i + 32 + j];
      for (size_t j = 0; j < 16; ++j) sums[j] += memory[i + 48 + j] + memory[i + 64 + j] + memory[i + 80 + j];
      for (size_t j = 0; j < 16; ++j) sums[j] += memory[i + 96 + j] + memory[i + 112 + j];
    }
    for (const uint64_t sum : sums) sink = sink + sum;
  });
  return static_cast<double>(bytes) / time_s / 1e9;
}

void bench_prefill(const KernelTable& table, int seq_len, double peak) {
  const int num_queries = std::min(seq_len, 512);
  const bool is_reference = &table == &reference_kernels();
  PagedSequence sequence({KVType::kBF16, 128, 1, 2, seq_len}, 1);
  sequence.write(table, 0, seq_len);
  const int begin = is_reference ? seq_len - 4 : seq_len - num_queries;
  double macs = 0.0;
  for (int token = begin; token < seq_len; ++token) macs += 2.0 * 2 * 128 * (token + 1);
  const double time_s = best_time_s(kRepeats, [&] { sequence.attend(table, begin, seq_len); });
  std::printf(
      "%-10s prefill %4d tokens at %4d  %7.1f GMAC/s  %4.0f %% of peak  %7.1f us per token, 8 KV heads, 28 layers\n",
      table.name, seq_len - begin, seq_len, macs / time_s / 1e9, peak > 0 ? macs / time_s / 1e7 / peak : 0.0,
      time_s * 1e6 / (seq_len - begin) * 8 * 28);
}

void bench_decode(const KernelTable& table, int seq_len) {
  const Shape shape{KVType::kBF16, 128, 8, 2, seq_len};
  std::vector<std::unique_ptr<PagedSequence>> sequences;
  size_t bytes = 0;
  while (bytes < size_t{96} << 20) {
    sequences.push_back(std::make_unique<PagedSequence>(shape, static_cast<uint32_t>(sequences.size()), 0));
    sequences.back()->write(table, 0, seq_len);
    bytes += 2 * sequences.back()->cache_bytes();
  }
  double best = 1e9;
  for (int round = 0; round < 3; ++round) {
    const double time_s = best_time_s(1, [&] {
      for (auto& sequence : sequences) sequence->attend(table, seq_len - 1, seq_len);
    });
    best = std::min(best, time_s);
  }
  std::printf("%-10s decode at %4d  %6.1f GB/s (plain read %5.1f)  %7.1f us per token and layer\n", table.name, seq_len,
              static_cast<double>(bytes) / best / 1e9, read_gbps(bytes),
              best * 1e6 / static_cast<double>(sequences.size()));
}

}  // namespace

int main(int argc, char** argv) {
  const double peak = peak_gmacs();
  std::printf("bf16 dot product peak %.1f GMAC/s\n", peak);
  for (const KernelTable* table : tests::tables()) {
    if (argc > 1 && std::strcmp(argv[1], table->name) != 0) continue;
    for (const int seq_len : {512, 4096}) bench_prefill(*table, seq_len, peak);
    if (table == &reference_kernels()) continue;
    for (const int seq_len : {1024, 4096}) bench_decode(*table, seq_len);
  }
}
