// quintet._native's sampler: checks shapes and token ids, releases the GIL, calls.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>

#include "bindings.h"
#include "row_sampler.h"
#include "vector_math.h"

namespace nb = nanobind;
using nb::literals::operator""_a;
using quintet::RowParams;
using quintet::RowSampler;
using quintet::Sampled;
using quintet::SamplingScratch;

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

nb::tuple to_tuple(const Sampled& sampled) {
  nb::object logprob = nb::none(), top_logprobs = nb::none();
  if (sampled.logprob) {
    logprob = nb::float_(*sampled.logprob);
    nb::list pairs;
    for (const auto& [id, value] : sampled.top_logprobs) pairs.append(nb::make_tuple(id, value));
    top_logprobs = nb::tuple(pairs);
  }
  return nb::make_tuple(sampled.token_id, logprob, top_logprobs);
}

nb::list sample(const Logits& logits, const nb::tuple& samplers, const nb::tuple& masks) {
  const int64_t num_rows = static_cast<int64_t>(logits.shape(0)), width = static_cast<int64_t>(logits.shape(1));
  if (num_rows != static_cast<int64_t>(samplers.size())) {
    throw std::invalid_argument("logits have " + std::to_string(num_rows) + " rows for " +
                                std::to_string(samplers.size()) + " samplers");
  }
  if (masks.size() != 0 && masks.size() != samplers.size()) {
    throw std::invalid_argument(std::to_string(masks.size()) + " masks for " + std::to_string(samplers.size()) +
                                " samplers");
  }
  if (num_rows > 0 && width > 1 && logits.stride(1) != 1)
    throw std::invalid_argument("a row of logits must be contiguous");
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
    SamplingScratch& scratch = thread_scratch();
    for (size_t r = 0; r < rows.size(); ++r) {
      sampled[r] = rows[r]->sample(logits.data() + static_cast<int64_t>(r) * logits.stride(0), scratch, words[r]);
    }
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
  nb::gil_scoped_release release;
  return sampler.distribution(logits.data(), thread_scratch(), words);
}

}  // namespace

void quintet::bind_sampling(nb::module_& m) {
  nb::class_<RowSampler>(m, "RowSampler", "One sequence's sampler; quintet.sampling.RowSampler is its public form.")
      .def(
          "__init__",
          [](RowSampler* self, int vocab_size, uint64_t seed, const std::vector<int32_t>& prompt_ids,
             double temperature, int top_k, double top_p, double min_p, double repetition_penalty,
             double presence_penalty, double frequency_penalty,
             const std::vector<std::pair<int32_t, double>>& logit_bias, int64_t min_tokens,
             const std::vector<int32_t>& ending_ids, int num_logprobs) {
            const RowParams params = {
                temperature,       top_k,      top_p,      min_p,      repetition_penalty, presence_penalty,
                frequency_penalty, logit_bias, min_tokens, ending_ids, num_logprobs};
            new (self) RowSampler(params, vocab_size, prompt_ids, seed);
          },
          nb::kw_only(), "vocab_size"_a, "seed"_a, "prompt_ids"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a,
          "repetition_penalty"_a, "presence_penalty"_a, "frequency_penalty"_a, "logit_bias"_a, "min_tokens"_a,
          "ending_ids"_a, "num_logprobs"_a)
      .def(
          "accept",
          [](RowSampler& self, int32_t token_id) {
            if (token_id < 0 || token_id >= self.vocab_size()) {
              throw std::invalid_argument("token id " + std::to_string(token_id) + " is outside the vocabulary");
            }
            self.accept(token_id);
          },
          "token_id"_a, "Record a token as generated.")
      .def("distribution", &distribution, "logits"_a.noconvert(), "mask"_a = nb::none(),
           "(id, probability) of every token the next draw can give, by rising id; [] for a row without numbers.")
      .def_prop_ro("num_accepted", &RowSampler::num_accepted, "Tokens generated so far.");

  m.def("sample", &sample, "logits"_a.noconvert(), "samplers"_a, "masks"_a = nb::tuple(),
        nb::sig("def sample(logits: numpy.typing.NDArray[numpy.float32], samplers: tuple[RowSampler, ...], "
                "masks: tuple[numpy.typing.NDArray[numpy.uint32] | None, ...] = ()) -> "
                "list[tuple[int, float | None, tuple[tuple[int, float], ...] | None]]"),
        "Sample and accept one token per row of logits [rows, >= vocab_size] float32, in place and without the GIL.\n\n"
        "Returns (token_id, logprob, top_logprobs) per row; token_id is -1 where the row holds NaN or +inf, or nothing "
        "above -inf, and -2 where its mask (a bit per token that may come) leaves nothing above -inf.");
}
