// Owned, zeroed, aligned memory for weights, the KV cache and activations.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quintet {

// Zeroed pages, 64-byte aligned at least.  Large ones ask for huge pages: a 4 kB page per 4 kB of weights costs a
// third of the read bandwidth when every byte is read once a step.  Throws std::bad_alloc.
class Pages {
 public:
  Pages() = default;
  explicit Pages(size_t size_bytes);
  // A file's bytes from `offset` on, to be read only; no memory where it is shorter or cannot be mapped.
  static Pages of_file(int file, size_t offset, size_t size_bytes);
  ~Pages();
  Pages(Pages&& other) noexcept;
  Pages& operator=(Pages&& other) noexcept;
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  void* base_ = nullptr;  // what mmap returned; data_ is aligned within it
  size_t mapped_ = 0;
};

// a * b, or throws std::length_error where it would pass SIZE_MAX.
size_t checked_mul(size_t a, size_t b);

}  // namespace quintet
