// Rank over sequences of two-bit digits: each chunk of 256 digits is stored in the cheapest way.
//
// The hybrid encoding of bits.hpp carried to four symbols, so that a step down a wavelet matrix
// settles two bits of a code: half the levels, and half the cache misses, of a binary one. Own design.
// Layout of a unit of n digits (little-endian, n < 2^24, starting at a multiple of 64 bytes):
//   directory  ceil(n / 2048) + 1 entries of 64 bytes, one a superblock of eight chunks:
//              u32 of each digit before it (4), u32 offset of its data from the end of the
//              directory, 4 bytes of nothing, 8 kinds, counts of digits 0 to 3 by chunk (4 x 8);
//              the last entry holds the totals
//   data       the chunks', one after the other
//   kind 0     all digits are the one whose count is 255 (which then stands for 256)
//   kind 64    two planes of 256 bits, the low bits of the digits first
//   other      bytes of data of a list of r = kind * 4 / 5 runs, 2 <= r <= 32: the ends of the first
//              r - 1 runs, the byte 255, the digits of the runs (2 bits each, low bits first)
// Cost: a rank reads one directory entry (one cache line) and one chunk; no loop over digits or runs.
#pragma once
#include <algorithm>
#include <vector>

#include "base.hpp"
#include "mapped_file.hpp"

#if defined(__SSSE3__)
#include <tmmintrin.h>
#endif

namespace unspool {

inline constexpr u32 kQuadChunk = 256;
inline constexpr u32 kQuadSuper = 2048;
inline constexpr u32 kQuadEntry = 64;
inline constexpr u32 kQuadPlain = 64;
inline constexpr u32 kMaxRuns = 32;

namespace quads {

// What precedes one chunk of a superblock, from its directory entry.
struct Place {
  u32 rank;    // of the digit
  u32 offset;  // of the chunk's data
  u32 kind;
};

inline u32 kind_of(const u8* entry, u32 chunk) { return entry[24 + chunk]; }

inline Place place(const u8* entry, u32 chunk, u32 digit) {
  const u64 before = chunk ? ~u64{0} >> (64 - 8 * chunk) : 0;
  const u64 kinds = load<u64>(entry + 24) & before;
  const u64 counts = load<u64>(entry + 32 + 8 * digit) & before;
#if defined(__SSSE3__)
  const __m128i both = _mm_set_epi64x(static_cast<long long>(kinds), static_cast<long long>(counts));
  const __m128i sums = _mm_sad_epu8(both, _mm_setzero_si128());
  // A chunk of one digit counts 255 for 256.
  const __m128i whole = _mm_cmpeq_epi8(both, _mm_set_epi64x(0, -1));
  const u32 mask = static_cast<u32>(_mm_movemask_epi8(whole));
  return {load<u32>(entry + 4 * digit) + static_cast<u32>(_mm_cvtsi128_si32(sums)) +
              static_cast<u32>(__builtin_popcount(mask & (mask >> 8) & 255)),
          load<u32>(entry + 16) + static_cast<u32>(_mm_cvtsi128_si32(_mm_srli_si128(sums, 8))),
          kind_of(entry, chunk)};
#else
  u32 rank = load<u32>(entry + 4 * digit), offset = load<u32>(entry + 16);
  for (u32 c = 0; c < chunk; ++c) {
    const u32 count = entry[32 + 8 * digit + c], kind = entry[24 + c];
    rank += count + (kind == 0 && count == 255);
    offset += kind;
  }
  return {rank, offset, kind_of(entry, chunk)};
#endif
}

// The digit of a chunk that is all one digit.
inline u32 whole_digit(const u8* entry, u32 chunk) {
  for (u32 d = 0; d < 3; ++d)
    if (entry[32 + 8 * d + chunk] == 255) return d;
  return 3;
}

inline u32 num_runs(u32 kind) { return std::min(std::max(kind * 4 / 5, 1u), kMaxRuns); }

// Occurrences of `digit` before position x (< 256) of a chunk with data.
inline u32 chunk_rank(const u8* data, u32 kind, u32 x, u32 digit) {
  if (kind == kQuadPlain) {
    const u64 low = digit & 1 ? 0 : ~u64{0}, high = digit & 2 ? 0 : ~u64{0};
    u32 rank = 0;
    const u32 word = x / 64;
    for (u32 w = 0; w < word; ++w)
      rank += static_cast<u32>(__builtin_popcountll((load<u64>(data + 8 * w) ^ low) &
                                                    (load<u64>(data + 32 + 8 * w) ^ high)));
    const u64 last = (load<u64>(data + 8 * word) ^ low) & (load<u64>(data + 32 + 8 * word) ^ high);
    return rank + static_cast<u32>(__builtin_popcountll(last & ((u64{1} << (x % 64)) - 1)));
  }
  const u32 runs = num_runs(kind);
#if defined(__SSSE3__)
  const __m128i end_a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
  const __m128i vx = _mm_set1_epi8(static_cast<char>(x));
  const __m128i index = _mm_set_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m128i select = _mm_set_epi8(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  const __m128i fields = _mm_set1_epi32(static_cast<int>(0xC0300C03u));
  const __m128i wanted = _mm_set1_epi32(static_cast<int>(digit * 0x40100401u));
  const __m128i digits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(data + runs));
  const __m128i start_a = _mm_slli_si128(end_a, 1);
  const __m128i inside_a = _mm_subs_epu8(_mm_min_epu8(end_a, vx), _mm_min_epu8(start_a, vx));
  const __m128i is_a = _mm_and_si128(
      _mm_cmpeq_epi8(_mm_and_si128(_mm_shuffle_epi8(digits, select), fields), wanted),
      _mm_cmplt_epi8(index, _mm_set1_epi8(static_cast<char>(runs))));
  __m128i sum = _mm_sad_epu8(_mm_and_si128(inside_a, is_a), _mm_setzero_si128());
  if (runs > 16) {
    const __m128i end_b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + 16));
    const __m128i start_b = _mm_alignr_epi8(end_b, end_a, 15);
    const __m128i inside_b = _mm_subs_epu8(_mm_min_epu8(end_b, vx), _mm_min_epu8(start_b, vx));
    const __m128i four = _mm_set1_epi8(4);
    const __m128i is_b = _mm_and_si128(
        _mm_cmpeq_epi8(_mm_and_si128(_mm_shuffle_epi8(digits, _mm_add_epi8(select, four)), fields), wanted),
        _mm_cmplt_epi8(index, _mm_set1_epi8(static_cast<char>(runs - 16))));
    sum = _mm_add_epi64(sum, _mm_sad_epu8(_mm_and_si128(inside_b, is_b), _mm_setzero_si128()));
  }
  return static_cast<u32>(_mm_cvtsi128_si32(sum) + _mm_cvtsi128_si32(_mm_srli_si128(sum, 8)));
#else
  u32 rank = 0, start = 0;
  for (u32 r = 0; r < runs && start < x; ++r) {
    const u32 end = r + 1 < runs ? data[r] : 256;
    if (((data[runs + r / 4] >> (2 * (r % 4))) & 3) == digit) rank += std::min(end, x) - start;
    start = end;
  }
  return rank;
#endif
}

// The digit at position x of a chunk with data.
inline u32 chunk_digit(const u8* data, u32 kind, u32 x) {
  if (kind == kQuadPlain) {
    const u32 low = data[x / 8] >> (x % 8) & 1, high = data[32 + x / 8] >> (x % 8) & 1;
    return high << 1 | low;
  }
  const u32 runs = num_runs(kind);
#if defined(__SSE2__)
  // The run that holds x: as many run ends, the byte 255 apart, are at or before it.
  const __m128i vx = _mm_set1_epi8(static_cast<char>(x));
  const __m128i zero = _mm_setzero_si128();
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + 16));
  const u32 before = static_cast<u32>(_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_subs_epu8(a, vx), zero))) |
                     static_cast<u32>(_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_subs_epu8(b, vx), zero))) << 16;
  const u32 run = static_cast<u32>(__builtin_popcount(before & ((u32{1} << (runs - 1)) - 1)));
#else
  u32 run = 0;
  while (run + 1 < runs && data[run] <= x) ++run;
#endif
  return data[runs + run / 4] >> (2 * (run % 4)) & 3;
}

}  // namespace quads

// Where a unit's directory and data lie in a file.
struct QuadUnit {
  u64 dir = 0, data = 0;
  u32 size = 0;

  static QuadUnit at(u64 offset, u32 size) {
    return {offset, offset + kQuadEntry * (u64{size + kQuadSuper - 1} / kQuadSuper + 1), size};
  }
  u64 dir_entry(u32 i) const { return dir + u64{kQuadEntry} * (i / kQuadSuper); }
};

// Where the data of each directory entry begins, in 16 bytes. Only ever a hint of what to fetch: it is
// read unchecked, and what it says of a damaged file costs time and no truth.
struct Guide {
  const u8* begins;

  static constexpr u32 kGrain = 16;
  static u32 bytes(u32 size) { return 2 * ((size + kQuadSuper - 1) / kQuadSuper + 1); }
  // Brings near the data of the chunk of position i < size, where equal chunks would have it.
  UNSPOOL_ALWAYS_INLINE void fetch_new(const MappedFile& f, const QuadUnit& unit, u32 i) const {
    const u8* p = begins + 2 * u64{i / kQuadSuper};
    const u64 begin = u64{kGrain} * load<u16>(p), end = u64{kGrain} * load<u16>(p + 2);
    const u64 at = unit.data + begin + (end - begin) * (i % kQuadSuper / kQuadChunk) / 8;
    f.fetch_new(at);
    f.fetch_new(at + 64);
  }
};

// Occurrences of `digit` before position i (i <= size).
inline u32 quad_rank(const MappedFile& f, const QuadUnit& unit, u32 i, u32 digit) {
  if (i >= unit.size) {
    const u32 count = (unit.size + kQuadSuper - 1) / kQuadSuper;
    return load<u32>(f.at(unit.dir + u64{kQuadEntry} * count + 4 * digit, 4));
  }
  const u8* entry = f.at(unit.dir_entry(i), kQuadEntry);
  const u32 chunk = i % kQuadSuper / kQuadChunk, x = i % kQuadChunk;
  const quads::Place p = quads::place(entry, chunk, digit);
  if (p.kind == 0) return p.rank + (quads::whole_digit(entry, chunk) == digit ? x : 0);
  return p.rank + quads::chunk_rank(f.at(unit.data + p.offset, p.kind), p.kind, x, digit);
}

// The digit at position i < size.
inline u32 quad_digit(const MappedFile& f, const QuadUnit& unit, u32 i) {
  const u8* entry = f.at(unit.dir_entry(i), kQuadEntry);
  const u32 chunk = i % kQuadSuper / kQuadChunk;
  const quads::Place p = quads::place(entry, chunk, 0);
  if (p.kind == 0) return quads::whole_digit(entry, chunk);
  return quads::chunk_digit(f.at(unit.data + p.offset, p.kind), p.kind, i % kQuadChunk);
}

// Appends the unit of `size` digits, one a byte, to `out`, and its guide, which ends at a multiple of 64,
// before it; the last chunk is filled up with 0. Returns where the unit begins.
u64 append_quads(std::vector<u8>& out, const u8* digits, u32 size);

}  // namespace unspool
