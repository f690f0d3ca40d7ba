// quintet._native's sampler: checks shapes and token ids, releases the GIL, calls.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>

#include "bindings.h"
#include "denormals.h"
#include "logprobs.h"
#include "row_sampler.h"
#include "thread_pool.h"
#include "vector_math.h"

namespace nb = nanobind;
using nb::literals::operator""_a;
using quintet::DryParams;
using quintet::RowParams;
using quintet::RowSampler;
using quintet::Sampled;
using quintet::SamplingScratch;
using quintet::Stage;
using quintet::ThreadPool;
using quintet::TokenScore;
using quintet::TokenSequences;

namespace {

using Logits = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;
using Mask = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using LogitsRow = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

SamplingScratch& thread_scratch() {
  thread_local SamplingScratch scratch;
  return scratch;
}

std::string width_error(int64_t width, int vocab_size) {
  return "logits have " + std::to_string(width) + " columns, the sampler's vocabulary " + std::to_string(vocab_size);
}

// A row's mask, or null for None; the caller keeps the object alive.
const uint32_t* mask_words(const nb::handle& mask, const RowSampler& sampler) {
  if (mask.is_none()) return nullptr;
  Mask words;
  if (!nb::try_cast(mask, words, false)) throw nb::type_error("masks must be contiguous uint32 arrays or None");
  if (words.shape(0) < static_cast<size_t>(quintet::num_mask_words(sampler.vocab_size()))) {
    throw std::invalid_argument("a mask has " + std::to_string(words.shape(0)) + " words for a vocabulary of " +
                                std::to_string(sampler.vocab_size()));
  }
  return words.data();
}

void require_rows(int64_t num_rows, int64_t width, int64_t stride) {
  if (num_rows > 0 && width > 1 && stride != 1) throw std::invalid_argument("a row of logits must be contiguous");
}

std::string outside_vocabulary(int32_t id) { return "token id " + std::to_string(id) + " is outside the vocabulary"; }

// Calls body(row) once for each, on all threads where there are any; it must not throw.
template <typename Body>
void for_each_row(ThreadPool* threads, size_t num_rows, const Body& body) {
  const quintet::FlushDenormals mode;  // as on their threads: a row must not depend on where it is sampled
  std::atomic<size_t> next{0};
  const std::function<void(int)> task = [&](int) {
    for (size_t row = next.fetch_add(1); row < num_rows; row = next.fetch_add(1)) body(row);
  };
  if (threads == nullptr) {
    task(0);
  } else {
    threads->run(task);
  }
}

// True where it takes longer to sample these one after the other than to wake a thread, some 50 us.  150,000 logits
// take a greedy row 20 us, and others ten times as long.
bool are_worth_waking(const std::vector<RowSampler*>& rows) {
  constexpr size_t kGreedy = 1, kOther = 8, kWaking = size_t{1} << 20;
  size_t work = 0;
  for (const RowSampler* row : rows)
    work += static_cast<size_t>(row->vocab_size()) * (row->is_greedy() ? kGreedy : kOther);
  return rows.size() > 1 && work >= kWaking;
}

// True where one of them is named twice: it must see its rows in order.
bool has_twins(std::vector<RowSampler*> rows) {
  std::sort(rows.begin(), rows.end());
  return std::adjacent_find(rows.begin(), rows.end()) != rows.end();
}

nb::tuple to_tuple(const std::vector<std::pair<int32_t, double>>& logprobs) {
  nb::list pairs;
  for (const auto& [id, value] : logprobs) pairs.append(nb::make_tuple(id, value));
  return nb::tuple(pairs);
}

nb::tuple to_tuple(const Sampled& sampled) {
  nb::object logprob = nb::none(), top_logprobs = nb::none();
  if (sampled.logprob) {
    logprob = nb::float_(*sampled.logprob);
    top_logprobs = to_tuple(sampled.top_logprobs);
  }
  return nb::make_tuple(sampled.token_id, logprob, top_logprobs);
}

nb::list sample(const Logits& logits, const nb::tuple& samplers, const nb::tuple& masks, ThreadPool* threads) {
  const int64_t num_rows = static_cast<int64_t>(logits.shape(0)), width = static_cast<int64_t>(logits.shape(1));
  if (num_rows != static_cast<int64_t>(samplers.size())) {
    throw std::invalid_argument("logits have " + std::to_string(num_rows) + " rows for " +
                                std::to_string(samplers.size()) + " samplers");
  }
  if (masks.size() != 0 && masks.size() != samplers.size()) {
    throw std::invalid_argument(std::to_string(masks.size()) + " masks for " + std::to_string(samplers.size()) +
                                " samplers");
  }
  require_rows(num_rows, width, logits.stride(1));
  if (num_rows > 1 && logits.stride(0) < width) throw std::invalid_argument("rows of logits must not overlap");
  std::vector<RowSampler*> rows;  // kept alive by the tuple
  for (const nb::handle sampler : samplers) {
    RowSampler* row = nullptr;
    if (!nb::try_cast(sampler, row) || row == nullptr) throw nb::type_error("samplers must be RowSampler objects");
    if (width < row->vocab_size()) throw std::invalid_argument(width_error(width, row->vocab_size()));
    rows.push_back(row);
  }
  std::vector<const uint32_t*> words(rows.size(), nullptr);
  for (size_t r = 0; r < masks.size(); ++r) words[r] = mask_words(masks[r], *rows[r]);

  std::vector<Sampled> sampled(rows.size());
  {
    nb::gil_scoped_release release;
    if (!are_worth_waking(rows) || has_twins(rows)) threads = nullptr;
    for_each_row(threads, rows.size(), [&](size_t r) {
      float* row = logits.data() + static_cast<int64_t>(r) * logits.stride(0);
      try {
        sampled[r] = rows[r]->sample(row, thread_scratch(), words[r]);
      } catch (const std::exception&) {  // no memory; the other rows have their tokens all the same
        sampled[r] = {.token_id = Sampled::kFailed, .logprob = {}, .top_logprobs = {}};
      }
    });
  }
  nb::list results;
  for (const Sampled& row : sampled) results.append(to_tuple(row));
  return results;
}

std::vector<std::pair<int32_t, double>> distribution(const RowSampler& sampler, const LogitsRow& logits,
                                                     const nb::object& mask) {
  const int64_t width = static_cast<int64_t>(logits.shape(0));
  if (width < sampler.vocab_size()) throw std::invalid_argument(width_error(width, sampler.vocab_size()));
  const uint32_t* words = mask_words(mask, sampler);
  const quintet::FlushDenormals mode;  // as sample() does
  nb::gil_scoped_release release;
  return sampler.distribution(logits.data(), thread_scratch(), words);
}

nb::list score_rows(const nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>& logits, int vocab_size,
                    const std::vector<int32_t>& token_ids, int num_top, ThreadPool* threads) {
  const int64_t num_rows = static_cast<int64_t>(logits.shape(0)), width = static_cast<int64_t>(logits.shape(1));
  require_rows(num_rows, width, logits.stride(1));
  if (vocab_size < 1 || width < vocab_size) throw std::invalid_argument(width_error(width, vocab_size));
  if (num_rows != static_cast<int64_t>(token_ids.size())) {
    throw std::invalid_argument("logits have " + std::to_string(num_rows) + " rows for " +
                                std::to_string(token_ids.size()) + " tokens");
  }
  if (num_top < 0) throw std::invalid_argument("num_top must be at least 0");
  for (const int32_t id : token_ids) {
    if (id < 0 || id >= vocab_size) throw std::invalid_argument(outside_vocabulary(id));
  }
  std::vector<std::optional<TokenScore>> scores(token_ids.size());
  {
    nb::gil_scoped_release release;
    std::atomic<bool> has_memory{true};
    for_each_row(scores.size() > 1 ? threads : nullptr, scores.size(), [&](size_t r) {
      const float* row = logits.data() + static_cast<int64_t>(r) * logits.stride(0);
      try {
        scores[r] = quintet::score(row, vocab_size, token_ids[r], num_top, thread_scratch());
      } catch (const std::exception&) {
        has_memory.store(false);
      }
    });
    if (!has_memory.load()) throw std::bad_alloc();
  }
  nb::list results;
  for (const std::optional<TokenScore>& found : scores) {
    results.append(found ? nb::object(nb::make_tuple(found->logprob, to_tuple(found->top))) : nb::none());
  }
  return results;
}

}  // namespace

void quintet::bind_sampling(nb::module_& m) {
  nb::enum_<Stage>(m, "Stage", "A stage of the sampler; see quintet.sampling.SamplingParams.sampler_order.")
      .value("PENALTIES", Stage::kPenalties)
      .value("DRY", Stage::kDry)
      .value("TOP_N_SIGMA", Stage::kTopNSigma)
      .value("TEMPERATURE", Stage::kTemperature)
      .value("TOP_K", Stage::kTopK)
      .value("TYPICAL_P", Stage::kTypicalP)
      .value("TOP_P", Stage::kTopP)
      .value("MIN_P", Stage::kMinP)
      .value("XTC", Stage::kXtc);

  nb::class_<RowParams>(m, "RowParams", "What a sampler acts on; as made, it only draws.")
      .def(nb::init<>())
      .def_rw("temperature", &RowParams::temperature)
      .def_rw("dynatemp_range", &RowParams::dynatemp_range)
      .def_rw("dynatemp_exponent", &RowParams::dynatemp_exponent)
      .def_rw("top_n_sigma", &RowParams::top_n_sigma)
      .def_rw("top_k", &RowParams::top_k)
      .def_rw("typical_p", &RowParams::typical_p)
      .def_rw("top_p", &RowParams::top_p)
      .def_rw("min_p", &RowParams::min_p)
      .def_rw("xtc_probability", &RowParams::xtc_probability)
      .def_rw("xtc_threshold", &RowParams::xtc_threshold)
      .def_rw("mirostat", &RowParams::mirostat)
      .def_rw("mirostat_tau", &RowParams::mirostat_tau)
      .def_rw("mirostat_eta", &RowParams::mirostat_eta)
      .def_rw("repetition_penalty", &RowParams::repetition_penalty)
      .def_rw("presence_penalty", &RowParams::presence_penalty)
      .def_rw("frequency_penalty", &RowParams::frequency_penalty)
      .def_rw("penalty_last_n", &RowParams::penalty_last_n)
      .def_rw("logit_bias", &RowParams::logit_bias)
      .def_rw("min_tokens", &RowParams::min_tokens)
      .def_rw("ending_ids", &RowParams::ending_ids)
      .def_rw("num_logprobs", &RowParams::num_logprobs)
      .def_rw("order", &RowParams::order)
      .def_rw("dry", &RowParams::dry);

  nb::class_<TokenSequences>(m, "TokenSequences", "Token sequences to look for; made once, shared by many samplers.")
      .def(nb::init<std::vector<std::vector<int32_t>>>(), "sequences"_a);

  nb::class_<DryParams>(m, "DryParams", "What the DRY penalty acts on; as made, it is off.")
      .def(nb::init<>())
      .def_rw("multiplier", &DryParams::multiplier)
      .def_rw("base", &DryParams::base)
      .def_rw("allowed_length", &DryParams::allowed_length)
      .def_rw("last_n", &DryParams::last_n)
      .def_rw("breakers", &DryParams::breakers, "breakers"_a.none());

  nb::class_<RowSampler>(m, "RowSampler", "One sequence's sampler; quintet.sampling.RowSampler is its public form.")
      .def(nb::init<RowParams, int, const std::vector<int32_t>&, uint64_t>(), "params"_a, nb::kw_only(), "vocab_size"_a,
           "prompt_ids"_a, "seed"_a)
      .def(
          "accept",
          [](RowSampler& self, int32_t token_id) {
            if (token_id < 0 || token_id >= self.vocab_size()) {
              throw std::invalid_argument(outside_vocabulary(token_id));
            }
            self.accept(token_id);
          },
          "token_id"_a, "Record a token as generated.")
      .def("distribution", &distribution, "logits"_a.noconvert(), "mask"_a = nb::none(),
           "(id, probability) of every token the next draw can give, by rising id; [] for a row without numbers.")
      .def_prop_ro("num_accepted", &RowSampler::num_accepted, "Tokens generated so far.");

  m.def(
      "sample", &sample, "logits"_a.noconvert(), "samplers"_a, "masks"_a = nb::tuple(), "threads"_a.none() = nb::none(),
      nb::sig(
          "def sample(logits: numpy.typing.NDArray[numpy.float32], samplers: tuple[RowSampler, ...], "
          "masks: tuple[numpy.typing.NDArray[numpy.uint32] | None, ...] = (), threads: ThreadPool | None = None) -> "
          "list[tuple[int, float | None, tuple[tuple[int, float], ...] | None]]"),
      "Sample and accept one token per row of logits [rows, >= vocab_size] float32, in place and without the GIL.\n\n"
      "Returns (token_id, logprob, top_logprobs) per row; token_id is -1 where the row holds NaN or +inf, or nothing "
      "above -inf, -2 where its mask (a bit per token that may come) leaves nothing above -inf, and -3 where there was "
      "no memory to sample it.");

  m.def("score", &score_rows, "logits"_a.noconvert(), nb::kw_only(), "vocab_size"_a, "token_ids"_a, "num_top"_a,
        "threads"_a.none() = nb::none(),
        nb::sig("def score(logits: numpy.typing.NDArray[numpy.float32], *, vocab_size: int, token_ids: "
                "collections.abc.Sequence[int], num_top: int, threads: ThreadPool | None = None) -> "
                "list[tuple[float, tuple[tuple[int, float], ...]] | None]"),
        "Log-probability of a token per row of logits [rows, >= vocab_size] float32, and of the most probable ones, "
        "without the GIL.\n\nNone where the row holds NaN or +inf, or nothing above -inf.");
}
