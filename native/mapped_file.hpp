// A file that is read by mmap, each unit of 512 bytes checked against its CRC when first touched.
//
// The checksums of the data's units lie in a table, whose own units are checked alike against a
// second table, which was checked when the file was opened: opening costs 1/16384 of the file. Units
// are small because most reads are of one cache line: a page would be 64 lines from memory.
// A file that shrinks under the map would raise SIGBUS: a handler maps a zero page there and
// poisons the map, and the query that met it ends in Corrupt.
#pragma once
#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>

#include "base.hpp"
#include "poll.hpp"

namespace unspool {

inline constexpr u64 kPage = 4096;
inline constexpr u64 kUnit = 512;

struct FreeMemory {
  void operator()(void* p) const { std::free(p); }
};

class MappedFile {
 public:
  MappedFile(const std::string& path, bool ram);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  u64 size() const { return size_; }

  // From now on units of the data, [0, table), and of the table of their checksums, [table, second),
  // are checked. The checksums of the latter, from `second` on, are trusted, and so is page 0.
  void set_checksums(u64 table, u64 second);

  // Pointer to [offset, offset + length), bounds and checksums checked.
  const u8* at(u64 offset, u64 length) const {
    if (UNSPOOL_UNLIKELY(length > size_ || offset > size_ - length)) out_of_bounds(offset, length);
    const u64 first = offset / kUnit, last = (offset + length - (length != 0)) / kUnit;
    // Nearly always one unit, or two that were both seen before.
    if (UNSPOOL_UNLIKELY(pending(first) | pending(last) | (last - first > 1))) check_units(first, last);
    return base_ + offset;
  }
  // Brings the cache line at an offset near.
  UNSPOOL_ALWAYS_INLINE void fetch(u64 offset) const {
    if (UNSPOOL_LIKELY(offset < size_)) prefetch(base_ + offset);
  }
  // The same where the unit is likely to be new: all that its check will read.
  UNSPOOL_ALWAYS_INLINE void fetch_new(u64 offset) const {
    if (UNSPOOL_UNLIKELY(offset >= size_)) return;
    if (pending(offset / kUnit))
      fetch_unit(offset / kUnit);
    else
      prefetch(base_ + offset);
  }
  // Pointer without checksums, bounds checked: header and checksum tables.
  const u8* raw(u64 offset, u64 length) const {
    if (length > size_ || offset > size_ - length) out_of_bounds(offset, length);
    return base_ + offset;
  }

  // Whether a unit before the second table is what was written.
  bool is_sound(u64 unit) const;
  // To be called at the end of every query.
  void throw_if_poisoned() const {
    if (UNSPOOL_UNLIKELY(poisoned_.load(std::memory_order_acquire))) throw_poisoned();
  }
  void advise_random() const;
  void warm(Poll& poll) const;
  // About so many reads of [begin, end) are to come. Checked one by one they may cost more than the
  // whole range in one go, which is then done.
  void expect(u64 begin, u64 end, u64 reads, Poll& poll) const;

 private:
  friend struct BusGuard;
  bool pending(u64 unit) const {
    return pending_[unit / 64].load(std::memory_order_relaxed) >> (unit % 64) & 1;
  }
  void fetch_unit(u64 unit) const;
  void check_units(u64 first, u64 last) const;
  void read_through(u64 begin, u64 end, Poll& poll) const;
  [[noreturn]] void out_of_bounds(u64 offset, u64 length) const;
  [[noreturn]] void throw_poisoned() const;

  std::string path_;
  u8* base_ = nullptr;
  u64 size_ = 0;
  u64 mapped_ = 0;
  u64 table_ = 0, second_ = 0;  // where the checksums of the data lie, and those of their table
  int slot_ = -1;
  // A bit a unit, set until it was checked; none is set in a file without checksums.
  std::unique_ptr<std::atomic<u64>[], FreeMemory> pending_;
  mutable std::atomic<bool> all_read_{false};  // what `expect` was told about
  std::atomic<bool> poisoned_{false};
};

}  // namespace unspool
