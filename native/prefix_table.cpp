#include "prefix_table.hpp"

#include <algorithm>
#include <functional>

#include "query.hpp"

namespace unspool {

void PrefixCounter::keep(u32 l, u64 count) {
  const u32 length = kPrefixLengths[l];
  u64 key = 0;
  // A row's suffix holds the query backwards: its last symbol is the query's first.
  for (u32 i = 0; i < length; ++i) {
    const u64 symbol = (previous_ >> (56 - 8 * i)) & 255;
    if (symbol <= kSeparator) return;
    key = key << 8 | symbol;
  }
  entries_.push_back({key, first_[l] | count << 40});
}

u64 PrefixCounter::write(ContainerWriter& out, u64 rows) {
  for (u32 l = 0; l < kNumPrefixLengths; ++l) close(l, rows);
  // The table may take a 128th of the text: of a small one only the most frequent beginnings stay.
  const u64 most = rows / 128 / 32;
  if (entries_.size() > most) {
    std::vector<u64> counts;
    for (const Entry& e : entries_) counts.push_back(e.rows >> 40);
    std::sort(counts.begin(), counts.end(), std::greater<>());
    const u64 enough = most ? counts[most - 1] : ~u64{0};
    std::erase_if(entries_, [&](const Entry& e) { return e.rows >> 40 <= enough; });
  }
  const u64 slots = 2 * entries_.size() + 1;  // half full: a miss ends after a probe or two
  std::vector<Entry> table(slots, Entry{0, 0});
  for (const Entry& e : entries_) {
    u64 slot = prefix_slot(e.key, slots);
    while (table[slot].key) slot = slot + 1 == slots ? 0 : slot + 1;
    table[slot] = e;
  }
  out.begin("PREFIXES");
  out.write_all(table);
  out.end();
  return slots;
}

}  // namespace unspool
