#include "memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <new>
#include <stdexcept>
#include <utility>

namespace quintet {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = 4096;

}  // namespace

size_t checked_mul(size_t a, size_t b) {
  size_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) throw std::length_error("a size passes the address space");
  return product;
}

Pages::Pages(size_t size_bytes) : size_(size_bytes) {
  if (size_bytes == 0) return;
  const size_t alignment = size_bytes >= kHugePage ? kHugePage : kPage;
  if (size_bytes > SIZE_MAX - 2 * kHugePage) throw std::bad_alloc();
  mapped_ = size_bytes + alignment;
  base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base_ == MAP_FAILED) {
    base_ = nullptr;
    throw std::bad_alloc();
  }
  const auto address = reinterpret_cast<uintptr_t>(base_);
  data_ = reinterpret_cast<uint8_t*>((address + alignment - 1) / alignment * alignment);
#ifdef MADV_HUGEPAGE
  if (alignment == kHugePage) madvise(data_, size_bytes, MADV_HUGEPAGE);  // a wish: refusal is no error
#endif
}

Pages Pages::of_file(int file, size_t offset, size_t size_bytes) {
  Pages pages;
  struct stat status = {};
  if (size_bytes == 0 || fstat(file, &status) != 0 || status.st_size < 0) return pages;
  const auto available = static_cast<size_t>(status.st_size);
  if (offset > available || size_bytes > available - offset || size_bytes > SIZE_MAX - kHugePage) return pages;
  // A place for it that starts as a huge page does: file systems with large folios map them whole.
  const size_t reserved = size_bytes + kHugePage;
  void* base = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return pages;
  pages.base_ = base;
  pages.mapped_ = reserved;
  const auto address = (reinterpret_cast<uintptr_t>(base) + kHugePage - 1) / kHugePage * kHugePage;
  void* data = mmap(reinterpret_cast<void*>(address), size_bytes, PROT_READ, MAP_SHARED | MAP_FIXED, file,
                    static_cast<off_t>(offset));
  if (data == MAP_FAILED) return pages;
  pages.data_ = static_cast<uint8_t*>(data);
  pages.size_ = size_bytes;
#ifdef MADV_HUGEPAGE
  madvise(data, size_bytes, MADV_HUGEPAGE);
#endif
#ifdef MADV_POPULATE_READ
  if (madvise(data, size_bytes, MADV_POPULATE_READ) == 0) return pages;
#endif
  madvise(data, size_bytes, MADV_WILLNEED);
  return pages;
}

Pages::~Pages() {
  if (base_ != nullptr) munmap(base_, mapped_);
}

Pages::Pages(Pages&& other) noexcept { *this = std::move(other); }

Pages& Pages::operator=(Pages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(base_, other.base_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

}  // namespace quintet
