// The thread pool and the plan's checks at the door.
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "check.h"
#include "phases.h"
#include "plan.h"
#include "thread_pool.h"

namespace {

using namespace quintet;

template <typename Function>
bool refuses(Function&& function) {
  try {
    function();
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

void test_pool_runs_every_worker_once() {
  for (int threads = 1; threads <= 4; threads++) {
    ThreadPool pool(threads);
    std::vector<int> calls(static_cast<size_t>(threads));
    for (int round = 0; round < 200; round++) pool.run([&](int worker) { calls[static_cast<size_t>(worker)]++; });
    for (const int count : calls) CHECK(count == 200);
  }
}

void test_barrier_separates_phases() {
  ThreadPool pool(3);
  std::atomic<int> arrived{0};
  std::atomic<bool> early{false};
  pool.run([&](int) {
    for (int phase = 1; phase <= 500; phase++) {
      arrived.fetch_add(1);
      pool.barrier();
      if (arrived.load() < 3 * phase) early.store(true);
      pool.barrier();
    }
  });
  CHECK(!early.load());
}

void test_work_share_hands_out_each_item_once() {
  for (const int threads : {1, 2, 4}) {
    for (const int64_t count : {0, 1, 3, 7, 64, 1000}) {
      ThreadPool pool(threads);
      WorkShare share(threads);
      share.reset();
      std::vector<std::atomic<int>> taken(static_cast<size_t>(count));
      pool.run([&](int worker) {
        share.for_each(count, worker, [&](int64_t item) { taken[static_cast<size_t>(item)].fetch_add(1); });
      });
      for (const auto& times : taken) CHECK(times.load() == 1);
    }
  }
}

void test_work_share_waits_for_no_absent_worker() {
  WorkShare share(2);
  std::vector<int64_t> taken;
  share.for_each(10, 0, [&](int64_t item) { taken.push_back(item); });
  CHECK((taken == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

PlanOptions small() {
  return {.max_tokens = 8,
          .max_logits_rows = 4,
          .num_blocks = 4,
          .num_layers = 1,
          .num_kv_heads = 1,
          .head_dim = 32,
          .kv_type = KVType::kF32,
          .num_threads = 2,
          .kernels = ""};
}

void test_sizes_are_checked_before_use() {
  const auto with = [](auto change) {
    PlanOptions options = small();
    change(options);
    return refuses([&] { Plan plan(options); });
  };
  CHECK(with([](PlanOptions& o) { o.max_tokens = 0; }));
  CHECK(with([](PlanOptions& o) { o.num_blocks = 0; }));
  CHECK(with([](PlanOptions& o) { o.num_blocks = INT32_MAX; }));
  CHECK(with([](PlanOptions& o) { o.head_dim = 33; }));
  CHECK(with([](PlanOptions& o) { o.head_dim = 512; }));
  CHECK(with([](PlanOptions& o) { o.num_kv_heads = -1; }));
  CHECK(with([](PlanOptions& o) { o.kernels = "mmx"; }));
  Plan plan(small());
  const std::vector<float> w(32 * 32, 0.5F);
  const auto* bytes = reinterpret_cast<const uint8_t*>(w.data());
  const size_t size = w.size() * sizeof(float);
  CHECK(plan.add_matrix(32, 32, Layout::kW8) == 0);
  CHECK(plan.add_matrix(32, 32, Layout::kW4) == 1);
  CHECK(refuses([&] { plan.add_matrix(1 << 28, 32, Layout::kF32); }));
  CHECK(refuses([&] { plan.add_matrix(64, 16, Layout::kW8); }));
  CHECK(refuses([&] { plan.add_matrix(0, 32, Layout::kF32); }));
  const auto pack = [&](int matrix, SourceType type, size_t source_bytes) {
    plan.pack({{matrix, type, bytes, source_bytes}}, false);
  };
  CHECK(refuses([&] { pack(0, SourceType::kF32, size); }));  // no memory yet
  plan.weights().allocate();
  CHECK(refuses([&] { plan.add_matrix(32, 32, Layout::kW8); }));
  CHECK(refuses([&] { pack(0, SourceType::kF32, size - 1); }));
  CHECK(refuses([&] { pack(2, SourceType::kF32, size); }));
  CHECK(refuses([&] { pack(-1, SourceType::kF32, size); }));
  CHECK(refuses([&] { pack(1, SourceType::kF16, size / 2); }));
  pack(0, SourceType::kF32, size);
  CHECK(refuses([&] { plan.add_buffer(0, false); }));
  CHECK(refuses([&] { plan.add_forms(33, false, false, true, false); }));
}

// Embeds, multiplies by the same matrix, and returns the logits: the smallest whole plan.
void test_a_small_plan_runs_and_checks_its_steps() {
  Plan plan(small());
  std::vector<float> w(20 * 32);
  for (size_t i = 0; i < w.size(); i++) w[i] = static_cast<float>(i % 7) - 3.0F;
  const int matrix = plan.add_matrix(20, 32, Layout::kF32);
  const int x = plan.add_buffer(32, false);
  const int selected = plan.add_buffer(32, true);
  const int forms = plan.add_forms(32, true, false, false, true);
  const int logits = plan.add_buffer(20, true);
  CHECK(refuses([&] { plan.row_embed(matrix, x); }));  // outside a phase
  plan.begin_rows(false);
  plan.row_embed(matrix, x);
  CHECK(refuses([&] { plan.row_select(x, selected); }));  // these rows are tokens
  plan.begin_rows(true);
  plan.row_select(x, selected);
  plan.row_forms(selected, forms);
  CHECK(refuses([&] { plan.linear({{matrix, forms, x, -1}}, true); }));
  plan.linear({{matrix, forms, logits, -1}}, true);
  plan.finish(logits);

  std::vector<int32_t> tokens{3, 19, 0}, positions{0, 1, 2}, cu{0, 3}, slots{0, 1, 2}, table{2}, lens{3}, rows{1, 2};
  const auto step = [&] {
    Step s;
    s.num_tokens = static_cast<int>(tokens.size());
    s.num_seqs = 1;
    s.max_blocks = 1;
    s.num_logits_rows = static_cast<int>(rows.size());
    s.token_ids = tokens.data();
    s.positions = positions.data();
    s.cu_seqlens = cu.data();
    s.slot_mapping = slots.data();
    s.block_tables = table.data();
    s.seq_lens = lens.data();
    s.logits_rows = rows.data();
    return s;
  };
  CHECK(plan.check(step()) != nullptr);  // no weights yet
  plan.weights().allocate();
  plan.pack({{matrix, SourceType::kF32, reinterpret_cast<const uint8_t*>(w.data()), w.size() * sizeof(float)}}, false);
  CHECK(plan.check(step()) == nullptr);
  const float* out = plan.run(step());
  for (size_t r = 0; r < 2; r++) {
    for (size_t j = 0; j < 20; j++) {
      float expected = 0;
      const auto token = static_cast<size_t>(tokens[static_cast<size_t>(rows[r])]);
      for (size_t k = 0; k < 32; k++) expected += w[token * 32 + k] * w[j * 32 + k];  // small integers: exact
      CHECK(out[r * plan.logits_stride() + j] == expected);
    }
  }
  const auto broken = [&](std::vector<int32_t>& field, size_t at, int32_t value) {
    const int32_t old = field[at];
    field[at] = value;
    const bool caught = plan.check(step()) != nullptr;
    field[at] = old;
    return caught;
  };
  CHECK(broken(tokens, 0, 20) && broken(tokens, 2, -1));
  CHECK(broken(positions, 1, -1));
  CHECK(broken(slots, 0, 64) && broken(slots, 0, -1));
  CHECK(broken(cu, 0, 1) && broken(cu, 1, 2));
  CHECK(broken(lens, 0, 2) && broken(lens, 0, 17) && broken(lens, 0, -5));
  CHECK(broken(table, 0, 4) && broken(table, 0, -1));
  CHECK(broken(rows, 1, 3) && broken(rows, 0, -1));
}

// Experts whose shapes, counts or groups do not fit are refused, and runs of columns outside their rows.
void test_experts_and_runs_are_checked() {
  Plan plan(small());
  const int in = plan.add_matrix(4 * 32, 64, Layout::kF32);
  const int out = plan.add_matrix(4 * 64, 32, Layout::kF32);
  const int odd = plan.add_matrix(4 * 24, 64, Layout::kF32);
  const std::vector<float> values(128);
  const int bias = plan.add_vector(values.data(), 128);
  const auto with = [&](auto change) {
    ExpertOptions options{.num_experts = 4,
                          .num_used = 2,
                          .gate = in,
                          .up = in,
                          .down = out,
                          .gate_bias = bias,
                          .up_bias = -1,
                          .down_bias = -1,
                          .selection_bias = -1,
                          .num_groups = 2,
                          .num_groups_used = 1,
                          .group_top = 2,
                          .sigmoid = true,
                          .normalize = true,
                          .factor = 1,
                          .limit = 0};
    change(options);
    return options;
  };
  using O = ExpertOptions;
  const int experts = plan.add_experts(with([](O&) {}));
  for (const auto& bad :
       {with([](O& o) { o.num_used = 3; }), with([](O& o) { o.num_used = 0; }), with([](O& o) { o.num_experts = 3; }),
        with([](O& o) { o.num_groups = 3; }), with([](O& o) { o.num_groups_used = 3; }),
        with([](O& o) { o.group_top = 3; }), with([&](O& o) { o.gate = odd; }), with([&](O& o) { o.down = in; }),
        with([&](O& o) { o.down_bias = bias; }), with([&](O& o) { o.selection_bias = bias; })}) {
    CHECK(refuses([&] { plan.add_experts(bad); }));
  }
  const int x = plan.add_buffer(64, false);
  const int y = plan.add_buffer(32, false);
  plan.begin_rows(false);
  CHECK(refuses([&] { plan.row_route(x, experts); }));
  CHECK(refuses([&] { plan.row_combine(experts, y); }));
  CHECK(refuses([&] { plan.run_experts(y, experts); }));
  plan.begin_rows(false);
  plan.row_arrange({x}, {{0, 40, 24}, {-1, 0, 8}}, y);
  CHECK(refuses([&] { plan.row_arrange({x}, {{0, 41, 24}, {-1, 0, 8}}, y); }));
  CHECK(refuses([&] { plan.row_arrange({x}, {{1, 0, 32}}, y); }));
  CHECK(refuses([&] { plan.row_arrange({x}, {{0, 0, 31}}, y); }));
  CHECK(refuses([&] { plan.row_arrange({x}, {{0, -1, 32}}, y); }));
  CHECK(refuses([&] { plan.row_arrange({y}, {{0, 0, 32}}, y); }));
}

}  // namespace

int main() {
  test_experts_and_runs_are_checked();
  test_pool_runs_every_worker_once();
  test_barrier_separates_phases();
  test_work_share_hands_out_each_item_once();
  test_work_share_waits_for_no_absent_worker();
  test_sizes_are_checked_before_use();
  test_a_small_plan_runs_and_checks_its_steps();
  return quintet::tests::finish("plan");
}
