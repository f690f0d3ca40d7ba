#include "machine.h"

#include <unistd.h>

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

// So much that little of it stays in a cache from one pass to the next, even where many share one of hundreds of MB.
size_t beyond_caches() {
  constexpr size_t kLeast = size_t{256} << 20;
  constexpr size_t kMost = size_t{1} << 30;
  const long last_level = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return std::clamp(last_level > 0 ? 2 * static_cast<size_t>(last_level) : 0, kLeast, kMost);
}

using Words [[gnu::vector_size(16), gnu::may_alias]] = uint64_t;

}  // namespace

double measure_read_bandwidth(int num_threads, size_t size_bytes, double seconds) {
  using clock = std::chrono::steady_clock;
  ThreadPool pool(num_threads);
  const auto threads = static_cast<size_t>(pool.num_threads());
  if (size_bytes == 0) size_bytes = beyond_caches();
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
      Words sums[4] = {};
      for (size_t i = 0; i < share; i += 64) {
        // As kernels ask ahead: left alone, some machines' prefetchers bring half of what memory gives.
        __builtin_prefetch(data + i + kBytesAhead, 0, 2);
        const auto* line = reinterpret_cast<const Words*>(data + i);
        for (size_t j = 0; j < 4; j++) sums[j] ^= line[j];
      }
      for (const Words sum : sums) asm volatile("" : : "r"(sum[0]), "r"(sum[1]));  // a use the compiler must not remove
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
