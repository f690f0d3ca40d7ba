// What is done to one row, and what of that a neighbouring phase must know to do it itself.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "plan.h"

namespace quintet {

// Columns [begin, end) of one row, both multiples of RowOp::granule (or the row's end); `row` counts tokens, or logits
// rows after a selection.
using ColumnsFunction = std::function<void(const StepContext& context, int row, int begin, int end)>;

// Each granule of columns is made from the same columns of what is read, and from the step.
struct RowOp {
  const char* name;
  int width;
  int granule;
  std::vector<const Buffer*> reads;  // as other phases left them, or ops before this one
  const Buffer* writes = nullptr;    // may be one of those
  const Forms* forms = nullptr;      // written
  ColumnsFunction columns;
  bool is_private = true;  // nothing is touched but the above

  void run(const StepContext& context, int row) const { columns(context, row, 0, width); }
};

// For profiles.
inline std::string names_of(const std::vector<RowOp>& ops) {
  std::string names;
  for (const RowOp& op : ops) names += std::string(" ") + op.name;
  return names;
}

// A worker's own copies of the first row of what a phase writes.
class Replica {
 public:
  explicit Replica(const std::vector<RowOp>& ops);
  const Buffer* find(const Buffer& buffer) const;  // null where the phase writes none
  const Forms* find(const Forms& forms) const;

 private:
  std::vector<std::pair<const Buffer*, Buffer>> buffers_;
  std::vector<std::pair<const Forms*, Forms>> forms_;
};

}  // namespace quintet
