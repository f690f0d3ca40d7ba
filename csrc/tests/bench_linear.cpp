// How fast the matrix kernels are, against what the machine can do in the same minute.
//
//   bench_linear [threads = 1] [table, default all] [layout, default all]
//
// Prints the int8 dot-product peak and the read bandwidth, then per table, layout and number of rows: GMAC/s, its
// share of that peak, and weight bytes read per second.  Many distinct matrices of 3072 x 1024 follow each other, so
// that weights come from memory as they do in a model.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "impl.h"
#include "tables.h"

#ifdef __AVX512VNNI__  // or the whole program would need it
#error "compile this file for the baseline; the peak loop carries its own target"
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using namespace quintet;

constexpr int kN = 3072;
constexpr int kK = 1024;
constexpr int kRepeats = 40;  // short ones, so that some find the machine to themselves

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The shortest of some runs of body(thread) on all threads at once, in seconds.
template <typename Body>
double best_time_s(int num_threads, int repeats, Body body) {
  double best = 1e9;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    for (int t = 1; t < num_threads; ++t) {
      threads.emplace_back([&, t] {
        ready.fetch_add(1);
        while (!go.load()) std::this_thread::yield();
        body(t);
      });
    }
    while (ready.load() < num_threads - 1) std::this_thread::yield();
    const double begin = now_s();
    go.store(true);
    body(0);
    for (std::thread& thread : threads) thread.join();
    best = std::min(best, now_s() - begin);
  }
  return best;
}

// A buffer on huge pages where the system gives them.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_((bytes + kHugePage - 1) / kHugePage * kHugePage) {
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kHugePage, bytes_)));
    if (data_ == nullptr) std::abort();
#ifdef MADV_HUGEPAGE
    madvise(data_.get(), bytes_, MADV_HUGEPAGE);
#endif
    std::memset(data_.get(), kFill, bytes_);
  }
  uint8_t* data() { return data_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kHugePage = size_t{1} << 21;
  static constexpr int kFill = 0x31;  // a normal number in every format: denormals would take longer
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  size_t bytes_;
  std::unique_ptr<uint8_t, Free> data_;
};

volatile uint64_t sink;

#if defined(__x86_64__)
constexpr int kPeakSteps = 200'000;

// 64 products per instruction, twelve chains: more than any core needs to hide the latency.
[[gnu::target("avx512f,avx512vnni")]] void dot_product_loop() {
  __m512i sum[12];
  for (auto& s : sum) s = _mm512_setzero_si512();
  const __m512i a = _mm512_set1_epi8(3);
  for (int i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (auto& s : sum) s = _mm512_dpbusd_epi32(s, a, a);
  }
  __m512i total = sum[0];
  for (int i = 1; i < 12; ++i) total = _mm512_add_epi32(total, sum[i]);
  sink = static_cast<uint64_t>(_mm512_reduce_add_epi32(total));
}

double int8_peak(int num_threads) {
  if (!cpu_runs_avx512()) return 0;
  const double seconds = best_time_s(num_threads, kRepeats, [](int) { dot_product_loop(); });
  return num_threads * 12.0 * 64 * kPeakSteps / seconds;
}
#else
double int8_peak(int) { return 0; }
#endif

using Vector [[gnu::vector_size(16), gnu::may_alias]] = uint64_t;

// Bytes per second when each thread sums its share of the buffer, a part of it per run.
double read_bandwidth(Buffer& buffer, int num_threads) {
  constexpr size_t kParts = 8;
  const size_t part = buffer.bytes() / static_cast<size_t>(num_threads) / kParts / 64 * 64;
  std::vector<size_t> runs(static_cast<size_t>(num_threads), 0);
  const double seconds = best_time_s(num_threads, kRepeats, [&](int t) {
    const size_t run = runs[static_cast<size_t>(t)]++ % kParts;
    const uint8_t* p = buffer.data() + (static_cast<size_t>(t) * kParts + run) * part;
    Vector sum[4] = {};
    for (size_t i = 0; i < part; i += 64) {
      const auto* line = reinterpret_cast<const Vector*>(p + i);
      __builtin_prefetch(p + i + 4096);
      for (int j = 0; j < 4; ++j) sum[j] += line[j];
    }
    const Vector total = sum[0] + sum[1] + sum[2] + sum[3];
    sink = total[0] + total[1];
  });
  return static_cast<double>(part) * num_threads / seconds;
}

// Rows in all forms; the values do not matter for time, only that none is a denormal or NaN.
struct Activations {
  explicit Activations(int num_rows)
      : f32(static_cast<size_t>(num_rows) * kK, 0.5f),
        bf16(static_cast<size_t>(num_rows) * kK, uint16_t{0x3f00}),
        q8(static_cast<size_t>(num_rows) * kK, int8_t{3}),
        scale(static_cast<size_t>(num_rows) * kK / kGroup, 0.01f),
        sum(static_cast<size_t>(num_rows) * kK / kGroup, 3 * kGroup),
        rows{num_rows, kK, f32.data(), bf16.data(), q8.data(), scale.data(), sum.data()} {}
  std::vector<float> f32;
  std::vector<uint16_t> bf16;
  std::vector<int8_t> q8;
  std::vector<float> scale;
  std::vector<int32_t> sum;
  Rows rows;
};

void bench(const tests::LinearTable& table, Layout layout, Buffer& weights, int num_threads, double peak,
           double bandwidth) {
  const size_t matrix_bytes = panel_bytes(layout, kK) * static_cast<size_t>(num_panels(kN));
  const int num_matrices = static_cast<int>(weights.bytes() / matrix_bytes);
  const bool slow = std::strcmp(table.name, "reference") == 0;
  for (const int num_rows : {1, 2, 4, 8, 16, 32, 128, 512}) {
    if (slow && num_rows > 4) break;
    Activations x(num_rows);
    std::vector<float> y(static_cast<size_t>(num_rows) * kN);
    // A few milliseconds, but at least 64 MB of weights where they are what takes the time.
    const double macs_per_matrix = static_cast<double>(kN) * kK * num_rows;
    const double macs_wanted = slow ? 0 : 1e9 / macs_per_matrix;
    const double bytes_wanted = num_rows > 4 || slow ? 1 : 6.4e7 / static_cast<double>(matrix_bytes);
    const int count = std::clamp(static_cast<int>(std::max(macs_wanted, bytes_wanted)), 1, num_matrices);
    const int share = num_panels(kN) / num_threads;
    std::vector<int> next(static_cast<size_t>(num_threads), 0);  // matrix, per thread: each run goes on from the last
    const double seconds = best_time_s(num_threads, slow ? 1 : kRepeats, [&](int t) {
      const int panel_begin = t * share;
      const int panel_end = t + 1 == num_threads ? num_panels(kN) : panel_begin + share;
      int& matrix = next[static_cast<size_t>(t)];
      for (int m = 0; m < count; ++m, matrix = (matrix + 1) % num_matrices) {
        const PackedMatrix w{layout, kN, kK, weights.data() + matrix_bytes * static_cast<size_t>(matrix)};
        // Rows in chunks whose activations fit a share of the second-level cache.
        for (int row = 0; row < num_rows; row += 256) {
          table.linear[static_cast<int>(layout)](w, x.rows, row, std::min(row + 256, num_rows), panel_begin, panel_end,
                                                 y.data(), kN);
        }
      }
    });
    const double macs = macs_per_matrix * count / seconds;
    const double bytes = static_cast<double>(matrix_bytes) * count / seconds;
    std::printf("%-9s %-4s rows %3d  %7.1f GMAC/s  %5.1f %% of int8 peak  %6.1f GB/s  %5.1f %% of read bandwidth\n",
                table.name, tests::kLayoutNames[static_cast<int>(layout)], num_rows, macs / 1e9,
                peak > 0 ? 100 * macs / peak : 0.0, bytes / 1e9, 100 * bytes / bandwidth);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int num_threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  const std::string only_table = argc > 2 ? argv[2] : "";
  const std::string only_layout = argc > 3 ? argv[3] : "";
  Buffer weights(size_t{1} << 30);  // more than caches hold
  const double peak = int8_peak(num_threads);
  const double bandwidth = read_bandwidth(weights, num_threads);
  std::printf("%d thread(s): int8 peak %.1f GMAC/s, read bandwidth %.1f GB/s\n", num_threads, peak / 1e9,
              bandwidth / 1e9);
  for (const tests::LinearTable& table : tests::linear_tables()) {
    if (!only_table.empty() && only_table != table.name) continue;
    for (int layout = 0; layout < kNumLayouts; ++layout) {
      if (!only_layout.empty() && only_layout != tests::kLayoutNames[layout]) continue;
      bench(table, static_cast<Layout>(layout), weights, num_threads, peak, bandwidth);
    }
  }
}
