// Which row ops become part of the phase before or after them, and which every worker does for itself: each such op is
// a barrier less.  None changes a bit of any result.
#include <algorithm>

#include "phases.h"

namespace quintet {
namespace {

bool contains(const std::vector<const Buffer*>& buffers, const Buffer* buffer) {
  return std::find(buffers.begin(), buffers.end(), buffer) != buffers.end();
}

// True where the ops of a phase read or write the buffer, or write these forms.
bool uses(const RowPhase& rows, const Forms* forms) {
  return std::any_of(rows.ops().begin(), rows.ops().end(), [&](const RowOp& op) { return op.forms == forms; });
}

bool uses(const RowPhase& rows, const Buffer* buffer) {
  return std::any_of(rows.ops().begin(), rows.ops().end(),
                     [&](const RowOp& op) { return contains(op.reads, buffer) || op.writes == buffer; });
}

}  // namespace

Replica::Replica(const std::vector<RowOp>& ops) {
  for (const RowOp& op : ops) {
    if (op.writes != nullptr && find(*op.writes) == nullptr) {
      Buffer own{
          .width = op.writes->width, .stride = op.writes->stride, .pages = Pages(op.writes->stride * sizeof(float))};
      buffers_.emplace_back(op.writes, std::move(own));
    }
    if (op.forms != nullptr && find(*op.forms) == nullptr) forms_.emplace_back(op.forms, op.forms->with_room(1));
  }
}

const Buffer* Replica::find(const Buffer& buffer) const {
  for (const auto& [of, own] : buffers_) {
    if (of == &buffer) return &own;
  }
  return nullptr;
}

const Forms* Replica::find(const Forms& forms) const {
  for (const auto& [of, own] : forms_) {
    if (of == &forms) return &own;
  }
  return nullptr;
}

float* StepContext::row(const Buffer& buffer, int row) const {
  const Buffer* own = replica == nullptr ? nullptr : replica->find(buffer);
  return (own == nullptr ? buffer : *own).row(row);
}

RowsOut StepContext::row_out(const Forms& forms, int row, int column) const {
  const Forms* own = replica == nullptr ? nullptr : replica->find(forms);
  return (own == nullptr ? forms : *own).row_out(row, column);
}

bool can_replicate(const RowPhase& rows, const Plan& plan, const std::vector<LinearTask>& products) {
  // What a worker overwrites, another may not have read yet.
  std::vector<const Buffer*> written;
  for (const RowOp& op : rows.ops()) {
    if (!op.is_private) return false;
    const auto is_own = [&](const Buffer* buffer) { return contains(written, buffer); };
    if (op.writes != nullptr && !is_own(op.writes)) {
      if (contains(op.reads, op.writes)) return false;
      for (const RowOp& other : rows.ops()) {
        if (&other == &op) break;
        if (contains(other.reads, op.writes)) return false;
      }
      written.push_back(op.writes);
    }
  }
  return std::none_of(products.begin(), products.end(),
                      [&](const LinearTask& task) { return uses(rows, &plan.buffer(task.output)); });
}

bool LinearPhase::absorb(const RowOp& op, bool logits_rows) {
  if (logits_rows != logits_rows_ || !op.is_private || kGroup % op.granule != 0) return false;
  // The phase before may not be over yet.
  if (before_ != nullptr && op.writes != nullptr && uses(*before_, op.writes)) return false;
  if (before_ != nullptr && op.forms != nullptr && uses(*before_, op.forms)) return false;
  for (const LinearTask& task : tasks_) {
    // Other items still read the forms.
    if (plan_.matrix(task.matrix).n != op.width || &plan_.forms(task.forms) == op.forms) return false;
  }
  ops_.push_back(op);
  return true;
}

bool AttentionPhase::takes(const std::vector<RowOp>& ops, int num_kv_heads) {
  return std::all_of(ops.begin(), ops.end(), [&](const RowOp& op) {
    return op.width % num_kv_heads == 0 && op.width / num_kv_heads % op.granule == 0;
  });
}

bool AttentionPhase::absorb(const RowOp& op, bool logits_rows) {
  if (logits_rows || !op.is_private || op.writes != nullptr || !takes({op}, num_kv_heads_)) return false;
  after_.push_back(op);
  return true;
}

}  // namespace quintet
