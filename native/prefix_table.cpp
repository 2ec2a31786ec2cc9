#include "prefix_table.hpp"

#include <algorithm>
#include <functional>

#include "query.hpp"

namespace unspool {

namespace {

// Calls f(length, key) for each beginning of a query that the table may hold.
template <class F>
void each_beginning(const u32* query, u64 length, F f) {
  u64 key = 0;
  u32 at = 0;
  for (const u32 next : kPrefixLengths) {
    if (next > length) return;
    for (; at < next; ++at) key |= u64{query[at]} << (8 * at);
    f(next, key);
  }
}

}  // namespace

void fetch_prefix(const PrefixTable& table, const u32* query, u64 length) {
  if (!table.empty()) each_beginning(query, length, [&](u32, u64 key) { table.fetch(key); });
}

u32 find_prefix(const PrefixTable& table, const u32* query, u64 length, u64* lo, u64* hi) {
  if (table.empty()) return 0;
  u64 keys[kNumPrefixLengths];
  u32 tries = 0;
  each_beginning(query, length, [&](u32, u64 key) { keys[tries++] = key; });
  while (tries--)
    if (table.find(keys[tries], lo, hi)) return kPrefixLengths[tries];
  return 0;
}

void PrefixCounter::keep(u32 l, u64 count) {
  const u32 length = kPrefixLengths[l];
  u64 key = 0;
  for (u32 i = 0; i < length; ++i) {
    const u64 symbol = (previous_ >> (56 - 8 * i)) & 255;
    if (symbol <= kSeparator) return;
    key |= symbol << (8 * (reversed_ ? length - 1 - i : i));
  }
  entries_.push_back({key, first_[l] | count << 40});
}

u64 PrefixCounter::write(ContainerWriter& out, u64 rows) {
  for (u32 l = 0; l < kNumPrefixLengths; ++l) close(l, rows);
  if (entries_.size() > most_) {
    std::vector<u64> counts;
    for (const Entry& e : entries_) counts.push_back(e.rows >> 40);
    std::sort(counts.begin(), counts.end(), std::greater<>());
    const u64 enough = most_ ? counts[most_ - 1] : ~u64{0};
    std::erase_if(entries_, [&](const Entry& e) { return e.rows >> 40 <= enough; });
  }
  const u64 slots = entries_.size() + entries_.size() / 2 + 1;  // two thirds full: few probes a miss
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
