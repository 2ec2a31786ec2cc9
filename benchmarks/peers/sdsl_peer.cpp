// Measures one compressed suffix array of sdsl over one text: build, size, count, locate, extract.
//
// A peer and an oracle of the benchmarks only: sdsl is GPL, so nothing of it is linked into the
// project. Compiled on demand by benchmarks/peers/sdsl.py into the cache folder.
//
// sdsl_peer build TYPE TEXT INDEX              -> seconds, bytes
// sdsl_peer query TYPE INDEX QUERIES WHERE     -> times of each query, counts, locate, extract
//   QUERIES: u32 number, then u32 length and bytes of each; the last LOCATE ones are located.
//   WHERE: "LOCATE,EXTRACTS": how many queries to locate, how many pieces of 512 bytes to extract.
// TYPE: rrr127 (the type that infini-gram mini released), rrr63, hyb16, plain.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <numeric>
#include <random>
#include <sdsl/suffix_arrays.hpp>
#include <string>
#include <vector>

using Clock = std::chrono::steady_clock;
static double micros(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double, std::micro>(b - a).count();
}

static std::vector<std::string> read_queries(const char* path) {
  std::ifstream in(path, std::ios::binary);
  auto u32 = [&] {
    uint32_t v = 0;
    in.read(reinterpret_cast<char*>(&v), 4);
    return v;
  };
  std::vector<std::string> queries(u32());
  for (auto& q : queries) {
    q.resize(u32());
    in.read(q.data(), static_cast<std::streamsize>(q.size()));
  }
  return queries;
}

static double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v.size() % 2 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
}

template <class Csa>
static int run(int argc, char** argv) {
  const std::string verb = argv[1];
  if (verb == "build" && argc == 5) {
    const auto start = Clock::now();
    Csa csa;
    sdsl::construct(csa, argv[3], 1);
    const double seconds = micros(start, Clock::now()) / 1e6;
    sdsl::store_to_file(csa, argv[4]);
    std::printf("{\"seconds\": %.6f, \"bytes\": %zu, \"symbols\": %zu}\n", seconds,
                static_cast<size_t>(sdsl::size_in_bytes(csa)), static_cast<size_t>(csa.size()));
    return 0;
  }
  if (verb != "query" || argc != 6) return 2;
  Csa csa;
  if (!sdsl::load_from_file(csa, argv[3])) return 1;
  const auto queries = read_queries(argv[4]);
  unsigned locates = 0, extracts = 0;
  if (std::sscanf(argv[5], "%u,%u", &locates, &extracts) != 2 || locates > queries.size()) return 2;
  const size_t counted = queries.size() - locates;
  std::vector<uint64_t> counts(counted);
  for (size_t i = 0; i < counted; i += 7) counts[i] = sdsl::count(csa, queries[i]);  // warm-up
  std::printf("{\"micros\": [");
  for (size_t i = 0; i < counted; ++i) {
    const auto start = Clock::now();
    counts[i] = sdsl::count(csa, queries[i]);
    std::printf("%s%.3f", i ? ", " : "", micros(start, Clock::now()));
  }
  std::printf("], \"counts\": [");
  for (size_t i = 0; i < counted; ++i)
    std::printf("%s%llu", i ? ", " : "", static_cast<unsigned long long>(counts[i]));
  std::printf("], \"locate_micros_per_hit\": [");
  for (size_t i = counted; i < queries.size(); ++i) {
    const auto start = Clock::now();
    const auto hits = sdsl::locate(csa, queries[i]);
    const double each = micros(start, Clock::now()) / std::max<size_t>(1, hits.size());
    std::printf("%s%.4f", i > counted ? ", " : "", each);
  }
  std::mt19937_64 random(1);
  std::vector<double> times;
  uint64_t sum = 0;
  for (unsigned i = 0; i < extracts && csa.size() > 600; ++i) {
    const size_t at = random() % (csa.size() - 600);
    const auto start = Clock::now();
    const auto piece = sdsl::extract(csa, at, at + 511);
    times.push_back(micros(start, Clock::now()));
    sum += static_cast<unsigned char>(piece[0]);
  }
  std::printf("], \"extract_512_micros\": %.3f, \"checksum\": %llu}\n", median(times),
              static_cast<unsigned long long>(sum));
  return 0;
}

template <class Bits>
using Csa = sdsl::csa_wt<sdsl::wt_huff<Bits>, 32, 64>;

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const std::string type = argv[2];
  if (type == "rrr127") return run<Csa<sdsl::rrr_vector<127>>>(argc, argv);
  if (type == "rrr63") return run<Csa<sdsl::rrr_vector<63>>>(argc, argv);
  if (type == "hyb16") return run<Csa<sdsl::hyb_vector<16>>>(argc, argv);
  if (type == "plain") return run<Csa<sdsl::bit_vector>>(argc, argv);
  return 2;
}
