// The hybrid bit vector and the prefix codes against loops over plain arrays.
//
// Built and run by test_native_bits.py, with and without sanitizers. Prints the number of checks.
#include <numeric>

#include "bits.hpp"
#include "loops.hpp"

using namespace unspool;

static void test_vector(const std::string& folder, const std::vector<bool>& bits,
                        const std::string& name) {
  const u32 n = static_cast<u32>(bits.size());
  std::vector<u64> words((n + 63) / 64 + 1);
  for (u32 i = 0; i < n; ++i) words[i / 64] |= u64{bits[i]} << (i % 64);
  std::vector<u8> out(37, 0xAB);  // a unit may start anywhere in a file
  append_unit(out, words.data(), n);
  const std::string path = write_unit(folder, out);
  for (const bool ram : {false, true}) {
    const MappedFile mapped(path, ram);
    const BitUnit unit = BitUnit::at(37, n);
    u32 ones = 0;
    for (u32 i = 0; i < n; ++i) {
      const auto found = rank_bit(mapped, unit, i);
      check(found.rank == ones, name + ": rank of " + std::to_string(i));
      check(found.bit == bits[i], name + ": bit " + std::to_string(i));
      if (bits[i]) {
        check(select_one(mapped, unit, ones) == i, name + ": select of " + std::to_string(ones));
        ++ones;
      }
    }
    check(rank_bit(mapped, unit, n).rank == ones, name + ": rank of the end");
  }
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  std::mt19937_64 random(7);
  const u32 sizes[] = {1,    2,    63,   64,   65,   255,  256,  257,  511,   2047,
                       2048, 2049, 4095, 4096, 4097, 6151, 9999, 8192, 20000, 65536 + 1};
  for (const u32 n : sizes) {
    const std::string suffix = " of " + std::to_string(n);
    test_vector(folder, std::vector<bool>(n, false), "zeros" + suffix);
    test_vector(folder, std::vector<bool>(n, true), "ones" + suffix);
    for (const double density : {0.001, 0.01, 0.05, 0.1, 0.12, 0.125, 0.13, 0.5, 0.9, 0.99, 0.999}) {
      std::vector<bool> bits(n);
      for (u32 i = 0; i < n; ++i) bits[i] = std::uniform_real_distribution<>(0, 1)(random) < density;
      test_vector(folder, bits, "density " + std::to_string(density) + suffix);
    }
    for (const u32 run : {1u, 2u, 3u, 7u, 8u, 9u, 16u, 31u, 64u, 255u, 256u, 257u, 1000u}) {
      std::vector<bool> fixed(n), random_runs(n);
      bool value = false;
      for (u32 i = 0; i < n; ++i) {
        fixed[i] = (i / run) & 1;
        if (random() % run == 0) value = !value;
        random_runs[i] = value;
      }
      test_vector(folder, fixed, "runs of " + std::to_string(run) + suffix);
      test_vector(folder, random_runs, "runs of about " + std::to_string(run) + suffix);
    }
  }
  // Exactly 30, 31, 32 and 33 minority bits or changes in a chunk: the edges of the encodings.
  for (const u32 count : {0u, 1u, 30u, 31u, 32u, 33u}) {
    for (const bool minority : {false, true}) {
      std::vector<bool> bits(512, !minority);
      std::vector<u32> places(256);
      std::iota(places.begin(), places.end(), 0u);
      for (u32 i = 0; i < count; ++i) {
        std::swap(places[i], places[i + random() % (256 - i)]);
        bits[256 + places[i]] = minority;
      }
      test_vector(folder, bits, std::to_string(count) + " in a chunk");
    }
    std::vector<bool> changes(256);
    for (u32 i = 0; i < 256; ++i) changes[i] = count && (i * count / 256) % 2;
    test_vector(folder, changes, std::to_string(count) + " changes");
  }
  check_codes(random, 24, 1);
  return report();
}
