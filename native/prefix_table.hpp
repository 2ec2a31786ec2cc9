// Rows of frequent beginnings: a search starts several symbols in, past the widest ranges.
//
// The first steps of a search are its dearest: in the FM tier their ranges span blocks, so both ends
// are walked apart; in the SA tier each halving of a wide range is two cold cache lines. Strings of 3,
// 4, 6 and 8 symbols whose rows number at least a threshold are kept in a hash table with linear
// probing (section PREFIXES): key u64 (the symbols, first one lowest; 0: free), first row in 40 bits,
// number of rows in 24. Alphabets of at most 256 dense symbols only.
#pragma once
#include <vector>

#include "container.hpp"

namespace unspool {

inline constexpr u32 kPrefixLengths[] = {3, 4, 6, 8};
inline constexpr u32 kNumPrefixLengths = 4;
inline constexpr u32 kMostPrefix = 8;

inline u64 prefix_slot(u64 key, u64 slots) {
  const u64 hash = (key ^ (key >> 32)) * 0x9E3779B97F4A7C15ull;
  return static_cast<u64>((static_cast<unsigned __int128>(hash ^ (hash >> 29)) * slots) >> 64);
}

class PrefixTable {
 public:
  void open(const Container& container, u64 slots) {
    file_ = &container.file();
    slots_ = slots;
    if (slots_) offset_ = container.need("PREFIXES", 16 * slots_).offset;
  }
  bool empty() const { return slots_ == 0; }
  static u64 key(const u32* query, u32 length) {
    u64 key = 0;
    for (u32 i = 0; i < length; ++i) key |= u64{query[i]} << (8 * i);
    return key;
  }
  UNSPOOL_ALWAYS_INLINE void fetch(u64 key) const { file_->fetch(offset_ + 16 * prefix_slot(key, slots_)); }
  bool find(u64 key, u64* lo, u64* hi) const {
    u64 slot = prefix_slot(key, slots_);
    for (u64 tries = 0; tries < slots_; ++tries) {
      const u8* p = file_->at(offset_ + 16 * slot, 16);
      const u64 here = load<u64>(p);
      if (here == key) {
        const u64 rows = load<u64>(p + 8);
        *lo = rows & kLow40;
        *hi = *lo + (rows >> 40);
        return true;
      }
      if (here == 0) return false;
      if (++slot == slots_) slot = 0;
    }
    return false;
  }

 private:
  static constexpr u64 kLow40 = (u64{1} << 40) - 1;
  const MappedFile* file_ = nullptr;
  u64 slots_ = 0, offset_ = 0;
};

// Brings near what find_prefix will read.
void fetch_prefix(const PrefixTable& table, const u32* query, u64 length);
// Looks the first symbols of a query up, longest beginning first; how many were found, 0 for none.
// The first min(length, kMostPrefix) symbols occur.
u32 find_prefix(const PrefixTable& table, const u32* query, u64 length, u64* lo, u64* hi);

// Sees every suffix in order by its first 8 symbols, first one highest.
class PrefixCounter {
 public:
  // Keeps beginnings of at least `threshold` rows; of too many the `most` most frequent. `reversed`:
  // the suffixes hold queries backwards.
  PrefixCounter(u64 threshold, u64 most, bool reversed)
      : threshold_(threshold), most_(most), reversed_(reversed) {}
  void add(u64 row, u64 symbols) {
    const u64 differs = symbols ^ previous_;
    const u32 same = differs ? static_cast<u32>(__builtin_clzll(differs)) / 8 : 8;
    if (same < 8) {
      for (u32 l = 0; l < kNumPrefixLengths; ++l)
        if (same < kPrefixLengths[l]) close(l, row);
      previous_ = symbols;
    }
  }
  // Writes the section and returns its slots.
  u64 write(ContainerWriter& out, u64 rows);

 private:
  void close(u32 l, u64 row) {
    const u64 count = row - first_[l];
    if (count >= threshold_ && count < (u64{1} << 24)) keep(l, count);
    first_[l] = row;
  }
  void keep(u32 l, u64 count);
  struct Entry {
    u64 key, rows;
  };
  u64 threshold_, most_, previous_ = 0, first_[kNumPrefixLengths] = {};
  bool reversed_;
  std::vector<Entry> entries_;
};

}  // namespace unspool
