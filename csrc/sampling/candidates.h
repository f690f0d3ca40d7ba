// The candidates of one row on their way from logits to a token, and the stages that narrow them.  Each stage reads
// and writes one CandidateRow; those that need entropy or surprise are in truncation.h and mirostat.h.
//
// A row is first a set of logits (top-k, top-n-sigma), then, from weigh() on, a set of weights (top-p, min-p, the
// draw); compact() leads back.
//
// Candidates stay in ascending order of token id throughout: nothing is sorted, and the draw reads them in id order.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace quintet {

// Buffers that keep their size from row to row; one per thread.
struct SamplingScratch {
  std::vector<float> block_max;
  std::vector<float> weights;
  std::vector<double> block_sums;
  std::vector<int32_t> ids;
  std::vector<float> logits;
  std::vector<float> selection;
  std::vector<int32_t> counts;
  std::vector<double> histogram;
  std::vector<int32_t> members;
  std::vector<std::pair<int32_t, float>> undo;
  std::vector<float> unmasked;
  std::vector<std::pair<double, int32_t>> scored;
  std::vector<std::pair<int32_t, int32_t>> repeats;
};

struct CandidateRow {
  SamplingScratch* scratch;
  int size;             // candidates, at least 1
  const float* logits;  // [size], no NaN
  const int32_t* ids;   // [size] ascending; null while the row is whole and a candidate's index is its id
  float max;            // of the logits; finite
  float* weights;       // [size] exp((logit - max) / temperature) from weigh() on; 0 = dropped; null before
  double total;         // of the weights

  int32_t id(int index) const { return ids == nullptr ? index : ids[index]; }
};

// The whole row: logits [vocab_size], scratch.block_max as scan_row left it, max finite.
CandidateRow whole_row(SamplingScratch& scratch, const float* logits, int vocab_size, float max);

// The same of a row nobody has looked at yet; false where it holds NaN or +inf, or nothing above -inf.
bool scan_whole_row(SamplingScratch& scratch, const float* logits, int vocab_size, CandidateRow& row);

// Lowest id among the largest logits.
int32_t argmax(const CandidateRow& row);

// Keeps the k largest logits; of equal ones the lower id.  k >= 1.  Before weigh().
void keep_top_k(CandidateRow& row, int k);

// Softmax weights at a temperature of at least 0; at 0 the largest logits have them all.
void weigh(CandidateRow& row, double temperature);

// 1 / temperature as weigh() uses it: finite at any temperature.
float inverse_temperature(double temperature);

// Back from weights to logits: a list of the candidates whose weight is not 0, and the maximum of those.
void compact(CandidateRow& row);

// Keeps the smallest set of the heaviest candidates (of equal ones the lower id) that reaches `p` of the total; at
// least one.  0 <= p < 1.  Source: Holtzman et al. 2020, arXiv:1904.09751, section 3.1.
void keep_top_p(CandidateRow& row, double p);

// Keeps candidates at least `p` times as likely as the likeliest.  0 < p <= 1.
// Source: Nguyen et al. 2024, arXiv:2407.01082, section 3.
void keep_min_p(CandidateRow& row, double p);

// Inverse transform over the weights in id order; uniform in [0, 1).  Returns an index whose weight is not 0.
int draw(const CandidateRow& row, double uniform);

}  // namespace quintet
