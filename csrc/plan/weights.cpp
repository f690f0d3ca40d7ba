#include "weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "require.h"

namespace quintet {
namespace {

constexpr int kMaxDimension = 1 << 28;
constexpr size_t kAlignment = 64;
// Packed at a time: of a huge page's size, since two threads in one would both clear it.
constexpr size_t kItemBytes = size_t{2} << 20;
constexpr size_t kPage = 4096;

// Some panels of one source.
struct Item {
  const MatrixSource* source;
  int panel_begin, panel_end;
};

// Lets go of the pages that lie wholly within a range; they are read from the file again if anybody asks.
void release(const uint8_t* begin, const uint8_t* end) {
  const auto first = (reinterpret_cast<uintptr_t>(begin) + kPage - 1) / kPage * kPage;
  const auto last = reinterpret_cast<uintptr_t>(end) / kPage * kPage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

constexpr uint64_t kOdd = 0x9e3779b97f4a7c15u;

// FNV-1a's step: undone by no other change of one word, since multiplying by an odd number loses nothing.
uint64_t mixed(uint64_t sum, uint64_t word) {
  sum = (sum ^ word) * kOdd;
  return sum ^ sum >> 32;
}

// Eight sums side by side, so that reading memory is what takes time.
uint64_t checksum_of(const uint8_t* data, size_t size) {
  constexpr size_t kLanes = 8;
  uint64_t lanes[kLanes] = {};
  uint64_t words[kLanes];
  size_t i = 0;
  for (; i + sizeof words <= size; i += sizeof words) {
    std::memcpy(words, data + i, sizeof words);
    for (size_t lane = 0; lane < kLanes; lane++) lanes[lane] = mixed(lanes[lane], words[lane]);
  }
  uint64_t sum = size;
  for (; i < size; i++) sum = mixed(sum, data[i]);
  for (const uint64_t lane : lanes) sum = mixed(sum, lane);
  return sum;
}

}  // namespace

int Weights::add(int n, int k, Layout layout) {
  require(pages_.data() == nullptr, "a matrix after the memory for them");
  require(n > 0 && k > 0 && n < kMaxDimension && k < kMaxDimension, "matrix dimensions are out of range");
  require(static_cast<size_t>(layout) < kNumLayouts, "unknown layout");
  require(k % k_multiple(layout) == 0, "k is not a multiple of the layout's block");
  const size_t bytes = checked_mul(static_cast<size_t>(num_panels(n)), panel_bytes(layout, k));
  require(bytes <= SIZE_MAX / 2 - size_, "the matrices pass the address space");
  places_.push_back({n, k, layout, size_, bytes});
  matrices_.push_back({layout, n, k, nullptr});
  size_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return static_cast<int>(matrices_.size()) - 1;
}

void Weights::allocate() {
  require(pages_.data() == nullptr, "the weights have memory already");
  use(Pages(size_));
  writable_ = true;
}

bool Weights::map(int file, size_t offset) {
  require(pages_.data() == nullptr, "the weights have memory already");
  require(offset % kPage == 0, "the offset is not that of a page");
  Pages pages = Pages::of_file(file, offset, size_);
  if (size_ > 0 && pages.data() == nullptr) return false;
  use(std::move(pages));
  return true;
}

void Weights::unmap() {
  use(Pages());
  writable_ = false;
}

void Weights::use(Pages pages) {
  pages_ = std::move(pages);
  for (size_t i = 0; i < matrices_.size(); i++) {
    matrices_[i].data = pages_.data() == nullptr ? nullptr : pages_.data() + places_[i].offset;
  }
}

int Weights::lock() {
  if (size_ == 0) return 0;
#ifdef MLOCK_ONFAULT
  // As pages are written: locking clears them all first, on one thread.
  if (writable_) return mlock2(pages_.data(), size_, MLOCK_ONFAULT) == 0 ? 0 : errno;
#endif
  return mlock(pages_.data(), size_) == 0 ? 0 : errno;
}

void Weights::pack(const std::vector<MatrixSource>& sources, bool is_mapped, ThreadPool& pool) {
  require(writable_ || sources.empty(), "there is no memory to pack into");
  std::vector<Item> items;
  for (const MatrixSource& source : sources) {
    require(source.matrix >= 0 && static_cast<size_t>(source.matrix) < places_.size(), "no such matrix");
    const Place& place = places_[static_cast<size_t>(source.matrix)];
    require(source.size_bytes > 0 &&
                source.size_bytes == checked_mul(static_cast<size_t>(place.n), source_row_bytes(source.type, place.k)),
            "the source is not [n, k] of its type");
    // No panels: only whether there is such a packing.
    require(pack_panels(source.type, source.data, place.n, place.k, place.layout, 0, 0, pages_.data()),
            "this source type does not pack into this layout");
    const int panels = num_panels(place.n);
    const int per_item = static_cast<int>(std::max<size_t>(1, kItemBytes / panel_bytes(place.layout, place.k)));
    for (int panel = 0; panel < panels; panel += std::min(per_item, panels - panel)) {
      items.push_back({&source, panel, std::min(panels, panel + per_item)});
    }
  }
  const auto run = [&](const Item& item) {
    const MatrixSource& source = *item.source;
    const Place& place = places_[static_cast<size_t>(source.matrix)];
    pack_panels(source.type, source.data, place.n, place.k, place.layout, item.panel_begin, item.panel_end,
                pages_.data() + place.offset);
    if (!is_mapped) return;
    const size_t row_bytes = source_row_bytes(source.type, place.k);
    const auto row = [&](int panel) { return static_cast<size_t>(std::min(place.n, panel * kPanelColumns)); };
    release(source.data + row(item.panel_begin) * row_bytes, source.data + row(item.panel_end) * row_bytes);
  };
  // Each worker takes its own share first, so that memory is first touched where it will be read, and then what the
  // others have left: while a model loads, a core may be busy with the tokenizer.
  const size_t count = items.size();
  const auto threads = static_cast<size_t>(pool.num_threads());
  const auto next = std::make_unique<std::atomic<size_t>[]>(threads);
  for (size_t t = 0; t < threads; t++) next[t].store(count * t / threads, std::memory_order_relaxed);
  pool.run([&](int worker) {
    for (size_t turn = 0; turn < threads; turn++) {
      const size_t share = (static_cast<size_t>(worker) + turn) % threads;
      const size_t end = count * (share + 1) / threads;
      for (size_t i = next[share].fetch_add(1, std::memory_order_relaxed); i < end;
           i = next[share].fetch_add(1, std::memory_order_relaxed)) {
        run(items[i]);
      }
    }
  });
}

uint64_t Weights::checksum(ThreadPool& pool) const {
  const size_t count = pages_.data() == nullptr ? 0 : (size_ + kItemBytes - 1) / kItemBytes;
  std::vector<uint64_t> sums(count);
  const auto threads = static_cast<size_t>(pool.num_threads());
  pool.run([&](int worker) {
    const auto w = static_cast<size_t>(worker);
    for (size_t i = count * w / threads; i < count * (w + 1) / threads; i++) {
      const size_t begin = i * kItemBytes;
      sums[i] = checksum_of(pages_.data() + begin, std::min(kItemBytes, size_ - begin));
    }
  });
  uint64_t sum = count;
  for (const uint64_t part : sums) sum = mixed(sum, part);
  return sum;
}

}  // namespace quintet
