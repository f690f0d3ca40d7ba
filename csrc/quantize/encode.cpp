// Which encoder, and rows to threads.
#include "encode.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>
#include <vector>

#include "encoders.h"

namespace quintet::quantize {
namespace {

struct Table {
  Encoder* f16;
  Encoder* bf16;
  Encoder* q4_0;
  Encoder* q4_1;
  Encoder* q5_0;
  Encoder* q5_1;
  Encoder* q8_0;
  Encoder* q2_k;
  Encoder* q3_k;
  Encoder* q4_k;
  Encoder* q5_k;
  Encoder* q6_k;
  Encoder* iq4_nl;
  Encoder* iq4_xs;
  Encoder* mxfp4;
  void (*widen_f16)(const uint8_t* from, size_t count, float* to);
  void (*widen_bf16)(const uint8_t* from, size_t count, float* to);
  bool (*all_finite)(const float* values, size_t count);
};

#define QUINTET_TABLE(lanes)                                                                               \
  Table {                                                                                                  \
    lanes::f16, lanes::bf16, lanes::q4_0, lanes::q4_1, lanes::q5_0, lanes::q5_1, lanes::q8_0, lanes::q2_k, \
        lanes::q3_k, lanes::q4_k, lanes::q5_k, lanes::q6_k, lanes::iq4_nl, lanes::iq4_xs, lanes::mxfp4,    \
        lanes::widen_f16, lanes::widen_bf16, lanes::all_finite                                             \
  }

// The widest that runs here, or what QUINTET_KERNELS names, as for the kernels.
const Table& active_table() {
  static const Table table = [] {
#ifdef QUINTET_X86
    const char* named = std::getenv("QUINTET_KERNELS");
    const auto is_wanted = [named](const char* name) {
      return named == nullptr || *named == 0 || std::strcmp(named, name) == 0;
    };
    if (is_wanted("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      return QUINTET_TABLE(avx512);
    }
    if (is_wanted("avx2") && __builtin_cpu_supports("avx2")) return QUINTET_TABLE(avx2);
#endif
    return QUINTET_TABLE(plain);
  }();
  return table;
}

Encoder* encoder_of(const Table& table, Format format) {
  switch (format) {
    case Format::kF16:
      return table.f16;
    case Format::kBF16:
      return table.bf16;
    case Format::kQ4_0:
      return table.q4_0;
    case Format::kQ4_1:
      return table.q4_1;
    case Format::kQ5_0:
      return table.q5_0;
    case Format::kQ5_1:
      return table.q5_1;
    case Format::kQ8_0:
      return table.q8_0;
    case Format::kQ2_K:
      return table.q2_k;
    case Format::kQ3_K:
      return table.q3_k;
    case Format::kQ4_K:
      return table.q4_k;
    case Format::kQ5_K:
      return table.q5_k;
    case Format::kQ6_K:
      return table.q6_k;
    case Format::kIQ4_NL:
      return table.iq4_nl;
    case Format::kIQ4_XS:
      return table.iq4_xs;
    case Format::kMXFP4:
      return table.mxfp4;
  }
  return nullptr;
}

// Chunks are dealt to whoever is free.  Small enough for the source and its floats to stay in the L2 cache, and a whole
// number of blocks and of tiles of any format.
constexpr size_t kChunk = 1 << 15;

struct Chunks {
  const Job& job;
  const Table& table;
  Encoder* encode;
  Shape shape;
  std::atomic<size_t> next{0};
  std::atomic<bool> all_finite{true};

  void work() {
    const size_t total = job.num_rows * job.row_size;
    const size_t source_bytes = job.source == Source::kF32 ? 4 : 2;
    const bool is_blocked = shape.block_size > 1;
    std::vector<float> values(std::min(kChunk, total));
    for (;;) {
      const size_t start = next.fetch_add(kChunk);
      if (start >= total || !all_finite.load(std::memory_order_relaxed)) return;
      const size_t count = std::min(kChunk, total - start);
      const auto* source = static_cast<const uint8_t*>(job.rows) + start * source_bytes;
      if (job.source == Source::kF16) {
        table.widen_f16(source, count, values.data());
      } else if (job.source == Source::kBF16) {
        table.widen_bf16(source, count, values.data());
      } else {
        std::memcpy(values.data(), source, count * sizeof(float));
      }
      if (is_blocked && !table.all_finite(values.data(), count)) {
        all_finite = false;
        return;
      }
      const size_t first = start / shape.block_size;
      const size_t per_row = job.row_size / shape.block_size;
      encode({values.data(), job.importance, first % per_row, per_row, count / shape.block_size,
              job.blocks + first * shape.block_bytes});
    }
  }
};

}  // namespace

Shape shape_of(Format format) {
  switch (format) {
    case Format::kF16:
    case Format::kBF16:
      return {1, 2};
    case Format::kQ4_0:
    case Format::kIQ4_NL:
      return {32, 18};
    case Format::kQ4_1:
      return {32, 20};
    case Format::kQ5_0:
      return {32, 22};
    case Format::kQ5_1:
      return {32, 24};
    case Format::kQ8_0:
      return {32, 34};
    case Format::kMXFP4:
      return {32, 17};
    case Format::kQ2_K:
      return {256, 84};
    case Format::kQ3_K:
      return {256, 110};
    case Format::kQ4_K:
      return {256, 144};
    case Format::kQ5_K:
      return {256, 176};
    case Format::kQ6_K:
      return {256, 210};
    case Format::kIQ4_XS:
      return {256, 136};
  }
  return {};
}

bool run(const Job& job, int num_threads) {
  if (job.num_rows == 0 || job.row_size == 0) return true;
  const Table& table = active_table();
  Chunks chunks{job, table, encoder_of(table, job.format), shape_of(job.format)};
  const size_t num_chunks = (job.num_rows * job.row_size + kChunk - 1) / kChunk;
  const size_t wanted = std::min(static_cast<size_t>(std::max(num_threads, 1)), num_chunks);
  std::vector<std::thread> helpers;
  std::vector<std::exception_ptr> failures(wanted);
  const auto guarded = [&](size_t index) {
    try {
      chunks.work();
    } catch (...) {
      failures[index] = std::current_exception();
    }
  };
  std::exception_ptr not_started;
  try {
    for (size_t i = 1; i < wanted; ++i) helpers.emplace_back(guarded, i);
  } catch (...) {
    not_started = std::current_exception();  // who is there already must be waited for
  }
  guarded(0);
  for (std::thread& helper : helpers) helper.join();
  if (not_started) std::rethrow_exception(not_started);
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return chunks.all_finite;
}

}  // namespace quintet::quantize
