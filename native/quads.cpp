#include "quads.hpp"

#include <algorithm>

namespace unspool {

namespace {

// Appends one chunk's data and returns its kind; counts are those of its digits.
u32 encode(std::vector<u8>& out, const u8* digits, u32* counts) {
  u64 low[4] = {}, high[4] = {};
  for (u32 i = 0; i < kQuadChunk; ++i) {
    low[i / 64] |= u64{digits[i] & 1u} << (i % 64);
    high[i / 64] |= u64{digits[i]} >> 1 << (i % 64);
  }
  u64 changes[4];
  u32 runs = 1, twos = 0, ones = 0, threes = 0;
  u64 carry_low = low[0] & 1, carry_high = high[0] & 1;
  for (u32 w = 0; w < 4; ++w) {
    changes[w] = (low[w] ^ (low[w] << 1 | carry_low)) | (high[w] ^ (high[w] << 1 | carry_high));
    carry_low = low[w] >> 63;
    carry_high = high[w] >> 63;
    runs += static_cast<u32>(__builtin_popcountll(changes[w]));
    ones += static_cast<u32>(__builtin_popcountll(low[w] & ~high[w]));
    twos += static_cast<u32>(__builtin_popcountll(high[w] & ~low[w]));
    threes += static_cast<u32>(__builtin_popcountll(high[w] & low[w]));
  }
  counts[0] = kQuadChunk - ones - twos - threes;
  counts[1] = ones;
  counts[2] = twos;
  counts[3] = threes;
  if (runs == 1) return 0;
  if (runs > kMaxRuns) {
    const std::size_t at = out.size();
    out.resize(at + 64);
    std::memcpy(&out[at], low, 32);
    std::memcpy(&out[at + 32], high, 32);
    return kQuadPlain;
  }
  const u32 size = runs + (runs + 3) / 4;
  u8 list[kMaxRuns + kMaxRuns / 4 + 8] = {};
  u32 run = 0;
  list[runs] |= digits[0];
  for (u32 w = 0; w < 4; ++w)
    for (u64 x = changes[w]; x; x &= x - 1) {
      const u32 position = 64 * w + static_cast<u32>(__builtin_ctzll(x));
      list[run++] = static_cast<u8>(position);
      list[runs + run / 4] |= static_cast<u8>(digits[position] << (2 * (run % 4)));
    }
  list[run] = 255;
  out.insert(out.end(), list, list + size);
  return size;
}

}  // namespace

u64 append_quads(std::vector<u8>& out, const u8* digits, u32 size) {
  const u32 supers = (size + kQuadSuper - 1) / kQuadSuper;
  const std::size_t dir = round_up(out.size() + Guide::bytes(size), 64);
  const std::size_t guide = dir - Guide::bytes(size);
  out.resize(dir + std::size_t{kQuadEntry} * (supers + 1));
  const std::size_t data = out.size();
  u32 ranks[4] = {};
  for (u32 s = 0; s <= supers; ++s) {
    u8 entry[kQuadEntry] = {};
    if (s == supers) ranks[0] = size - ranks[1] - ranks[2] - ranks[3];  // without the filling
    for (u32 d = 0; d < 4; ++d) store(entry + 4 * d, ranks[d]);
    store(entry + 16, static_cast<u32>(out.size() - data));
    store(&out[guide + 2 * std::size_t{s}], static_cast<u16>((out.size() - data) / Guide::kGrain));
    for (u32 c = 0; c < kQuadSuper / kQuadChunk && s < supers; ++c) {
      const u32 at = s * kQuadSuper + c * kQuadChunk;
      u8 last[kQuadChunk] = {};
      const u8* chunk = digits + at;
      if (at + kQuadChunk > size) {
        if (at < size) std::memcpy(last, chunk, size - at);
        chunk = last;
      }
      u32 counts[4];
      entry[24 + c] = static_cast<u8>(encode(out, chunk, counts));
      for (u32 d = 0; d < 4; ++d) {
        entry[32 + 8 * d + c] = static_cast<u8>(std::min(counts[d], 255u));
        ranks[d] += counts[d];
      }
    }
    std::memcpy(&out[dir + std::size_t{kQuadEntry} * s], entry, kQuadEntry);
  }
  return dir;
}

}  // namespace unspool
