// The keys and values that products ask for before attention: each worker's own, in the order it will read them.
#include <vector>

#include "check.h"
#include "kv_block.h"
#include "phases.h"

namespace {

using namespace quintet;

constexpr int kHeads = 2;
constexpr int kBlocks = 4096;
constexpr int kHeadDim = 64;

struct Range {
  const std::byte* begin;
  size_t size;
  bool operator==(const Range&) const = default;
};

// All that a KVAhead gives.
std::vector<Range> ranges(const Step& step, const KVCache& cache, int left, int worker, int num_threads) {
  KVAhead ahead;
  CHECK(!ahead.is_started());
  ahead.start(step, cache, left, worker, num_threads);
  CHECK(ahead.is_started());
  std::vector<Range> found;
  while (ahead.next(ahead)) found.push_back({ahead.at, static_cast<size_t>(ahead.end - ahead.at)});
  CHECK(!ahead.next(ahead));
  ahead.reset();
  CHECK(!ahead.is_started());
  return found;
}

struct Sequences {
  std::vector<int32_t> cu_seqlens{0}, seq_lens, block_tables;
  Step step{};
  // Sequences of so many tokens, a new one each, with blocks that lie apart.
  explicit Sequences(std::vector<int32_t> lengths, int max_blocks) : seq_lens(std::move(lengths)) {
    for (size_t s = 0; s < seq_lens.size(); ++s) {
      cu_seqlens.push_back(cu_seqlens.back() + 1);
      for (int b = 0; b < max_blocks; ++b) {
        block_tables.push_back(static_cast<int32_t>((s + seq_lens.size() * static_cast<size_t>(b)) % kBlocks));
      }
    }
    step.num_seqs = static_cast<int>(seq_lens.size());
    step.num_tokens = step.num_seqs;
    step.cu_seqlens = cu_seqlens.data();
    step.seq_lens = seq_lens.data();
    step.block_tables = block_tables.data();
    step.max_blocks = max_blocks;
  }
};

void test_order_and_shares() {
  std::vector<std::byte> memory(2 * kHeads * kBlocks * kv_block_bytes(KVType::kBF16, kHeadDim));
  const KVCache cache{KVType::kBF16, kBlocks, kHeads, kHeadDim, memory.data(), memory.data() + memory.size() / 2};
  const Sequences all({33, 1, 16}, 3);
  const size_t bytes = kv_block_bytes(cache.type, kHeadDim);
  std::vector<Range> expected;
  for (int head = 0; head < kHeads; ++head) {
    for (int seq = 0; seq < 3; ++seq) {
      for (void* data : {cache.k, cache.v}) {
        for (int token = 0; token < all.seq_lens[static_cast<size_t>(seq)]; token += kBlockTokens) {
          expected.push_back({kv_block(cache, data, seq + 3 * (token / kBlockTokens), head), bytes});
        }
      }
    }
  }
  CHECK(ranges(all.step, cache, kUnlimited, 0, 1) == expected);
  std::vector<Range> shares;
  for (int worker = 0; worker < 4; ++worker) {
    const auto share = ranges(all.step, cache, kUnlimited, worker, 4);
    shares.insert(shares.end(), share.begin(), share.end());
  }
  CHECK(shares == expected);
}

// A window begins at the block of its first token.
void test_window() {
  std::vector<std::byte> memory(2 * kHeads * kBlocks * kv_block_bytes(KVType::kInt8, kHeadDim));
  const KVCache cache{KVType::kInt8, kBlocks, kHeads, kHeadDim, memory.data(), memory.data() + memory.size() / 2};
  const Sequences one({100}, 7);
  const auto found = ranges(one.step, cache, 20, 0, 1);  // the query stands at 99 and sees 79 .. 99: blocks 4, 5, 6
  CHECK(found.size() == size_t{3} * 2 * kHeads);
  CHECK(found[0].begin == kv_block(cache, cache.k, 4, 0) && found[3].begin == kv_block(cache, cache.v, 4, 0));
}

// No more than caches hold, whatever the depth.
void test_bound() {
  std::vector<std::byte> memory(2 * kHeads * kBlocks * kv_block_bytes(KVType::kBF16, kHeadDim));
  const KVCache cache{KVType::kBF16, kBlocks, kHeads, kHeadDim, memory.data(), memory.data() + memory.size() / 2};
  const Sequences deep({kBlocks * kBlockTokens}, kBlocks);
  size_t bytes = 0;
  for (const Range& range : ranges(deep.step, cache, kUnlimited, 0, 1)) bytes += range.size;
  CHECK(bytes > size_t{1} << 20 && bytes <= size_t{16} << 20);
}

}  // namespace

int main() {
  test_order_and_shares();
  test_window();
  test_bound();
  return quintet::tests::finish("test_ahead");
}
