// Python face of the engine. Every call releases the GIL and takes it now and then to run signal
// handlers; errors arrive as the classes of unspool.errors.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <vector>

#include "binding.hpp"
#include "container.hpp"
#include "crc32c.hpp"
#include "threads.hpp"

using namespace nb::literals;

namespace unspool {
namespace {

Index* open(const std::vector<std::string>& paths, bool ram) {
  Native native;
  return new Index(open_index(paths, ram));
}

Index* open_v4_files(const std::vector<std::tuple<std::string, std::string, std::string>>& files,
                     u32 width) {
  std::vector<V4Files> shards;
  for (const auto& [tokenized, table, offset] : files) shards.push_back({tokenized, table, offset});
  Native native;
  return new Index(open_v4(shards, width));
}

nb::dict info(const Index& self, u64 shard) {
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
}

// Runs `f` on the open index without the GIL.
template <class F>
auto ask(const Index& self, F f) {
  const auto index = self.get();
  Native native;
  return f(*index);
}

nb::tuple locate(const Index& self, u64 shard, const Given<u64>& rows, u64 length) {
  const u64 n = rows.shape(0);
  const std::vector<u64> wanted(rows.data(), rows.data() + n);
  std::vector<i64> documents(n), starts(n);
  ask(self, [&](const IndexBase& index) {
    index.locate(shard, wanted.data(), n, length, documents.data(), starts.data());
  });
  return nb::make_tuple(to_numpy(std::move(documents)), to_numpy(std::move(starts)));
}

void set_deadline(std::optional<double> seconds) {
  if (!seconds || !std::isfinite(*seconds) || *seconds > 1e8)
    Poll::deadline = Clock::time_point::max();
  else
    Poll::deadline = Clock::now() + std::chrono::microseconds(static_cast<i64>(*seconds * 1e6));
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

void bind_index(nb::module_& m) {
  nb::class_<Index> index(m, "Index");
  index.def(nb::new_(&open), "paths"_a, "ram"_a = false)
      .def_static("open_v4", &open_v4_files, "files"_a, "width"_a, nb::rv_policy::take_ownership)
      .def("close", &Index::close)
      .def_prop_ro("num_shards", [](const Index& self) { return self.get()->num_shards(); })
      .def("info", &info, "shard"_a)
      .def(
          "section",
          [](const Index& self, u64 shard, const std::string& name, u64 start,
             std::optional<u64> end) {
            return to_bytes(ask(self, [&](const IndexBase& i) {
              return i.section(shard, name, start, end.value_or(~u64{0}));
            }));
          },
          "shard"_a, "name"_a, "start"_a = 0, "end"_a = nb::none())
      .def("warm", [](const Index& self) { ask(self, [](const IndexBase& i) { i.warm(); }); })
      .def(
          "verify",
          [](const Index& self, u64 shard) {
            return ask(self, [shard](const IndexBase& i) { return i.verify(shard); });
          },
          "shard"_a)
      .def("locate", &locate, "shard"_a, "rows"_a, "length"_a)
      .def(
          "extract",
          [](const Index& self, u64 shard, u64 document, u64 start, u64 end) {
            return to_bytes(ask(self, [&](const IndexBase& i) {
              return i.extract(shard, document, start, end);
            }));
          },
          "shard"_a, "document"_a, "start"_a, "end"_a)
      .def(
          "document_length",
          [](const Index& self, u64 shard, u64 document) {
            return ask(self, [&](const IndexBase& i) { return i.document_length(shard, document); });
          },
          "shard"_a, "document"_a)
      .def(
          "document_lengths",
          [](const Index& self, u64 shard) {
            return to_numpy(
                ask(self, [shard](const IndexBase& i) { return i.document_lengths(shard); }));
          },
          "shard"_a);
  bind_questions(index);
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
      "crc32c", [](nb::bytes data, u32 seed) { return crc32c(data.c_str(), data.size(), seed); },
      "data"_a, "seed"_a = 0);
  m.def("set_deadline", &set_deadline, "seconds"_a.none());
  m.def("num_threads", &num_threads);
  m.def("set_threads", &set_threads, "threads"_a);
  bind_attention(m);
  bind_build(m);
  bind_decoder(m);
  bind_index(m);
}
