// The packed matrices of a plan, all in one run of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace quintet {

// What a matrix is packed from.
struct MatrixSource {
  int matrix = 0;
  SourceType type = SourceType::kF32;
  const uint8_t* data = nullptr;  // [n, k] of `type`
  size_t size_bytes = 0;
};

// Matrices are added first; then there is memory for all of them, fresh or a file's; fresh memory is packed into.
// Misuse and bad sizes throw std::invalid_argument.
class Weights {
 public:
  // Where a matrix lies in the run.
  struct Place {
    int n;
    int k;
    Layout layout;
    size_t offset;
    size_t size_bytes;
  };

  int add(int n, int k, Layout layout);

  // Fresh memory for all that was added.  Throws std::bad_alloc.
  void allocate();
  // Takes what `file` has from `offset` (a multiple of the page) on, without reading it.  False where it is too short,
  // or cannot be mapped.
  bool map(int file, size_t offset);
  // Gives the memory back, to take other.
  void unmap();
  // Keeps the run in physical memory; 0, or errno.
  int lock();

  // Packs `sources` on all threads of the pool.  Pages of `is_mapped` sources, which must be shared mappings of files,
  // are let go of as soon as they are packed, so that little more than the packed weights is resident at any time.
  void pack(const std::vector<MatrixSource>& sources, bool is_mapped, ThreadPool& pool);

  // Of all bytes, for finding damage: any changed bit changes it.  Not for finding forgery.
  uint64_t checksum(ThreadPool& pool) const;

  // Null data until there is memory.
  const PackedMatrix& matrix(int id) const { return matrices_.at(static_cast<size_t>(id)); }
  const std::vector<Place>& places() const { return places_; }
  const uint8_t* data() const { return pages_.data(); }
  size_t size_bytes() const { return size_; }

 private:
  void use(Pages pages);

  std::vector<PackedMatrix> matrices_;
  std::vector<Place> places_;
  size_t size_ = 0;
  Pages pages_;
  bool writable_ = false;
};

}  // namespace quintet
