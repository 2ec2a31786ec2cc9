// CRC-32C (Castagnoli), the checksum of every page: hardware where there is some, else tables.
#pragma once
#include <array>

#include "base.hpp"

#if defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace unspool {

namespace detail {

struct CrcTables {
  u32 t[8][256];
  constexpr CrcTables() : t{} {
    for (u32 i = 0; i < 256; ++i) {
      u32 c = i;
      for (int k = 0; k < 8; ++k) c = (c >> 1) ^ ((c & 1) ? 0x82F63B78u : 0);
      t[0][i] = c;
    }
    for (u32 i = 0; i < 256; ++i)
      for (int s = 1; s < 8; ++s) t[s][i] = (t[s - 1][i] >> 8) ^ t[0][t[s - 1][i] & 255];
  }
};
inline constexpr CrcTables kCrc{};

inline u32 crc_tables(u32 crc, const u8* p, u64 n) {
  const auto& t = kCrc.t;
  for (; n >= 8; p += 8, n -= 8) {
    u64 x = load<u64>(p) ^ crc;
    crc = t[7][x & 255] ^ t[6][(x >> 8) & 255] ^ t[5][(x >> 16) & 255] ^ t[4][(x >> 24) & 255] ^
          t[3][(x >> 32) & 255] ^ t[2][(x >> 40) & 255] ^ t[1][(x >> 48) & 255] ^ t[0][x >> 56];
  }
  while (n--) crc = (crc >> 8) ^ t[0][(crc ^ *p++) & 255];
  return crc;
}

#if defined(__SSE4_2__)
inline u32 crc_word(u32 crc, u64 word) { return static_cast<u32>(__builtin_ia32_crc32di(crc, word)); }
inline u32 crc_byte(u32 crc, u8 byte) { return __builtin_ia32_crc32qi(crc, byte); }
inline constexpr bool kHasCrc = true;
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
inline u32 crc_word(u32 crc, u64 word) { return __crc32cd(crc, word); }
inline u32 crc_byte(u32 crc, u8 byte) { return __crc32cb(crc, byte); }
inline constexpr bool kHasCrc = true;
#else
inline u32 crc_word(u32 crc, u64) { return crc; }
inline u32 crc_byte(u32 crc, u8) { return crc; }
inline constexpr bool kHasCrc = false;
#endif

// What kLane bytes of zero make of a checksum, byte by byte of it.
inline constexpr u64 kLane = 168;  // three lanes are a block of 504 bytes
struct CrcShift {
  u32 t[4][256];
  constexpr CrcShift() : t{} {
    u32 bit[32] = {};
    for (u32 i = 0; i < 32; ++i) {
      u32 c = u32{1} << i;
      for (u64 n = 0; n < kLane; ++n) c = (c >> 8) ^ kCrc.t[0][c & 255];
      bit[i] = c;
    }
    for (u32 k = 0; k < 4; ++k)
      for (u32 value = 0; value < 256; ++value)
        for (u32 i = 0; i < 8; ++i)
          if (value >> i & 1) t[k][value] ^= bit[8 * k + i];
  }
  u32 operator()(u32 c) const {
    return t[0][c & 255] ^ t[1][(c >> 8) & 255] ^ t[2][(c >> 16) & 255] ^ t[3][c >> 24];
  }
};
inline constexpr CrcShift kShift{};

// The instruction takes three cycles and one may begin in each: three lanes are summed side by side
// and joined.
inline u32 crc_hardware(u32 crc, const u8* p, u64 n) {
  for (; n >= 3 * kLane; p += 3 * kLane, n -= 3 * kLane) {
    u32 second = 0, third = 0;
    for (u64 i = 0; i < kLane; i += 8) {
      crc = crc_word(crc, load<u64>(p + i));
      second = crc_word(second, load<u64>(p + kLane + i));
      third = crc_word(third, load<u64>(p + 2 * kLane + i));
    }
    crc = kShift(kShift(crc) ^ second) ^ third;
  }
  for (; n >= 8; p += 8, n -= 8) crc = crc_word(crc, load<u64>(p));
  while (n--) crc = crc_byte(crc, *p++);
  return crc;
}

}  // namespace detail

// The standard value: crc32c("123456789") == 0xE3069283. Chain by passing the previous result.
inline u32 crc32c(const void* data, u64 size, u32 seed = 0) {
  const u8* p = static_cast<const u8*>(data);
  u32 c = ~seed;
  c = detail::kHasCrc ? detail::crc_hardware(c, p, size) : detail::crc_tables(c, p, size);
  return ~c;
}

}  // namespace unspool
