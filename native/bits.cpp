#include "bits.hpp"

#include <algorithm>

namespace unspool {

namespace {

struct Chunk {
  u32 ones;
  u8 descriptor;
  u8 length;
  u8 data[32];
};

void list_positions(const u64* w, bool invert, u8* out) {
  for (u32 i = 0; i < 4; ++i)
    for (u64 x = invert ? ~w[i] : w[i]; x; x &= x - 1)
      *out++ = static_cast<u8>(64 * i + static_cast<u32>(__builtin_ctzll(x)));
}

void encode(const u64* w, Chunk& c) {
  u64 changes[4];
  u32 num_changes = 0;
  c.ones = 0;
  u64 carry = w[0] & 1;  // the first bit is told by the kind, so it is no change
  for (u32 i = 0; i < 4; ++i) {
    changes[i] = w[i] ^ (w[i] << 1 | carry);
    carry = w[i] >> 63;
    c.ones += static_cast<u32>(__builtin_popcountll(w[i]));
    num_changes += static_cast<u32>(__builtin_popcountll(changes[i]));
  }
  const u32 zeros = kChunkBits - c.ones;
  const u32 best = std::min(std::min(c.ones, zeros), num_changes);
  if (best >= 32) {
    c.length = 32;
    c.descriptor = hybrid::kPlain;
    std::memcpy(c.data, w, 32);
    return;
  }
  c.length = static_cast<u8>(best);
  u32 kind;
  if (c.ones == best) {
    kind = hybrid::kOnes;
    list_positions(w, false, c.data);
  } else if (zeros == best) {
    kind = hybrid::kZeros;
    list_positions(w, true, c.data);
  } else {
    kind = (w[0] & 1) ? hybrid::kChangesFrom1 : hybrid::kChangesFrom0;
    list_positions(changes, false, c.data);
  }
  c.descriptor = static_cast<u8>(kind << 6 | best);
}

}  // namespace

void append_unit(std::vector<u8>& out, const u64* words, u32 bits) {
  const u32 supers = (bits + kSuperBits - 1) / kSuperBits;
  const std::size_t dir = out.size();
  out.resize(dir + std::size_t{kDirEntry} * (supers + 1));
  const std::size_t data = out.size();
  const u32 total_words = (bits + 63) / 64;
  u32 rank = 0;
  for (u32 s = 0; s <= supers; ++s) {
    u8 entry[kDirEntry] = {};
    store(entry, rank);
    store(entry + 4, static_cast<u32>(out.size() - data));
    if (s < supers) {
      u64 w[kSuperBits / 64] = {};
      const u32 first = s * (kSuperBits / 64);
      std::memcpy(w, words + first, 8 * std::min<u32>(kSuperBits / 64, total_words - first));
      for (u32 j = 0; j < 8; ++j) {
        Chunk c;
        encode(w + 4 * j, c);
        entry[8 + j] = static_cast<u8>(c.ones);
        entry[16 + j] = c.descriptor;
        out.insert(out.end(), c.data, c.data + c.length);
        rank += c.ones;
      }
    }
    std::memcpy(&out[dir + std::size_t{kDirEntry} * s], entry, kDirEntry);
  }
}

u32 select_one(const MappedFile& f, const BitUnit& unit, u32 k) {
  // Largest superblock whose rank is <= k, then bisect inside it: ranks are monotone.
  u32 lo = 0, hi = (unit.bits + kSuperBits - 1) / kSuperBits;
  while (hi - lo > 1) {
    const u32 mid = (lo + hi) / 2;
    (load<u32>(f.at(unit.dir + u64{kDirEntry} * mid, 4)) <= k ? lo : hi) = mid;
  }
  u32 a = lo * kSuperBits, b = std::min(a + kSuperBits, unit.bits);  // rank(a) <= k < rank(b)
  if (a >= b) throw Corrupt(f.path() + ": a sample points past the sampled rows.");
  while (b - a > 1) {
    const u32 mid = (a + b) / 2;
    (rank_bit(f, unit, mid).rank <= k ? a : b) = mid;
  }
  return a;
}

}  // namespace unspool
