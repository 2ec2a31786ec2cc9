// The hybrid digit vector and 4-ary codes against loops over plain arrays.
//
// Built and run by test_native_bits.py, with and without vector instructions. Prints the checks made.
#include "loops.hpp"
#include "quads.hpp"

using namespace unspool;

static void test_digits(const std::string& folder, const std::vector<u8>& digits,
                        const std::string& name) {
  const u32 n = static_cast<u32>(digits.size());
  std::vector<u8> out(70, 0xAB);
  const u64 begin = append_quads(out, digits.data(), n);
  check(begin % 64 == 0 && begin >= 70 + Guide::bytes(n), name + ": where the unit begins");
  check(std::all_of(out.begin(), out.begin() + 70, [](u8 b) { return b == 0xAB; }), name + ": overwritten");
  const MappedFile mapped(write_unit(folder, out), false);
  const QuadUnit unit = QuadUnit::at(begin, n);
  for (u64 at = unit.dir, guide = begin - Guide::bytes(n); at < unit.data; at += kQuadEntry, guide += 2) {
    const u32 said = 16u * (out[guide] | out[guide + 1] << 8), data = load<u32>(&out[at + 16]);
    check(said <= data && data < said + 16, name + ": the guide at " + std::to_string(at));
  }
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
  check_codes(random, 9, 2);
  return report();
}
