// Stages that judge a candidate by the row as a whole: its spread, its entropy, its likeliest choices.
#pragma once

#include "candidates.h"

namespace quintet {

// Keeps logits within `n` standard deviations (of all logits above -inf) of the largest.  n > 0.  Before weigh().
// Source: Tang et al. 2024, arXiv:2411.07641, section 3.
void keep_top_n_sigma(CandidateRow& row, double n);

// Keeps the smallest set of candidates, those first whose surprise is nearest to the entropy (of equal ones the lower
// id), that reaches `p` of the total; at least one.  0 <= p < 1.  After weigh(row, temperature); compacts the row,
// whose likeliest candidate may be gone.  Source: Meister et al. 2022, arXiv:2202.00666, section 3.
void keep_typical(CandidateRow& row, double temperature, double p);

// Drops every candidate with at least `threshold` of the total but the least likely of them (of equal ones the highest
// id stays); nothing where fewer than two have it.  After weigh(); compacts the row when it drops.
// Source: oobabooga/text-generation-webui, pull request 6335.
void exclude_top_choices(CandidateRow& row, double threshold);

// Entropy of the weights, in nats.  After weigh(row, temperature).
double entropy(const CandidateRow& row, double temperature);

// A temperature in [max(0, middle - range), middle + range] that rises with the row's entropy relative to that of a
// uniform row of as many candidates, raised to `exponent`.  `middle` where there is one candidate only.  Before
// weigh(), which it leaves undone.  Source: llama.cpp, src/llama-sampling.cpp, sampler "temp-ext".
double dynamic_temperature(CandidateRow& row, double middle, double range, double exponent);

}  // namespace quintet
