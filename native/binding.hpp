// What every bound function needs: an open index, the GIL released, queries borrowed, results handed
// over.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "index.hpp"
#include "poll.hpp"

namespace nb = nanobind;

namespace unspool {

inline void run_signal_handlers() {
  nb::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

// The GIL is released from here to the end of the scope.
struct Native {
  Native() { Poll::check_signals = run_signal_handlers; }
  nb::gil_scoped_release release;
};

// An array of numbers that Python hands over.
template <class T>
using Given = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = Given<u32>;

template <class T>
nb::object to_numpy(std::vector<T>&& values, std::initializer_list<std::size_t> shape = {}) {
  auto* owned = new std::vector<T>(std::move(values));
  nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  std::vector<std::size_t> dims(shape);
  if (dims.empty()) dims.push_back(owned->size());
  return nb::cast(nb::ndarray<nb::numpy, T>(owned->data(), dims.size(), dims.data(), owner));
}

inline nb::bytes to_bytes(const std::string& data) { return nb::bytes(data.data(), data.size()); }

// The class Index of Python: an index until it is closed.
class Index {
 public:
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

// Queries borrowed from Python objects, which must stay alive; `keep_` holds what was converted.
class Queries {
 public:
  explicit Queries(nb::handle query) { add(query); }
  explicit Queries(const nb::sequence& queries) {
    views_.reserve(nb::len(queries));
    // The items are kept alive here: another thread may change the list while the GIL is released.
    for (nb::handle item : queries) {
      objects_.push_back(nb::borrow(item));
      add(item);
    }
  }
  const QueryView* data() const { return views_.data(); }
  u64 size() const { return views_.size(); }

 private:
  void add(nb::handle object) {
    QueryView view;
    PyObject* p = object.ptr();
    if (PyUnicode_Check(p)) {
      Py_ssize_t size;
      const char* data = PyUnicode_AsUTF8AndSize(p, &size);
      if (!data) {
        PyErr_Clear();
        throw BadQuery("The query holds a lone surrogate, which no UTF-8 text contains.");
      }
      view = {data, static_cast<u64>(size), false};
    } else if (PyBytes_Check(p)) {
      view = {PyBytes_AS_STRING(p), static_cast<u64>(PyBytes_GET_SIZE(p)), false};
    } else {
      Ids ids;
      if (!nb::try_cast(object, ids))
        throw BadQuery(std::string("A query is str, bytes or a uint32 array of symbols, got ") +
                       Py_TYPE(p)->tp_name + ".");
      view = {ids.data(), ids.shape(0), true};
      keep_.push_back(std::move(ids));
    }
    views_.push_back(view);
  }
  std::vector<QueryView> views_;
  std::vector<Ids> keep_;
  std::vector<nb::object> objects_;
};

void bind_attention(nb::module_& m);
void bind_build(nb::module_& m);
void bind_decoder(nb::module_& m);
void bind_questions(nb::class_<Index>& index);

}  // namespace unspool
