// Which tokens a query of attention sees.
#pragma once

#include "kernels.h"

namespace quintet {
namespace {  // in every table's own copy; see impl.h

struct Visible {
  int begin, end;  // tokens of the sequence
};

// `query` counts the sequence's new tokens.
[[gnu::always_inline, maybe_unused]] inline Visible visible_tokens(const AttentionArgs& args, const SequenceView& seq,
                                                                   int query) {
  const int position = seq.seq_len - seq.num_queries + query;
  return {.begin = position <= args.left ? 0 : position - args.left,
          .end = seq.seq_len - 1 - position <= args.right ? seq.seq_len : position + args.right + 1};
}

}  // namespace
}  // namespace quintet
