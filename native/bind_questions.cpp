// The questions of an index, each asked by itself or in a batch, from two tables.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <vector>

#include "binding.hpp"

using namespace nb::literals;

namespace unspool {
namespace {

// A question that a few numbers answer.
struct Numbers {
  const char* name;
  const char* batch;
  void (IndexBase::*ask)(const Questions&, i64*) const;
  u32 width;    // numbers of an answer
  bool symbol;  // asks about a symbol that follows
};
constexpr u32 kMostNumbers = 3;
constexpr Numbers kNumbers[] = {
    {"count", "count_batch", &IndexBase::count, 1, false},
    {"prob", "prob_batch", &IndexBase::prob, 2, true},
    {"longest_suffix", "longest_suffix_batch", &IndexBase::longest_suffix, 2, false},
    {"infgram_prob", "infgram_prob_batch", &IndexBase::infgram_prob, 3, true},
};

// A question that the symbols that come next answer.
struct Distributions {
  const char* name;
  const char* batch;
  std::vector<NextSymbols> (IndexBase::*ask)(const Questions&) const;
  bool suffix;  // tells how long a suffix was used
};
constexpr Distributions kDistributions[] = {
    {"next", "next_batch", &IndexBase::next, false},
    {"infgram", "infgram_batch", &IndexBase::infgram, true},
};

nb::object one(const Index& self, const Numbers& question, nb::handle query, i64 symbol) {
  const auto index = self.get();
  const Queries queries(query);
  i64 out[kMostNumbers];
  {
    Native native;
    ((*index).*question.ask)({queries.data(), 1, &symbol}, out);
  }
  if (question.width == 1) return nb::int_(out[0]);
  return question.width == 2 ? nb::make_tuple(out[0], out[1]) : nb::make_tuple(out[0], out[1], out[2]);
}

nb::object batch(const Index& self, const Numbers& question, const nb::sequence& sequence,
                 const Given<i64>* symbols) {
  const auto index = self.get();
  const Queries queries(sequence);
  const u64 n = queries.size();
  if (symbols && symbols->shape(0) != n)
    throw BadQuery("There are " + std::to_string(n) + " queries and " +
                   std::to_string(symbols->shape(0)) + " symbols.");
  // A copy: another thread may write into the array while the GIL is released.
  const std::vector<i64> wanted(symbols ? symbols->data() : nullptr,
                                symbols ? symbols->data() + n : nullptr);
  std::vector<i64> out(n * question.width);
  {
    Native native;
    ((*index).*question.ask)({queries.data(), n, wanted.data()}, out.data());
  }
  if (question.width == 1) return to_numpy(std::move(out));
  return to_numpy(std::move(out), {n, question.width});
}

nb::object to_tuple(const Distributions& question, NextSymbols&& r) {
  nb::object symbols = to_numpy(std::move(r.symbols)), counts = to_numpy(std::move(r.counts));
  return question.suffix ? nb::make_tuple(r.suffix_length, r.count, symbols, counts)
                         : nb::make_tuple(r.count, symbols, counts);
}

std::vector<NextSymbols> distributions(const Index& self, const Distributions& question,
                                       const Queries& queries) {
  const auto index = self.get();
  Native native;
  return ((*index).*question.ask)({queries.data(), queries.size()});
}

void bind(nb::class_<Index>& index, const Numbers& question) {
  if (question.symbol) {
    index.def(
        question.name,
        [&question](const Index& self, nb::handle query, i64 symbol) {
          return one(self, question, query, symbol);
        },
        "query"_a, "symbol"_a);
    index.def(
        question.batch,
        [&question](const Index& self, const nb::sequence& queries, const Given<i64>& symbols) {
          return batch(self, question, queries, &symbols);
        },
        "queries"_a, "symbols"_a);
  } else {
    index.def(
        question.name,
        [&question](const Index& self, nb::handle query) { return one(self, question, query, 0); },
        "query"_a);
    index.def(
        question.batch,
        [&question](const Index& self, const nb::sequence& queries) {
          return batch(self, question, queries, nullptr);
        },
        "queries"_a);
  }
}

void bind(nb::class_<Index>& index, const Distributions& question) {
  index.def(
      question.name,
      [&question](const Index& self, nb::handle query) {
        return to_tuple(question, std::move(distributions(self, question, Queries(query))[0]));
      },
      "query"_a);
  index.def(
      question.batch,
      [&question](const Index& self, const nb::sequence& queries) {
        nb::list list;
        for (NextSymbols& r : distributions(self, question, Queries(queries)))
          list.append(to_tuple(question, std::move(r)));
        return list;
      },
      "queries"_a);
}

// Rows of every shard for each query, as numbers: queries x shards x (first, end).
std::vector<u64> ranges(const IndexBase& index, const Queries& queries) {
  std::vector<u64> out(queries.size() * index.num_shards() * 2);
  Native native;
  index.ranges({queries.data(), queries.size()}, out.data());
  return out;
}

}  // namespace

void bind_questions(nb::class_<Index>& index) {
  for (const Numbers& question : kNumbers) bind(index, question);
  for (const Distributions& question : kDistributions) bind(index, question);
  index.def(
      "ranges",
      [](const Index& self, nb::handle query) {
        const auto opened = self.get();
        const std::vector<u64> bounds = ranges(*opened, Queries(query));
        std::vector<std::pair<u64, u64>> out;
        for (u64 s = 0; s < bounds.size(); s += 2) out.emplace_back(bounds[s], bounds[s + 1]);
        return out;
      },
      "query"_a);
  index.def(
      "ranges_batch",
      [](const Index& self, const nb::sequence& sequence) {
        const auto opened = self.get();
        const Queries queries(sequence);
        return to_numpy(ranges(*opened, queries), {queries.size(), opened->num_shards(), 2});
      },
      "queries"_a);
  index.def(
      "longest_matches",
      [](const Index& self, nb::handle text) {
        const auto opened = self.get();
        const Queries queries(text);
        std::vector<i64> lengths(queries.data()->length), counts(lengths.size());
        {
          Native native;
          opened->longest_matches(*queries.data(), lengths.data(), counts.data());
        }
        return nb::make_tuple(to_numpy(std::move(lengths)), to_numpy(std::move(counts)));
      },
      "text"_a);
}

}  // namespace unspool
