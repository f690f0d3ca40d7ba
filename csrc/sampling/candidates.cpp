#include "candidates.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "vector_math.h"

namespace quintet {
namespace {

// Where keep_top_p ends: heavier weights stay, and equal ones up to this index.
struct Cut {
  float weight;
  int last_index;
};

// Radix selection of top_p's cut by the bits of the weights, which order like the weights since none is negative:
// 14 bits over the row, then 9 and 9 over the members of the one bin where the mass is reached.
constexpr int kFirstShift = 18, kDigitBits = 9;
constexpr int kFirstBins = static_cast<int>(std::bit_cast<uint32_t>(1.0f) >> kFirstShift) + 1;
constexpr int kDigitBins = 1 << kDigitBits;

uint32_t first_bin(float weight) { return std::bit_cast<uint32_t>(weight) >> kFirstShift; }

uint32_t digit(float weight, int shift) { return std::bit_cast<uint32_t>(weight) >> shift & (kDigitBins - 1); }

// The bin in which the mass, counted from the heaviest bin down, reaches `needed`, which is then less what lies above
// that bin; the last bin that is not empty if rounding keeps it from being reached.
int reaching_bin(const double* mass, int num_bins, double& needed) {
  int last = -1;
  for (int bin = num_bins - 1; bin >= 0; --bin) {
    if (mass[bin] == 0) continue;
    if (last >= 0) needed -= mass[last];
    last = bin;
    if (mass[bin] >= needed) break;
  }
  return last;
}

Cut top_p_cut(const CandidateRow& row, double p) {
  SamplingScratch& scratch = *row.scratch;
  // All weights below (1 - p) * total / size together weigh less than 1 - p: the cut is not among them, nor in a block
  // that weighs no more.  A little lower, because total is rounded.
  const float bound = static_cast<float>((1 - p) * row.total / row.size * 0.999);
  const auto for_each_in_heavy_blocks = [&](auto visit) {
    for (int begin = 0, b = 0; begin < row.size; begin += kVocabBlock, ++b) {
      if (scratch.block_sums[b] < bound) continue;
      const int end = std::min(begin + kVocabBlock, row.size);
      for (int i = begin; i < end; ++i) visit(i, row.weights[i]);
    }
  };

  double needed = p * row.total;
  scratch.histogram.assign(kFirstBins, 0.0);
  double* mass = scratch.histogram.data();
  for_each_in_heavy_blocks([&](int, float weight) { mass[first_bin(weight)] += weight; });
  const uint32_t reached = static_cast<uint32_t>(reaching_bin(mass, kFirstBins, needed));
  scratch.members.clear();
  for_each_in_heavy_blocks([&](int i, float weight) {
    if (first_bin(weight) == reached) scratch.members.push_back(i);
  });

  for (const int shift : {kDigitBits, 0}) {
    std::fill(mass, mass + kDigitBins, 0.0);
    for (const int i : scratch.members) mass[digit(row.weights[i], shift)] += row.weights[i];
    const uint32_t bin = static_cast<uint32_t>(reaching_bin(mass, kDigitBins, needed));
    std::erase_if(scratch.members, [&](int i) { return digit(row.weights[i], shift) != bin; });
  }

  // Only equal weights are left, in id order.
  const float weight = row.weights[scratch.members[0]];
  size_t last = 0;
  for (double reached_mass = weight; reached_mass < needed && last + 1 < scratch.members.size(); ++last) {
    reached_mass += weight;
  }
  return {weight, scratch.members[last]};
}

// The k-th largest of n numbers, 1 <= k <= n.  Many are first counted by sign, exponent and four bits of the mantissa,
// so that only those of one count are left to select from.
float kth_largest(SamplingScratch& scratch, const float* x, int n, int k) {
  constexpr int kMany = 8192, kShift = 19;
  const auto bin = [](float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    return (bits >> 31 != 0 ? ~bits : bits | 0x80000000u) >> kShift;  // rises with the value
  };
  if (n < kMany) {
    scratch.selection.assign(x, x + n);
  } else {
    scratch.counts.assign(size_t{1} << (32 - kShift), 0);
    for (int i = 0; i < n; ++i) ++scratch.counts[bin(x[i])];
    size_t reached = scratch.counts.size() - 1;
    for (; scratch.counts[reached] < k; --reached) k -= scratch.counts[reached];
    scratch.selection.clear();
    for (int i = 0; i < n; ++i) {
      if (bin(x[i]) == reached) scratch.selection.push_back(x[i]);
    }
  }
  const auto kth = scratch.selection.begin() + (k - 1);
  std::nth_element(scratch.selection.begin(), kth, scratch.selection.end(), std::greater<>());
  return *kth;
}

// A logit that at least k candidates reach: each of the k blocks with the largest maxima holds one.  The exact one
// where there are not so many blocks.
float top_k_bound(const CandidateRow& row, int k) {
  SamplingScratch& scratch = *row.scratch;
  const int num_blocks = num_vocab_blocks(row.size);
  if (row.ids != nullptr || k > num_blocks) return kth_largest(scratch, row.logits, row.size, k);
  return kth_largest(scratch, scratch.block_max.data(), num_blocks, k);
}

}  // namespace

CandidateRow whole_row(SamplingScratch& scratch, const float* logits, int vocab_size, float max) {
  return {&scratch, vocab_size, logits, nullptr, max, nullptr, 0.0};
}

bool scan_whole_row(SamplingScratch& scratch, const float* logits, int vocab_size, CandidateRow& row) {
  scratch.block_max.resize(static_cast<size_t>(num_vocab_blocks(vocab_size)));
  const RowScan scan = scan_row(logits, vocab_size, scratch.block_max.data());
  row = whole_row(scratch, logits, vocab_size, scan.max);
  return !scan.has_nan && std::isfinite(scan.max);
}

int32_t argmax(const CandidateRow& row) {
  int begin = 0;
  if (row.ids == nullptr) {
    const std::vector<float>& block_max = row.scratch->block_max;
    begin = static_cast<int>(std::find(block_max.begin(), block_max.end(), row.max) - block_max.begin()) * kVocabBlock;
  }
  return row.id(static_cast<int>(std::find(row.logits + begin, row.logits + row.size, row.max) - row.logits));
}

void keep_top_k(CandidateRow& row, int k) {
  if (k >= row.size) return;
  SamplingScratch& scratch = *row.scratch;
  const float bound = top_k_bound(row, k);
  const bool whole = row.ids == nullptr;
  scratch.ids.resize(static_cast<size_t>(row.size));
  scratch.logits.resize(static_cast<size_t>(row.size));
  int size = 0;
  for (int begin = 0, b = 0; begin < row.size; begin += kVocabBlock, ++b) {
    if (whole && scratch.block_max[b] < bound) continue;
    const int end = std::min(begin + kVocabBlock, row.size);
    for (int i = begin; i < end; ++i) {
      const int32_t id = row.id(i);
      const float logit = row.logits[i];
      scratch.ids[size] = id;
      scratch.logits[size] = logit;
      size += logit >= bound;
    }
  }

  const float smallest = kth_largest(scratch, scratch.logits.data(), size, k);
  const auto is_larger = [&](float logit) { return logit > smallest; };
  int room_for_equal =
      k - static_cast<int>(std::count_if(scratch.logits.begin(), scratch.logits.begin() + size, is_larger));
  int kept = 0;
  for (int i = 0; i < size; ++i) {
    const float logit = scratch.logits[i];
    if (logit < smallest || (logit == smallest && room_for_equal-- <= 0)) continue;
    scratch.ids[kept] = scratch.ids[i];
    scratch.logits[kept++] = logit;
  }
  row.size = kept;
  row.ids = scratch.ids.data();
  row.logits = scratch.logits.data();
}

float inverse_temperature(double temperature) {
  constexpr double kLargest = std::numeric_limits<float>::max();  // infinity times 0 would be NaN
  return static_cast<float>(std::min(1.0 / temperature, kLargest));
}

void weigh(CandidateRow& row, double temperature) {
  SamplingScratch& scratch = *row.scratch;
  scratch.weights.resize(static_cast<size_t>(row.size));
  scratch.block_sums.resize(static_cast<size_t>(num_vocab_blocks(row.size)));
  row.weights = scratch.weights.data();
  row.total =
      exp_row(row.logits, row.size, row.max, inverse_temperature(temperature), row.weights, scratch.block_sums.data());
}

void compact(CandidateRow& row) {
  SamplingScratch& scratch = *row.scratch;
  scratch.ids.resize(static_cast<size_t>(row.size));  // in place where the row is a list already
  scratch.logits.resize(static_cast<size_t>(row.size));
  int size = 0;
  float max = -std::numeric_limits<float>::infinity();
  for (int i = 0; i < row.size; ++i) {
    if (row.weights[i] == 0) continue;
    const float logit = row.logits[i];
    scratch.ids[size] = row.id(i);
    scratch.logits[size++] = logit;
    max = std::max(max, logit);
  }
  row = {&scratch, size, scratch.logits.data(), scratch.ids.data(), max, nullptr, 0.0};
}

void keep_top_p(CandidateRow& row, double p) {
  const Cut cut = top_p_cut(row, p);
  row.total = mask_row(row.weights, row.size, cut.weight, cut.last_index, row.scratch->block_sums.data());
}

void keep_min_p(CandidateRow& row, double p) {
  // The likeliest candidate has weight 1.
  row.total = mask_row(row.weights, row.size, static_cast<float>(p), row.size, row.scratch->block_sums.data());
}

int draw(const CandidateRow& row, double uniform) {
  const double target = uniform * row.total;
  const std::vector<double>& block_sums = row.scratch->block_sums;
  const int num_blocks = num_vocab_blocks(row.size);
  int block = 0;
  double mass = 0, reached = 0;  // before the block, and with it
  for (int b = 0; b < num_blocks && reached <= target; ++b) {
    if (block_sums[b] == 0) continue;
    block = b;
    mass = reached;
    reached += block_sums[b];
  }
  // A block's sum is rounded in another order than this walk: its last candidate takes the difference.
  const int begin = block * kVocabBlock, end = std::min(begin + kVocabBlock, row.size);
  int last = begin;
  for (int i = begin; i < end && mass <= target; ++i) {
    if (row.weights[i] == 0) continue;
    last = i;
    mass += row.weights[i];
  }
  return last;
}

}  // namespace quintet
