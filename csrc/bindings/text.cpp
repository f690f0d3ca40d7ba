// Arrays of strings as GGUF stores them, made Python strings at once: a vocabulary has hundreds of thousands.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace quintet {
namespace {

using Starts = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr int64_t kLengthBytes = 8;

struct Span {
  const char* data;
  Py_ssize_t size;
};

// The strings of `encoded`, each behind its length: string i is in front of starts[i + 1].
class Strings {
 public:
  Strings(const nb::bytes& encoded, const Starts& starts) : data_(encoded.c_str()), starts_(starts.data()) {
    if (starts.shape(0) == 0) throw std::invalid_argument("starts: expected at least the end");
    count_ = starts.shape(0) - 1;
    const auto size = static_cast<int64_t>(encoded.size());
    for (size_t i = 0; i < count_; i++) {
      if (starts_[i] < 0 || starts_[i + 1] > size || starts_[i + 1] - starts_[i] < kLengthBytes) {
        throw std::invalid_argument("starts: outside the bytes, or not ascending");
      }
    }
  }

  size_t count() const { return count_; }
  Span operator[](size_t i) const {
    const int64_t begin = starts_[i] + kLengthBytes;
    return {data_ + begin, static_cast<Py_ssize_t>(starts_[i + 1] - begin)};
  }

 private:
  const char* data_;
  const int64_t* starts_;
  size_t count_ = 0;
};

nb::object decode(const char* data, Py_ssize_t size) {
  PyObject* text = PyUnicode_DecodeUTF8(data, size, "surrogateescape");
  if (text == nullptr) throw nb::python_error();
  return nb::steal(text);
}

nb::object new_list(size_t count) {
  PyObject* list = PyList_New(static_cast<Py_ssize_t>(count));
  if (list == nullptr) throw nb::python_error();
  return nb::steal(list);
}

nb::object decode_strings(const nb::bytes& encoded, const Starts& starts) {
  const Strings strings(encoded, starts);
  nb::object list = new_list(strings.count());
  for (size_t i = 0; i < strings.count(); i++) {
    const Span span = strings[i];
    PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i), decode(span.data, span.size).release().ptr());
  }
  return list;
}

// A space at the start belongs to the left half.
const char* find_cut(const Span& span) {
  if (span.size < 2) return nullptr;
  return static_cast<const char*>(std::memchr(span.data + 1, ' ', static_cast<size_t>(span.size - 1)));
}

nb::object decode_pairs(const nb::bytes& encoded, const Starts& starts) {
  const Strings strings(encoded, starts);
  for (size_t i = 0; i < strings.count(); i++) {
    if (find_cut(strings[i]) == nullptr) return nb::int_(i);
  }
  nb::object list = new_list(strings.count());
  for (size_t i = 0; i < strings.count(); i++) {
    const Span span = strings[i];
    const char* cut = find_cut(span);
    const Py_ssize_t left_size = cut - span.data;
    nb::object left = decode(span.data, left_size);
    nb::object right = decode(cut + 1, span.size - left_size - 1);
    PyObject* pair = PyTuple_Pack(2, left.ptr(), right.ptr());
    if (pair == nullptr) throw nb::python_error();
    PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i), pair);
  }
  return list;
}

// Where `count` strings begin, from data[begin] on, each a length in eight bytes and its bytes; and then where the last
// of them ends.  Fewer where one passes `end`: the last place is then where that one begins.
nb::object string_starts(const nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>& data,
                         size_t begin, size_t end, size_t count) {
  if (begin > end || end > data.shape(0)) throw std::invalid_argument("expected begin <= end <= len(data)");
  count = std::min<size_t>(count, (end - begin) / kLengthBytes + 1);  // more cannot be there
  auto* starts = new int64_t[count + 1];
  const nb::capsule owner(starts, [](void* p) noexcept { delete[] static_cast<int64_t*>(p); });
  size_t found = 0;
  size_t position = begin;
  {
    const nb::gil_scoped_release release;
    for (; found < count && end - position >= kLengthBytes; found++) {
      uint64_t size = 0;
      std::memcpy(&size, data.data() + position, sizeof size);
      if (size > end - position - kLengthBytes) break;
      starts[found] = static_cast<int64_t>(position);
      position += kLengthBytes + size;
    }
  }
  starts[found] = static_cast<int64_t>(position);
  const size_t shape[] = {found + 1};
  return nb::cast(nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>(starts, 1, shape, owner));
}

}  // namespace

void bind_text(nb::module_& m) {
  m.def("decode_strings", &decode_strings, "encoded"_a, "starts"_a,
        "Strings, each behind eight bytes of length and in front of the next start, as a list.");
  m.def("string_starts", &string_starts, "data"_a, "begin"_a, "end"_a, "count"_a,
        "Where strings behind their lengths begin, and where the last ends; fewer where one passes `end`.");
  m.def("decode_pairs", &decode_pairs, "encoded"_a, "starts"_a,
        "The same cut in two at their first space that is not at the start, or the index of one without.");
}

}  // namespace quintet
