// A file that is read by mmap, each 4 KiB page checked against its CRC when first touched.
//
// A file that shrinks under the map would raise SIGBUS: a handler maps a zero page there and
// poisons the map, and the query that met it ends in Corrupt.
#pragma once
#include <atomic>
#include <memory>
#include <string>

#include "base.hpp"

namespace unspool {

inline constexpr u64 kPage = 4096;

class MappedFile {
 public:
  MappedFile(const std::string& path, bool ram);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  u64 size() const { return size_; }

  // Pages [0, pages) are checked from now on; before this call none is.
  void set_checksums(const u8* crcs, u64 pages);

  // Pointer to [offset, offset + length), bounds and pages checked.
  const u8* at(u64 offset, u64 length) const {
    if (UNSPOOL_UNLIKELY(length > size_ || offset > size_ - length)) out_of_bounds(offset, length);
    const u64 first = offset / kPage, last = (offset + length - (length != 0)) / kPage;
    // Nearly always one page, or two that were both seen before.
    if (UNSPOOL_UNLIKELY(!(seen(first) & seen(last) & (last - first < 2)))) check_pages(first, last);
    return base_ + offset;
  }
  // Pointer without any check, for prefetching only.
  const u8* peek(u64 offset) const {
    return reinterpret_cast<const u8*>(reinterpret_cast<std::uintptr_t>(base_) + offset);
  }
  // Pointer without page checks, bounds checked: header and checksum table.
  const u8* raw(u64 offset, u64 length) const {
    if (length > size_ || offset > size_ - length) out_of_bounds(offset, length);
    return base_ + offset;
  }

  bool page_is_sound(u64 page) const;
  // To be called at the end of every query.
  void throw_if_poisoned() const {
    if (UNSPOOL_UNLIKELY(poisoned_.load(std::memory_order_acquire))) throw_poisoned();
  }
  void advise_random() const;
  void warm() const;

 private:
  friend struct BusGuard;
  bool seen(u64 page) const {
    return checked_[page].load(std::memory_order_relaxed);
  }
  void mark_pages(bool value);
  void check_pages(u64 first, u64 last) const;
  [[noreturn]] void out_of_bounds(u64 offset, u64 length) const;
  [[noreturn]] void throw_poisoned() const;

  std::string path_;
  u8* base_ = nullptr;
  u64 size_ = 0;
  u64 mapped_ = 0;
  const u8* crcs_ = nullptr;
  u64 pages_ = 0;
  int slot_ = -1;
  // By page; all set in a file without checksums.
  std::unique_ptr<std::atomic<bool>[]> checked_;
  std::atomic<bool> poisoned_{false};
};

}  // namespace unspool
