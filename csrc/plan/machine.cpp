#include "machine.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "memory.h"
#include "peak.h"
#include "require.h"
#include "thread_pool.h"

namespace quintet {
namespace {

constexpr size_t kBytesAhead = 4096;

}  // namespace

double measure_read_bandwidth(int num_threads, size_t size_bytes, double seconds) {
  using clock = std::chrono::steady_clock;
  ThreadPool pool(num_threads);
  const auto threads = static_cast<size_t>(pool.num_threads());
  const size_t share = std::max<size_t>(size_bytes / threads / 64, 1) * 64;
  const Pages pages(share * threads);
  const auto part = [&](int worker) { return pages.data() + static_cast<size_t>(worker) * share; };
  pool.run([&](int worker) { std::memset(part(worker), 1, share); });
  double best = 0;
  const auto deadline = clock::now() + std::chrono::duration<double>(seconds);
  do {
    const auto begin = clock::now();
    pool.run([&](int worker) {
      const uint8_t* data = part(worker);
      uint64_t lanes[8] = {};
      for (size_t i = 0; i < share; i += 64) {
        // As kernels ask ahead: left alone, some machines' prefetchers bring half of what memory gives.
        __builtin_prefetch(data + i + kBytesAhead, 0, 2);
        uint64_t words[8];
        std::memcpy(words, data + i, sizeof words);
        for (int j = 0; j < 8; j++) lanes[j] ^= words[j];
      }
      uint64_t sum = 0;
      for (const uint64_t lane : lanes) sum ^= lane;
      asm volatile("" : : "r"(sum));  // a use the compiler must not remove
    });
    const std::chrono::duration<double> elapsed = clock::now() - begin;
    best = std::max(best, static_cast<double>(share * threads) / elapsed.count());
  } while (clock::now() < deadline);
  return best;
}

double measure_int8_peak(int num_threads, double seconds) {
  using clock = std::chrono::steady_clock;
  const KernelTable* kernels = active_kernels();
  require(kernels != nullptr, "QUINTET_KERNELS names kernels that this CPU cannot run");
  const DotPeak dots = dot_peak(*kernels);
  ThreadPool pool(num_threads);
  constexpr int64_t kRounds = 100'000;  // a fraction of a millisecond: some pass meets no interruption
  double best = 0;
  const auto deadline = clock::now() + std::chrono::duration<double>(seconds);
  do {
    std::vector<int64_t> done(static_cast<size_t>(pool.num_threads()));
    const auto begin = clock::now();
    pool.run([&](int worker) { done[static_cast<size_t>(worker)] = dots(kRounds); });
    const std::chrono::duration<double> elapsed = clock::now() - begin;
    const int64_t total = std::accumulate(done.begin(), done.end(), int64_t{0});
    best = std::max(best, static_cast<double>(total) / elapsed.count());
  } while (clock::now() < deadline);
  return best;
}

}  // namespace quintet
