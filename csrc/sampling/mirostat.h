// Mirostat: truncation under feedback, so that the surprise of the output stays near a target.
// Source: Basu et al. 2021, "Mirostat: a neural text decoding algorithm that directly controls perplexity",
// arXiv:2007.14966, section 4 (version 1); version 2, which truncates by surprise itself, is the authors' later
// simplification as llama.cpp has it (src/llama-sampling.cpp).
#pragma once

#include "candidates.h"

namespace quintet {

class Mirostat {
 public:
  // version: 1 or 2, 0 = off.  tau: target surprise in bits per token.  eta: how fast it learns.
  Mirostat(int version, double tau, double eta) : version_(version), tau_(tau), eta_(eta), mu_(2 * tau) {}

  bool is_on() const { return version_ != 0; }

  // Narrows a row of logits and weighs it at `temperature`.  The vocabulary's size is the row's.
  void narrow(CandidateRow& row, double temperature) const;

  // Learns from the candidate that was drawn from the row `narrow` left.
  void observe(const CandidateRow& row, int index);

 private:
  int version_;
  double tau_, eta_;
  double mu_;  // the largest surprise allowed, in bits
};

}  // namespace quintet
