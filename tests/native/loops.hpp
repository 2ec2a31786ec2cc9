// What the tests of vectors and codes share: counted checks, a unit in a file, odd frequencies.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "huffman.hpp"

inline unspool::u64 g_checks = 0;
[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}
// A macro, so that the message is put together only for a failure.
#define check(holds, what) (++g_checks, (holds) ? void() : fail(what))

inline int report() {
  std::printf("%llu checks\n", static_cast<unsigned long long>(g_checks));
  return 0;
}

// Writes the bytes of a unit into `folder`; the path.
inline std::string write_unit(const std::string& folder, const std::vector<unspool::u8>& bytes) {
  const std::string path = folder + "/unit";
  FILE* file = std::fopen(path.c_str(), "wb");
  if (!file || std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) std::abort();
  std::fclose(file);
  return path;
}

// Prefix codes of alphabets of many sizes over digits of `bits` bits: within the limit of digits,
// for what occurs and nothing else, prefix-free, and complete but for fillers of the last depth.
inline void check_codes(std::mt19937_64& random, unspool::u32 limit, unspool::u32 bits) {
  using namespace unspool;
  for (u32 sigma = 1; sigma <= 300; sigma = sigma < 20 ? sigma + 1 : sigma * 3 / 2) {
    for (int kind = 0; kind < 3; ++kind) {
      std::vector<u64> frequency(sigma);
      u64 a = 1, b = 1;  // Fibonacci numbers make the deepest codes
      for (u32 c = 0; c < sigma; ++c) {
        frequency[c] = kind == 0 ? 1 + random() % 1000 : kind == 1 ? a : random() % 2;
        if (b < u64{1} << 40) {
          b += a;
          std::swap(a, b);
        }
      }
      const auto length = huffman_lengths(frequency, limit, bits);
      u64 kraft = 0, used = 0;
      u32 deepest = 0;
      for (u32 c = 0; c < sigma; ++c) {
        check((length[c] != 0) == (frequency[c] != 0) || used < 2, "a code for what occurs");
        check(length[c] <= limit, "code within the limit");
        used += frequency[c] != 0;
        deepest = std::max<u32>(deepest, length[c]);
        if (length[c]) kraft += u64{1} << (bits * (limit - length[c]));
      }
      if (used < 2) continue;
      const u64 whole = u64{1} << (bits * limit), filler = u64{1} << (bits * (limit - deepest));
      const u64 arity = u64{1} << bits;
      check(kraft <= whole && whole - kraft <= (arity - 2) * filler, "codes are complete");
      const auto book = make_codes(length, bits);
      for (u32 x = 0; x < sigma; ++x)
        for (u32 y = 0; y < sigma; ++y)
          if (x != y && length[x] && length[y] && length[x] <= length[y])
            check(book.code[y] >> (bits * (length[y] - length[x])) != book.code[x],
                  "no code begins another");
    }
  }
}
