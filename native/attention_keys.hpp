// Which keys a query tile meets, and which pairs of them need the rules looked at one by one.
#pragma once
#include <algorithm>
#include <limits>

#include "attention.hpp"

namespace unspool::attention {

// Positions and documents of a tile are counted from those of its rows, so that they fit in lanes.
inline i32 near_zero(i64 x) {
  return static_cast<i32>(std::clamp<i64>(x, -(i64{1} << 30), i64{1} << 30));
}

// The query rows of a tile as lanes; lanes past the last row repeat it.
struct Rows {
  alignas(64) i32 position[kRows], document[kRows], excused[kRows], valid[kRows];
  i64 first = std::numeric_limits<i64>::max(), last = std::numeric_limits<i64>::min();
  bool any_padding = false, any_global = false;
  i32 num_documents = 0;
  i64 documents[kRows];  // distinct ones

  Rows(const Problem& p, const Tile& tile) {
    const i64* positions = p.q_positions.of(tile.batch);
    const i64* numbers = p.q_documents.of(tile.batch);
    const u8* global = p.q_global.of(tile.batch);
    i64 found[kRows];
    for (i64 i = 0; i < tile.count; ++i) {
      const i64 query = tile.query + i;
      found[i] = positions ? positions[query] : p.keys - p.queries + query;
      document[i] = numbers ? ordinal(numbers[query], true) : 0;
      excused[i] = global && global[query] ? -1 : 0;
      valid[i] = positions && found[i] < 0 ? 0 : -1;
      any_padding |= !valid[i];
      if (!valid[i]) continue;
      any_global |= excused[i] != 0;
      first = std::min(first, found[i]);
      last = std::max(last, found[i]);
    }
    for (i64 i = 0; i < tile.count; ++i) position[i] = near_zero(found[i] - (empty() ? 0 : first));
    for (i64 row = tile.count; row < kRows; ++row) {
      const i64 i = row < tile.rows() ? row % tile.count : tile.count - 1;
      position[row] = position[i];
      document[row] = document[i];
      excused[row] = excused[i];
      valid[row] = valid[i];
    }
  }

  bool empty() const { return first > last; }

  // Number of a document among those of the rows; -1 if it is none of theirs.
  i32 ordinal(i64 number, bool add = false) {
    for (i32 i = 0; i < num_documents; ++i)
      if (documents[i] == number) return i;
    if (!add) return -1;
    documents[num_documents] = number;
    return num_documents++;
  }
};

// Keys that are met together.
struct KeyTile {
  i64 n = 0;
  bool some_hidden = false;  // from some rows
  i32 at[kKeys];
  alignas(64) i32 position[kKeys], document[kKeys], excused[kKeys];
  bool hidden[kKeys];
};

// Goes through the list of a tile, leaving out keys that none of its rows may see.
class Keys {
 public:
  Keys(const Problem& p, const Tile& tile, Rows& rows)
      : p_(p),
        rows_(rows),
        positions_(p.k_positions.of(tile.batch)),
        documents_(p.k_documents.of(tile.batch)),
        global_(p.k_global.of(tile.batch)),
        entry_(tile.begin),
        end_(rows.empty() ? tile.begin : tile.end) {
    if (p.indices) {
      const i64 head = tile.head * p.list_heads / p.heads;
      const i64 batch = p.list_batches == 1 ? 0 : tile.batch;
      const i64 row = (batch * p.list_heads + head) * p.list_rows + tile.query / p.block_q;
      list_ = p.indices + row * p.list_length;
      size_ = p.block_k;
    }
  }

  void fill(KeyTile& out) {
    out.n = 0;
    out.some_hidden = false;
    while (out.n < kKeys) {
      if (key_ == stop_ && !next_block()) return;
      for (; key_ < stop_ && out.n < kKeys; ++key_) add(out, key_);
    }
  }

 private:
  bool next_block() {
    while (entry_ < end_) {
      const i64 block = list_ ? list_[entry_] : entry_;
      ++entry_;
      if (block < 0 || block * size_ >= p_.keys) continue;
      key_ = block * size_;
      stop_ = std::min(p_.keys, key_ + size_);
      if (!positions_ && size_ > 8 && out_of_sight(key_, stop_ - 1)) {
        key_ = stop_;
        continue;
      }
      return true;
    }
    return false;
  }

  // No row sees a key at positions from … to.
  bool out_of_sight(i64 from, i64 to) const {
    if (!p_.any_distance && rows_.last - from < p_.min_distance) return true;
    return p_.near && !rows_.any_global && !global_ && from >= p_.sinks &&
           (rows_.first - to > p_.near_max || rows_.last - from < p_.near_min);
  }

  void add(KeyTile& out, i64 at) {
    const i64 position = positions_ ? positions_[at] : at;
    if (position < 0) return;
    const i64 least = rows_.first - position, most = rows_.last - position;
    bool hidden = rows_.any_padding, excused = true;
    if (!p_.any_distance) {
      if (most < p_.min_distance) return;
      hidden |= least < p_.min_distance;
    }
    if (p_.near) {
      excused = position < p_.sinks || (global_ && global_[at]);
      if (!excused) {
        if (!rows_.any_global && (least > p_.near_max || most < p_.near_min)) return;
        hidden |= most > p_.near_max || least < p_.near_min;
      }
    }
    out.document[out.n] = 0;
    if (documents_) {
      const i32 document = rows_.ordinal(documents_[at]);
      if (document < 0) return;
      hidden |= rows_.num_documents > 1;
      out.document[out.n] = document;
    }
    out.at[out.n] = static_cast<i32>(at);
    out.position[out.n] = near_zero(position - rows_.first);
    out.hidden[out.n] = hidden;
    out.excused[out.n] = excused ? -1 : 0;
    out.some_hidden |= hidden;
    ++out.n;
  }

  const Problem& p_;
  Rows& rows_;
  const i64 *positions_, *documents_;
  const u8* global_;
  const i32* list_ = nullptr;
  i64 size_ = kKeys;
  i64 entry_, end_, key_ = 0, stop_ = 0;
};

}  // namespace unspool::attention
