// Vocabularies: strings found by their spelling, and byte pair encoding.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <stdexcept>

#include "bindings.h"
#include "byte_pairs.h"
#include "string_index.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace quintet {
namespace {

using Starts = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Strings strings_of(const nb::bytes& encoded, const Starts& starts) {
  if (starts.shape(0) == 0) throw std::invalid_argument("starts: expected at least the end");
  return {encoded.c_str(), encoded.size(), starts.data(), starts.shape(0) - 1};
}

// An index and the memory it looks into.
struct HeldIndex {
  HeldIndex(const nb::bytes& encoded_bytes, const Starts& string_starts)
      : encoded(encoded_bytes), starts(string_starts) {
    const Strings strings = strings_of(encoded, starts);
    const nb::gil_scoped_release release;
    index.emplace(strings);
  }

  nb::bytes encoded;
  Starts starts;
  std::optional<StringIndex> index;
};

struct HeldPairs {
  HeldPairs(const HeldIndex& tokens, const nb::bytes& encoded, const Starts& starts,
            const std::vector<std::string>& alphabet)
      : num_tokens(tokens.index->strings().count()) {
    const Strings merges = strings_of(encoded, starts);
    const nb::gil_scoped_release release;
    pairs.emplace(*tokens.index, merges, alphabet);
  }

  size_t num_tokens;
  std::optional<BytePairs> pairs;
};

// Appends a character of a checked text in UTF-8.
void append_utf8(Py_UCS4 code, std::string& bytes) {
  const auto put = [&](Py_UCS4 byte) { bytes += static_cast<char>(byte); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xc0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xe0 | code >> 12);
    } else {
      put(0xf0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3f));
    }
    put(0x80 | (code >> 6 & 0x3f));
  }
  put(0x80 | (code & 0x3f));
}

int64_t integer(PyObject* number) {
  const long long value = PyLong_AsLongLong(number);
  if (value == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
  return value;
}

// A part of a text: a token that is known, or bytes that are to be encoded.
struct Part {
  int32_t token;  // or -1
  size_t end;     // of its bytes
};

nb::object encode(const HeldPairs& held, const nb::str& text, const nb::list& ids, const nb::list& offsets,
                  const std::vector<int32_t>& known, bool ignores_merges, const nb::bytes& is_hidden) {
  if (held.pairs->first_bad_merge() >= 0) throw std::invalid_argument("these merges cannot be used");
  if (is_hidden.size() != 0 && is_hidden.size() != held.num_tokens) {
    throw std::invalid_argument("is_hidden: expected a byte per token, or none");
  }
  if (ids.size() != offsets.size()) throw std::invalid_argument("expected as many offsets as ids");
  const Py_ssize_t length = PyUnicode_GET_LENGTH(text.ptr());
  const int kind = PyUnicode_KIND(text.ptr());
  const void* characters = PyUnicode_DATA(text.ptr());
  std::string bytes;
  std::vector<Part> parts;
  for (size_t i = 0; i < ids.size(); i++) {
    const int64_t id = integer(ids[i].ptr());
    if (id < 0 || static_cast<size_t>(id) > known.size()) throw std::invalid_argument("ids: out of range");
    if (id > 0) {
      parts.push_back({known[static_cast<size_t>(id) - 1], bytes.size()});
      continue;
    }
    const nb::handle span = offsets[i];
    if (!PyTuple_Check(span.ptr()) || PyTuple_GET_SIZE(span.ptr()) != 2) {
      throw std::invalid_argument("offsets: expected pairs");
    }
    const int64_t begin = integer(PyTuple_GET_ITEM(span.ptr(), 0));
    const int64_t end = integer(PyTuple_GET_ITEM(span.ptr(), 1));
    if (begin < 0 || begin > end || end > length) throw std::invalid_argument("offsets: outside the text");
    for (int64_t at = begin; at < end; at++) append_utf8(PyUnicode_READ(kind, characters, at), bytes);
    parts.push_back({-1, bytes.size()});
  }
  std::vector<int32_t> tokens;
  {
    const nb::gil_scoped_release release;
    BytePairs::Rules rules{.ignores_merges = ignores_merges};
    if (is_hidden.size() != 0) rules.is_hidden = reinterpret_cast<const uint8_t*>(is_hidden.c_str());
    BytePairs::Scratch scratch;
    size_t begin = 0;
    for (const Part& part : parts) {
      if (part.token >= 0) {
        tokens.push_back(part.token);
      } else {
        held.pairs->encode(std::string_view(bytes).substr(begin, part.end - begin), rules, scratch, tokens);
        begin = part.end;
      }
    }
  }
  nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(tokens.size())));
  if (!list.is_valid()) throw nb::python_error();
  for (size_t i = 0; i < tokens.size(); i++) {
    PyObject* token = PyLong_FromLong(tokens[i]);
    if (token == nullptr) throw nb::python_error();
    PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i), token);
  }
  return list;
}

// The first string that is not UTF-8, or -1.
int64_t first_invalid(const HeldIndex& held) {
  const Strings& strings = held.index->strings();
  const nb::gil_scoped_release release;
  for (size_t i = 0; i < strings.count(); i++) {
    if (!is_utf8(strings[i])) return static_cast<int64_t>(i);
  }
  return -1;
}

}  // namespace

void bind_tokenizer(nb::module_& m) {
  nb::class_<HeldIndex>(m, "StringIndex", "Finds strings, each behind eight bytes of length; see string_index.h.")
      .def(nb::init<const nb::bytes&, const Starts&>(), "encoded"_a, "starts"_a)
      .def(
          "find",
          [](const HeldIndex& held, const nb::bytes& text) { return held.index->find({text.c_str(), text.size()}); },
          "text"_a, "The place of the first string that is this one, or -1.")
      .def(
          "duplicate",
          [](const HeldIndex& held) {
            return nb::make_tuple(held.index->duplicate().first, held.index->duplicate().second);
          },
          "The first string that is there twice and where it is again, or -1 twice.")
      .def("first_invalid", &first_invalid, "The first string that is not UTF-8, or -1.");
  nb::class_<HeldPairs>(m, "BytePairs", "Byte pair encoding; see byte_pairs.h.")
      .def(nb::init<const HeldIndex&, const nb::bytes&, const Starts&, const std::vector<std::string>&>(), "tokens"_a,
           "encoded"_a, "starts"_a, "alphabet"_a, nb::keep_alive<1, 2>())
      .def(
          "first_bad_merge", [](const HeldPairs& held) { return held.pairs->first_bad_merge(); },
          "The first merge that is not two tokens whose join is a third, or -1.")
      .def(
          "makes",
          [](const HeldPairs& held, int32_t token) {
            return token >= 0 && static_cast<size_t>(token) < held.num_tokens && held.pairs->makes(token);
          },
          "token"_a, "Whether some merge results in this token.")
      .def("encode", &encode, "text"_a, "ids"_a, "offsets"_a, nb::kw_only(), "known"_a, "ignores_merges"_a,
           "is_hidden"_a,
           "Tokens of a text cut into parts: where an id is 0 the characters between the two offsets are encoded, "
           "others stand for known[id - 1].  `is_hidden`: a byte per token, or none.");
}

}  // namespace quintet
