// What both tiers answer, shard by shard, in batches whose cache misses overlap.
#pragma once
#include <vector>

#include "base.hpp"

namespace unspool {

inline constexpr u32 kAbsent = 0;     // dense id 0 is the sentinel, which no query contains
inline constexpr u32 kSeparator = 1;  // dense id of the end of a document

// Rows [lo, hi) of one shard.
struct Rows {
  u64 lo = 0, hi = 0;
  u64 count() const { return hi - lo; }
};

// Rows [lo, hi) whose suffixes begin with dense symbols query[0, length). Where there are none and
// `partly` is set, also how many of the first symbols occur.
template <class Shard>
struct Find {
  const Shard* shard;
  const u32* query;
  u64 length;
  bool partly = false;
  u64 lo = 0, hi = 0;
  u64 matched = 0;  // length, where the whole query occurs
};

// One more symbol for rows [lo, hi) whose suffixes begin with some `depth` symbols.
template <class Shard>
struct Extend {
  const Shard* shard;
  u32 symbol;
  u64 depth;
  u64 lo = 0, hi = 0;
};

struct SymbolCount {
  u32 symbol;  // dense
  u64 count;
};

struct Hit {
  u64 document, start;
};

}  // namespace unspool
