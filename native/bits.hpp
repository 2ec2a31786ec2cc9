// Hybrid bit vector with rank: each 256-bit chunk is stored in the cheapest of four ways.
//
// Source: the hybrid encoding of Kärkkäinen, Kempa and Puglisi (2014), "Hybrid compression of
// bitvectors for the FM-index"; block sizes, layout and the SIMD-in-list rank here are our own.
// Layout of a unit of n bits (all little-endian, n < 2^24):
//   directory  ceil(n / 2048) + 1 entries of 24 bytes, one a superblock of eight chunks: ones before
//              it (u32), offset of its data from the end of the directory (u32), 8 popcounts (mod
//              256), 8 descriptors; the last entry holds the totals
//   data       the chunks', one after the other
//   descriptor length of the data in the low 6 bits, kind in the high 2: the positions of the ones
//              (0), of the zeros (1), of the bit changes starting from 0 (2) or from 1 (3); length
//              32 is the plain bits.
// Cost: a rank reads one directory entry and one chunk, two cache lines, and has no loop over bits.
#pragma once
#include <vector>

#include "base.hpp"
#include "mapped_file.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace unspool {

inline constexpr u32 kChunkBits = 256;
inline constexpr u32 kSuperBits = 2048;
inline constexpr u32 kDirEntry = 24;

namespace hybrid {

enum Kind : u32 { kOnes = 0, kZeros = 1, kChangesFrom0 = 2, kChangesFrom1 = 3 };
inline constexpr u32 kPlain = 32;

inline u64 sum_bytes(u64 x) {
  constexpr u64 even = 0x00FF00FF00FF00FFull;
  return (((x & even) + ((x >> 8) & even)) * 0x0001000100010001ull) >> 48;
}
// Number of bytes of x that equal 0.
inline u32 count_zero_bytes(u64 x) {
  constexpr u64 low7 = 0x7F7F7F7F7F7F7F7Full;
  return static_cast<u32>(__builtin_popcountll(~(((x & low7) + low7) | x | low7)));
}

struct ListRank {
  u32 below;    // list entries smaller than x
  bool present; // x itself is in the list
  int signed_sum;  // of the entries below x: second, fourth, … minus first, third, …
};

// Everything rank needs from a sorted list of `length` <= 31 bytes. Reads 32 bytes at p.
template <bool kSum>
inline ListRank list_rank(const u8* p, u32 length, u32 x) {
#if defined(__SSE2__)
  const u32 valid = (u32{1} << length) - 1;
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16));
  const __m128i vx = _mm_set1_epi8(static_cast<char>(x));
  const __m128i zero = _mm_setzero_si128();
  // x -sat v == 0 exactly where v >= x
  const __m128i ga = _mm_cmpeq_epi8(_mm_subs_epu8(vx, a), zero);
  const __m128i gb = _mm_cmpeq_epi8(_mm_subs_epu8(vx, b), zero);
  const u32 ge = static_cast<u32>(_mm_movemask_epi8(ga)) |
                 static_cast<u32>(_mm_movemask_epi8(gb)) << 16;
  const u32 eq = static_cast<u32>(_mm_movemask_epi8(_mm_cmpeq_epi8(a, vx))) |
                 static_cast<u32>(_mm_movemask_epi8(_mm_cmpeq_epi8(b, vx))) << 16;
  ListRank r;
  r.below = static_cast<u32>(__builtin_popcount(~ge & valid));
  r.present = (eq & valid) != 0;
  r.signed_sum = 0;
  if constexpr (kSum) {
    // The list is sorted, so the entries below x are its first `below` ones.
    alignas(16) static constexpr u8 kIndex[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                  11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                  22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    const __m128i n = _mm_set1_epi8(static_cast<char>(r.below));
    const __m128i ia = _mm_load_si128(reinterpret_cast<const __m128i*>(kIndex));
    const __m128i ib = _mm_load_si128(reinterpret_cast<const __m128i*>(kIndex + 16));
    const __m128i ka = _mm_and_si128(a, _mm_cmplt_epi8(ia, n));
    const __m128i kb = _mm_and_si128(b, _mm_cmplt_epi8(ib, n));
    const __m128i even = _mm_set1_epi16(0x00FF);
    const __m128i minus = _mm_add_epi64(_mm_sad_epu8(_mm_and_si128(ka, even), zero),
                                        _mm_sad_epu8(_mm_and_si128(kb, even), zero));
    const __m128i all = _mm_add_epi64(_mm_sad_epu8(ka, zero), _mm_sad_epu8(kb, zero));
    const int m = _mm_cvtsi128_si32(minus) + _mm_cvtsi128_si32(_mm_srli_si128(minus, 8));
    const int t = _mm_cvtsi128_si32(all) + _mm_cvtsi128_si32(_mm_srli_si128(all, 8));
    r.signed_sum = t - 2 * m;
  }
  return r;
#else
  ListRank r{0, false, 0};
  for (u32 i = 0; i < length; ++i) {
    const u32 v = p[i];
    r.below += v < x;
    r.present |= v == x;
    if (kSum && v < x) r.signed_sum += (i & 1) ? static_cast<int>(v) : -static_cast<int>(v);
  }
  return r;
#endif
}

struct RankBit {
  u32 rank;
  u32 bit;
};

// Ones before bit x of a chunk, and that bit. `kind_length` is the chunk's descriptor.
inline RankBit chunk_rank(const u8* data, u32 kind_length, u32 x) {
  const u32 length = kind_length & 63, kind = kind_length >> 6;
  if (length == kPlain) {
    const u32 word = x >> 6;
    u32 rank = 0;
    for (u32 w = 0; w < word; ++w)
      rank += static_cast<u32>(__builtin_popcountll(load<u64>(data + 8 * w)));
    const u64 last = load<u64>(data + 8 * word);
    rank += static_cast<u32>(__builtin_popcountll(last & ((u64{1} << (x & 63)) - 1)));
    return {rank, static_cast<u32>(last >> (x & 63)) & 1};
  }
  if (kind <= kZeros) {
    if (length == 0) return {kind == kOnes ? 0 : x, kind};
    const ListRank r = list_rank<false>(data, length & 31, x);
    return kind == kOnes ? RankBit{r.below, r.present} : RankBit{x - r.below, !r.present};
  }
  const ListRank r = list_rank<true>(data, length & 31, x);
  // Changes lie at the first position of the new value.
  const u32 odd = r.below & 1;
  const u32 ones = static_cast<u32>(r.signed_sum + static_cast<int>(odd ? x : 0));
  const u32 bit = odd ^ static_cast<u32>(r.present);
  return kind == kChangesFrom0 ? RankBit{ones, bit} : RankBit{x - ones, bit ^ 1};
}

// What precedes one chunk of a superblock, from its directory entry: ones, and bytes of data.
struct ChunkPlace {
  u32 ones, offset, kind;
};
inline ChunkPlace place_chunk(const u8* entry, u32 chunk) {
  const u8* kinds_at = entry + 16;
  const u32 rank = load<u32>(entry), data = load<u32>(entry + 4);
#if defined(__SSE2__)
  alignas(16) static constexpr u64 kBefore[8][2] = {
      {0, 0}, {0xFF, 0xFF}, {0xFFFF, 0xFFFF}, {0xFFFFFF, 0xFFFFFF}, {0xFFFFFFFF, 0xFFFFFFFF},
      {0xFFFFFFFFFF, 0xFFFFFFFFFF}, {0xFFFFFFFFFFFF, 0xFFFFFFFFFFFF},
      {0xFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFF}};
  const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(entry + 8));
  const __m128i before = _mm_load_si128(reinterpret_cast<const __m128i*>(kBefore[chunk]));
  const __m128i seen = _mm_and_si128(all, before);
  const __m128i lengths = _mm_set_epi64x(0x3F3F3F3F3F3F3F3F, -1);
  const __m128i sums = _mm_sad_epu8(_mm_and_si128(seen, lengths), _mm_setzero_si128());
  // A chunk of 256 ones has count 0 (mod 256) and descriptor "no zeros".
  const __m128i full = _mm_set_epi64x(0x4040404040404040, -1);
  const u32 all_ones = static_cast<u32>(_mm_movemask_epi8(_mm_cmpeq_epi8(seen, full))) >> 8;
  return {rank + static_cast<u32>(_mm_cvtsi128_si32(sums)) +
              256 * static_cast<u32>(__builtin_popcount(all_ones)),
          data + static_cast<u32>(_mm_cvtsi128_si32(_mm_srli_si128(sums, 8))), kinds_at[chunk]};
#else
  const u64 before = chunk ? ~u64{0} >> (64 - 8 * chunk) : 0;
  const u64 counts = load<u64>(entry + 8), kinds = load<u64>(kinds_at);
  constexpr u64 six = 0x3F3F3F3F3F3F3F3Full, full = 0x4040404040404040ull;
  return {rank + static_cast<u32>(sum_bytes(counts & before)) +
              256 * count_zero_bytes((kinds ^ full) | ~before),
          data + static_cast<u32>(sum_bytes(kinds & six & before)), kinds_at[chunk]};
#endif
}

}  // namespace hybrid

// Where a unit's directory and data lie in a file.
struct BitUnit {
  u64 dir = 0, data = 0;
  u32 bits = 0;

  static BitUnit at(u64 offset, u32 bits) {
    return {offset, offset + kDirEntry * (u64{bits + kSuperBits - 1} / kSuperBits + 1), bits};
  }
  u64 dir_entry(u32 i) const { return dir + u64{kDirEntry} * (i / kSuperBits); }
};

// Ones before bit i (i <= bits) and bit i (0 where i == bits).
inline hybrid::RankBit rank_bit(const MappedFile& f, const BitUnit& unit, u32 i) {
  if (i >= unit.bits) {
    const u32 count = (unit.bits + kSuperBits - 1) / kSuperBits;
    return {load<u32>(f.at(unit.dir + u64{kDirEntry} * count, 4)), 0};
  }
  const hybrid::ChunkPlace c =
      hybrid::place_chunk(f.at(unit.dir_entry(i), kDirEntry), i % kSuperBits / kChunkBits);
  const u8* data = f.at(unit.data + c.offset, c.kind & 63);
  const hybrid::RankBit r = hybrid::chunk_rank(data, c.kind, i % kChunkBits);
  return {c.ones + r.rank, r.bit};
}

// Position of the one that has k ones before it in the unit.
u32 select_one(const MappedFile& f, const BitUnit& unit, u32 k);

// Appends the unit of `bits` bits in `words` (bits past the end are 0) to `out`.
void append_unit(std::vector<u8>& out, const u64* words, u32 bits);

}  // namespace unspool
