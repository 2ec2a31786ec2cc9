// The builder of one shard, and suffix sorting by itself, as Python calls them.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "binding.hpp"
#include "build.hpp"
#include "sais.hpp"

using namespace nb::literals;

namespace unspool {
namespace {

nb::dict build(const std::string& out, const std::string& tier, u32 width,
               const std::vector<std::tuple<std::string, u64, u64>>& pieces,
               const Given<u64>& lengths, u64 sa_sample,
               u64 isa_sample, const std::vector<std::pair<std::string, nb::bytes>>& sections,
               const nb::object& progress) {
  if (tier != "fm" && tier != "sa") throw BadQuery("tier must be 'fm' or 'sa', got '" + tier + "'.");
  BuildRequest request;
  request.out = out;
  request.fm = tier == "fm";
  request.width = width;
  for (const auto& [path, offset, length] : pieces) request.pieces.push_back({path, offset, length});
  request.lengths.assign(lengths.data(), lengths.data() + lengths.shape(0));
  request.sa_sample = sa_sample;
  request.isa_sample = isa_sample;
  for (const auto& [name, bytes] : sections)
    request.sections.emplace_back(name, std::string(bytes.c_str(), bytes.size()));
  if (!progress.is_none())
    request.progress = [&progress](const char* stage, double fraction) {
      nb::gil_scoped_acquire gil;
      progress(stage, fraction);
    };
  BuildResult result;
  {
    Native native;
    result = build_shard(request);
  }
  nb::dict seconds, answer;
  for (const auto& [stage, value] : result.seconds) seconds[stage.c_str()] = value;
  answer["symbols"] = result.symbols;
  answer["documents"] = result.documents;
  answer["rows"] = result.rows;
  answer["alphabet"] = result.alphabet;
  answer["bytes_file"] = result.bytes_file;
  answer["seconds"] = seconds;
  return answer;
}

nb::object suffix_array_of(const Ids& symbols, bool wide) {
  const u64 n = symbols.shape(0) + 1;
  std::vector<u32> values(symbols.data(), symbols.data() + n - 1);
  std::vector<i64> out(n - 1);
  {
    Native native;
    Poll poll;
    std::vector<u32> sorted(values);
    std::sort(sorted.begin(), sorted.end());
    sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
    std::vector<u32> text(n, 0);
    for (u64 i = 0; i + 1 < n; ++i)
      text[i] = static_cast<u32>(std::lower_bound(sorted.begin(), sorted.end(), values[i]) - sorted.begin()) + 1;
    const u64 sigma = sorted.size() + 1;
    const auto run = [&](auto pointer, const auto* symbols_) {
      using Int = decltype(pointer);
      std::vector<Int> sa(n);
      suffix_array(symbols_, sa.data(), static_cast<Int>(n), static_cast<Int>(sigma), poll);
      for (u64 i = 1; i < n; ++i) out[i - 1] = sa[i];
    };
    const auto pick = [&](const auto* symbols_) {
      if (wide)
        run(i64{}, symbols_);
      else
        run(std::int32_t{}, symbols_);
    };
    if (sigma <= 256) {
      std::vector<u8> narrow(text.begin(), text.end());
      pick(narrow.data());
    } else if (sigma <= 65536) {
      std::vector<u16> narrow(text.begin(), text.end());
      pick(narrow.data());
    } else {
      pick(text.data());
    }
  }
  return to_numpy(std::move(out));
}

}  // namespace

void bind_build(nb::module_& m) {
  m.def("build_shard", &build, "out"_a, nb::kw_only(), "tier"_a, "width"_a, "pieces"_a, "lengths"_a,
        "sa_sample"_a = 32, "isa_sample"_a = 64,
        "sections"_a = std::vector<std::pair<std::string, nb::bytes>>{}, "progress"_a = nb::none());
  m.def(
      "shard_memory",
      [](const std::string& tier, u32 width, u64 symbols, u64 documents) {
        return shard_memory(tier == "fm", width, symbols, documents);
      },
      "tier"_a, "width"_a, "symbols"_a, "documents"_a);
  m.def("suffix_array", &suffix_array_of, "symbols"_a, "wide"_a = false);
}

}  // namespace unspool
