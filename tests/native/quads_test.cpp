// The hybrid digit vector and 4-ary codes against loops over plain arrays.
//
// Built and run by test_native_bits.py, with and without vector instructions. Prints the checks made.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "huffman.hpp"
#include "quads.hpp"

using namespace unspool;

static u64 g_checks = 0;
[[noreturn]] static void fail(const std::string& what) {
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::exit(1);
}
#define check(holds, what) (++g_checks, (holds) ? void() : fail(what))

static void test_digits(const std::string& folder, const std::vector<u8>& digits,
                        const std::string& name) {
  const u32 n = static_cast<u32>(digits.size());
  std::vector<u8> out(64, 0xAB);  // a unit starts at a multiple of 64
  append_quads(out, digits.data(), n);
  const std::string path = folder + "/unit";
  FILE* file = std::fopen(path.c_str(), "wb");
  if (!file || std::fwrite(out.data(), 1, out.size(), file) != out.size()) std::abort();
  std::fclose(file);
  const MappedFile mapped(path, false);
  const QuadUnit unit = QuadUnit::at(64, n);
  u32 seen[4] = {};
  for (u32 i = 0; i <= n; ++i) {
    for (u32 d = 0; d < 4; ++d)
      check(quad_rank(mapped, unit, i, d) == seen[d],
            name + ": rank of " + std::to_string(d) + " at " + std::to_string(i));
    if (i == n) break;
    check(quad_digit(mapped, unit, i) == digits[i], name + ": digit " + std::to_string(i));
    ++seen[digits[i]];
  }
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  std::mt19937_64 random(11);
  const u32 sizes[] = {1, 2, 63, 65, 255, 256, 257, 2047, 2048, 2049, 4095, 4097, 6151, 16384};
  for (const u32 n : sizes) {
    const std::string suffix = " of " + std::to_string(n);
    std::vector<u8> digits(n);
    for (u32 d = 0; d < 4; ++d) {
      test_digits(folder, std::vector<u8>(n, static_cast<u8>(d)), "one digit" + suffix);
      // One odd digit at the end of a chunk, and at its beginning.
      for (u32 i = 0; i < n; ++i)
        digits[i] = static_cast<u8>(i % 256 == 255 || i % 512 == 0 ? (d + 1) % 4 : d);
      test_digits(folder, digits, "edges" + suffix);
    }
    for (const u32 mean : {1, 3, 8, 9, 16, 40, 300}) {  // 256 / 8 runs: about where lists end
      u8 digit = 0;
      for (u32 i = 0; i < n; ++i) {
        if (random() % mean == 0) digit = static_cast<u8>(random() % 4);
        digits[i] = digit;
      }
      test_digits(folder, digits, "runs of " + std::to_string(mean) + suffix);
    }
    for (const u32 runs : {31, 32, 33}) {  // exactly at the longest list
      for (u32 i = 0; i < n; ++i)
        digits[i] = static_cast<u8>(std::min(i % 256, runs - 1) % 4);
      test_digits(folder, digits, std::to_string(runs) + " runs" + suffix);
    }
  }

  // 4-ary codes: within the limit, prefix-free, and complete but for the fillers of the last depth.
  for (u32 sigma = 1; sigma <= 300; sigma = sigma < 20 ? sigma + 1 : sigma * 3 / 2) {
    for (int kind = 0; kind < 3; ++kind) {
      std::vector<u64> frequency(sigma);
      u64 a = 1, b = 1;
      for (u32 c = 0; c < sigma; ++c) {
        frequency[c] = kind == 0 ? 1 + random() % 1000 : kind == 1 ? a : random() % 2;
        if (b < u64{1} << 40) {
          b += a;
          std::swap(a, b);
        }
      }
      constexpr u32 limit = 9;
      const auto length = huffman_lengths(frequency, limit, 2);
      u64 kraft = 0, used = 0;
      for (u32 c = 0; c < sigma; ++c) {
        check(length[c] <= limit, "code within the limit");
        used += frequency[c] != 0;
        if (length[c]) kraft += u64{1} << (2 * (limit - length[c]));
      }
      if (used < 2) continue;
      u32 deepest = 0;
      for (u32 c = 0; c < sigma; ++c) deepest = std::max<u32>(deepest, length[c]);
      const u64 whole = u64{1} << (2 * limit), filler = u64{1} << (2 * (limit - deepest));
      check(kraft <= whole && whole - kraft < 3 * filler, "codes are complete");
      const auto book = make_codes(length, 2);
      for (u32 x = 0; x < sigma; ++x)
        for (u32 y = 0; y < sigma; ++y)
          if (x != y && length[x] && length[y] && length[x] <= length[y])
            check(book.code[y] >> (2 * (length[y] - length[x])) != book.code[x],
                  "no code begins another");
    }
  }
  std::printf("%llu checks\n", static_cast<unsigned long long>(g_checks));
}
