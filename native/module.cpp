// Python face of the engine. Every call releases the GIL and takes it now and then to run signal
// handlers; errors arrive as the classes of unspool.errors.
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <vector>

#include "binding.hpp"
#include "build.hpp"
#include "container.hpp"
#include "crc32c.hpp"
#include "index.hpp"
#include "sais.hpp"

using namespace nb::literals;

namespace unspool {
namespace {

nb::object next_tuple(NextSymbols&& r) {
  return nb::make_tuple(r.count, to_numpy(std::move(r.symbols)), to_numpy(std::move(r.counts)));
}
nb::object infgram_tuple(NextSymbols&& r) {
  return nb::make_tuple(r.suffix_length, r.count, to_numpy(std::move(r.symbols)),
                        to_numpy(std::move(r.counts)));
}

class Index {
 public:
  Index(const std::vector<std::string>& paths, bool ram) {
    Native native;
    index_ = unspool::open_index(paths, ram);
  }
  explicit Index(std::unique_ptr<IndexBase> index) : index_(std::move(index)) {}

  void close() { index_.reset(); }
  // A query that runs while another thread closes the index keeps it open until its end.
  std::shared_ptr<IndexBase> get() const {
    if (!index_) throw BadQuery("This index is closed.");
    return index_;
  }

 private:
  std::shared_ptr<IndexBase> index_;
};

// One query of one shape: borrow it, run `f` without the GIL.
template <class F>
auto one(const Index& self, nb::handle query, F f) {
  const auto index = self.get();
  Queries queries;
  queries.add(query);
  Native native;
  return f(*index, queries[0]);
}

// Distributions of many queries, in their order.
nb::list each_next(const Index& self, const nb::sequence& sequence,
                   NextSymbols (IndexBase::*ask)(const QueryView&) const,
                   nb::object (*to_tuple)(NextSymbols&&)) {
  const auto index = self.get();
  Queries queries;
  queries.add_all(sequence);
  std::vector<NextSymbols> out;
  {
    Native native;
    for (u64 q = 0; q < queries.size(); ++q) out.push_back(((*index).*ask)(queries[q]));
  }
  nb::list list;
  for (NextSymbols& r : out) list.append(to_tuple(std::move(r)));
  return list;
}

i64 count_one(const Index& self, nb::handle query) {
  return one(self, query, [](const IndexBase& index, const QueryView& q) {
    i64 out;
    index.count(&q, 1, &out);
    return out;
  });
}

std::vector<i64> batch_symbols(const nb::ndarray<const i64, nb::ndim<1>, nb::c_contig>& symbols,
                               u64 n) {
  if (symbols.shape(0) != n)
    throw BadQuery("There are " + std::to_string(n) + " queries and " +
                   std::to_string(symbols.shape(0)) + " symbols.");
  return {symbols.data(), symbols.data() + n};
}

nb::dict build(const std::string& out, const std::string& tier, u32 width,
               const std::vector<std::tuple<std::string, u64, u64>>& pieces,
               const nb::ndarray<const u64, nb::ndim<1>, nb::c_contig>& lengths, u64 sa_sample,
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

// A message may hold a path, or a name read from a damaged file, that is not UTF-8.
nb::object readable(const char* message) {
  return nb::steal(PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)),
                                        "backslashreplace"));
}

// Raises the class of that name in unspool.errors.
void raise(const char* name, const char* message) {
  nb::object type = nb::module_::import_("unspool.errors").attr(name);
  PyErr_SetObject(type.ptr(), readable(message).ptr());
}

void translate(const std::exception_ptr& p, void*) {
  try {
    std::rethrow_exception(p);
  } catch (const Corrupt& e) {
    raise("IndexCorrupt", e.what());
  } catch (const WrongVersion& e) {
    raise("IndexVersion", e.what());
  } catch (const BadQuery& e) {
    raise("QueryError", e.what());
  } catch (const Deadline& e) {
    raise("DeadlineExceeded", e.what());
  } catch (const SystemError& e) {
    // OSError picks its subclass (FileNotFoundError, PermissionError, …) by errno.
    nb::object args = nb::make_tuple(e.code, readable(e.what()));
    PyErr_SetObject(PyExc_OSError, args.ptr());
  }
}

}  // namespace
}  // namespace unspool

NB_MODULE(_native, m) {
  using namespace unspool;
  m.doc() = "The native engine of unspool.";
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("popcnt"))
    throw nb::import_error("unspool needs a processor with SSE4.2 and POPCNT (x86-64-v2).");
#endif
  nb::register_exception_translator(translate);
  m.attr("FORMAT_VERSION") = kVersion;
  m.def(
      "crc32c",
      [](nb::bytes data, u32 seed) { return crc32c(data.c_str(), data.size(), seed); }, "data"_a,
      "seed"_a = 0);
  m.def("suffix_array", &suffix_array_of, "symbols"_a, "wide"_a = false);
  m.def(
      "shard_memory",
      [](const std::string& tier, u32 width, u64 symbols, u64 documents) {
        return shard_memory(tier == "fm", width, symbols, documents);
      },
      "tier"_a, "width"_a, "symbols"_a, "documents"_a);
  m.def("build_shard", &build, "out"_a, nb::kw_only(), "tier"_a, "width"_a, "pieces"_a, "lengths"_a,
        "sa_sample"_a = 32, "isa_sample"_a = 64,
        "sections"_a = std::vector<std::pair<std::string, nb::bytes>>{}, "progress"_a = nb::none());
  m.def(
      "set_deadline",
      [](std::optional<double> seconds) {
        if (!seconds || !std::isfinite(*seconds) || *seconds > 1e8)
          Poll::deadline = Clock::time_point::max();
        else
          Poll::deadline = Clock::now() + std::chrono::microseconds(static_cast<i64>(*seconds * 1e6));
      },
      "seconds"_a.none());

  nb::class_<Index>(m, "Index")
      .def(nb::init<const std::vector<std::string>&, bool>(), "paths"_a, "ram"_a = false)
      .def_static(
          "open_v4",
          [](const std::vector<std::tuple<std::string, std::string, std::string>>& files, u32 width) {
            std::vector<V4Files> shards;
            for (const auto& [tokenized, table, offset] : files)
              shards.push_back({tokenized, table, offset});
            Native native;
            return new Index(unspool::open_v4(shards, width));
          },
          "files"_a, "width"_a, nb::rv_policy::take_ownership)
      .def("close", &Index::close)
      .def_prop_ro("num_shards", [](const Index& self) { return self.get()->num_shards(); })
      .def("info",
           [](const Index& self, u64 shard) {
             const ShardInfo i = self.get()->info(shard);
             nb::dict out, sections;
             for (const auto& [name, size] : i.sections) sections[name.c_str()] = size;
             out["path"] = i.path;
             out["tier"] = i.tier;
             out["width"] = i.width;
             out["symbols"] = i.symbols;
             out["documents"] = i.documents;
             out["alphabet"] = i.alphabet;
             out["sa_sample"] = i.sa_sample;
             out["isa_sample"] = i.isa_sample;
             out["bytes_file"] = i.bytes_file;
             out["sections"] = sections;
             return out;
           },
           "shard"_a)
      .def("section",
           [](const Index& self, u64 shard, const std::string& name, u64 start, std::optional<u64> end) {
             const auto index = self.get();
             std::string out;
             {
               Native native;
               out = index->section(shard, name, start, end.value_or(~u64{0}));
             }
             return nb::bytes(out.data(), out.size());
           },
           "shard"_a, "name"_a, "start"_a = 0, "end"_a = nb::none())
      .def("warm",
           [](const Index& self) {
             const auto index = self.get();
             Native native;
             index->warm();
           })
      .def("verify",
           [](const Index& self, u64 shard) {
             const auto index = self.get();
             Native native;
             return index->verify(shard);
           },
           "shard"_a)
      .def("count", &count_one, "query"_a)
      .def("count_batch",
           [](const Index& self, const nb::sequence& sequence) {
             const auto index = self.get();
             Queries queries;
             queries.add_all(sequence);
             std::vector<i64> out(queries.size());
             {
               Native native;
               index->count(queries.data(), queries.size(), out.data());
             }
             return to_numpy(std::move(out));
           },
           "queries"_a)
      .def("ranges",
           [](const Index& self, nb::handle query) {
             return one(self, query, [](const IndexBase& index, const QueryView& q) {
               std::vector<u64> bounds(2 * index.num_shards());
               index.ranges(&q, 1, bounds.data());
               std::vector<std::pair<u64, u64>> out;
               for (u64 s = 0; s < index.num_shards(); ++s)
                 out.emplace_back(bounds[2 * s], bounds[2 * s + 1]);
               return out;
             });
           },
           "query"_a)
      .def("ranges_batch",
           [](const Index& self, const nb::sequence& sequence) {
             const auto index = self.get();
             Queries queries;
             queries.add_all(sequence);
             std::vector<u64> out(queries.size() * index->num_shards() * 2);
             {
               Native native;
               index->ranges(queries.data(), queries.size(), out.data());
             }
             return to_numpy(std::move(out), {queries.size(), index->num_shards(), 2});
           },
           "queries"_a)
      .def("locate",
           [](const Index& self, u64 shard, const nb::ndarray<const u64, nb::ndim<1>, nb::c_contig>& rows,
              u64 length) {
             const auto index = self.get();
             const u64 n = rows.shape(0);
             std::vector<u64> wanted(rows.data(), rows.data() + n);
             std::vector<i64> documents(n), starts(n);
             {
               Native native;
               index->locate(shard, wanted.data(), n, length, documents.data(), starts.data());
             }
             return nb::make_tuple(to_numpy(std::move(documents)), to_numpy(std::move(starts)));
           },
           "shard"_a, "rows"_a, "length"_a)
      .def("extract",
           [](const Index& self, u64 shard, u64 document, u64 start, u64 end) {
             const auto index = self.get();
             std::string out;
             {
               Native native;
               out = index->extract(shard, document, start, end);
             }
             return nb::bytes(out.data(), out.size());
           },
           "shard"_a, "document"_a, "start"_a, "end"_a)
      .def("document_length",
           [](const Index& self, u64 shard, u64 document) {
             const auto index = self.get();
             Native native;
             return index->document_length(shard, document);
           },
           "shard"_a, "document"_a)
      .def("document_lengths",
           [](const Index& self, u64 shard) {
             const auto index = self.get();
             std::vector<u64> out;
             {
               Native native;
               out = index->document_lengths(shard);
             }
             return to_numpy(std::move(out));
           },
           "shard"_a)
      .def("next",
           [](const Index& self, nb::handle query) {
             return next_tuple(one(self, query, [](const IndexBase& index, const QueryView& q) {
               return index.next(q);
             }));
           },
           "query"_a)
      .def("next_batch",
           [](const Index& self, const nb::sequence& sequence) {
             return each_next(self, sequence, &IndexBase::next, next_tuple);
           },
           "queries"_a)
      .def("prob",
           [](const Index& self, nb::handle query, i64 symbol) {
             return one(self, query, [symbol](const IndexBase& index, const QueryView& q) {
               return index.prob(q, symbol);
             });
           },
           "query"_a, "symbol"_a)
      .def("prob_batch",
           [](const Index& self, const nb::sequence& sequence,
              const nb::ndarray<const i64, nb::ndim<1>, nb::c_contig>& symbols) {
             const auto index = self.get();
             Queries queries;
             queries.add_all(sequence);
             const std::vector<i64> wanted = batch_symbols(symbols, queries.size());
             std::vector<i64> out(2 * queries.size());
             {
               Native native;
               for (u64 q = 0; q < queries.size(); ++q) {
                 const auto [context, both] = index->prob(queries[q], wanted[q]);
                 out[2 * q] = static_cast<i64>(context);
                 out[2 * q + 1] = static_cast<i64>(both);
               }
             }
             return to_numpy(std::move(out), {queries.size(), 2});
           },
           "queries"_a, "symbols"_a)
      .def("longest_suffix",
           [](const Index& self, nb::handle query) {
             return one(self, query, [](const IndexBase& index, const QueryView& q) {
               return index.longest_suffix(q);
             });
           },
           "query"_a)
      .def("infgram",
           [](const Index& self, nb::handle query) {
             return infgram_tuple(one(self, query, [](const IndexBase& index, const QueryView& q) {
               return index.infgram(q);
             }));
           },
           "query"_a)
      .def("infgram_batch",
           [](const Index& self, const nb::sequence& sequence) {
             return each_next(self, sequence, &IndexBase::infgram, infgram_tuple);
           },
           "queries"_a)
      .def("infgram_prob",
           [](const Index& self, nb::handle query, i64 symbol) {
             return one(self, query, [symbol](const IndexBase& index, const QueryView& q) {
               i64 out[3];
               index.infgram_prob(q, symbol, out);
               return std::make_tuple(out[0], out[1], out[2]);
             });
           },
           "query"_a, "symbol"_a)
      .def("infgram_prob_batch",
           [](const Index& self, const nb::sequence& sequence,
              const nb::ndarray<const i64, nb::ndim<1>, nb::c_contig>& symbols) {
             const auto index = self.get();
             Queries queries;
             queries.add_all(sequence);
             const std::vector<i64> wanted = batch_symbols(symbols, queries.size());
             std::vector<i64> out(3 * queries.size());
             {
               Native native;
               for (u64 q = 0; q < queries.size(); ++q)
                 index->infgram_prob(queries[q], wanted[q], &out[3 * q]);
             }
             return to_numpy(std::move(out), {queries.size(), 3});
           },
           "queries"_a, "symbols"_a)
      .def("longest_matches",
           [](const Index& self, nb::handle text) {
             const auto index = self.get();
             Queries queries;
             queries.add(text);
             std::vector<i64> lengths(queries[0].length), counts(queries[0].length);
             {
               Native native;
               index->longest_matches(queries[0], lengths.data(), counts.data());
             }
             return nb::make_tuple(to_numpy(std::move(lengths)), to_numpy(std::move(counts)));
           },
           "text"_a);
}
