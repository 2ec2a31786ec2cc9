// Python face of the decoder. Arrays are borrowed: what is handed over is kept alive, never copied.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <mutex>

#include "binding.hpp"
#include "decoder.hpp"
#include "team.hpp"

using namespace nb::literals;

namespace unspool {
namespace {

using decoder::Number;

using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Buffer = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Queries4 = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Outputs4 = nb::ndarray<float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Weights = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Kept = nb::ndarray<nb::ro, nb::ndim<4>, nb::device::cpu>;

using GivenNorm = std::optional<std::tuple<Floats, float>>;
using GivenMatrix = std::tuple<Weights, std::optional<Floats>, std::optional<Floats>>;

[[noreturn]] void refuse(const char* what) { throw nb::value_error(what); }

// bfloat16 travels as int16: its bits.
Number number_of(const nb::dlpack::dtype& type, bool bytes) {
  if (type == nb::dtype<float>()) return Number::f32;
  if (type == nb::dtype<std::int16_t>()) return Number::bf16;
  if (bytes && type == nb::dtype<std::int8_t>()) return Number::i8;
  refuse("Numbers are float32, int16 (the bits of bfloat16) or, for weights, int8.");
}

class Layers {
 public:
  Layers(u32 hidden, u32 threads) : decoder_(hidden, std::max(1u, threads)) {}

  void add(const GivenNorm& before, const std::vector<GivenMatrix>& qkv, const GivenNorm& query,
           const GivenNorm& key, const GivenMatrix& out, const GivenNorm& after_attention,
           const GivenNorm& middle, const GivenMatrix& gate, const GivenMatrix& up,
           int activation, const GivenMatrix& down, const GivenNorm& after_mlp, u32 num_heads,
           u32 num_kv_heads, u32 head_dim) {
    const u32 hidden = decoder_.hidden();
    decoder::Layer layer;
    layer.num_heads = num_heads;
    layer.num_kv_heads = num_kv_heads;
    layer.head_dim = head_dim;
    if (!before || !middle) refuse("A layer has a norm before attention and one before its product.");
    layer.before = norm(before, hidden);
    layer.query = norm(query, head_dim);
    layer.key = norm(key, head_dim);
    layer.after_attention = norm(after_attention, hidden);
    layer.middle = norm(middle, hidden);
    layer.after_mlp = norm(after_mlp, hidden);
    u64 width = 0;
    for (const GivenMatrix& given : qkv) {
      layer.qkv.push_back(matrix(given, hidden));
      width += layer.qkv.back().rows;
    }
    if (width != u64{num_heads + 2 * num_kv_heads} * head_dim)
      refuse("Queries, keys and values have other sizes than the heads.");
    layer.out.push_back(matrix(out, num_heads * head_dim));
    layer.gate.push_back(matrix(gate, hidden));
    layer.up.push_back(matrix(up, hidden));
    const u32 inner = layer.gate[0].rows;
    layer.down.push_back(matrix(down, inner));
    if (layer.out[0].rows != hidden || layer.down[0].rows != hidden || layer.up[0].rows != inner)
      refuse("The matrices of a layer do not fit together.");
    if (activation != 0 && activation != 1) refuse("activation is 0 (silu) or 1 (gelu, by tanh).");
    layer.activation = static_cast<decoder::Activation>(activation);
    width_ = std::max(width_, width);
    heads_ = std::max(heads_, u64{num_heads} * head_dim);
    decoder_.add(std::move(layer));
  }

  void set_head(const GivenNorm& final, const GivenMatrix& head) {
    if (!final) refuse("The head needs its norm.");
    decoder_.set_head(norm(final, decoder_.hidden()), matrix(head, decoder_.hidden()));
  }

  void bind(const Buffer& x, const Buffer& qkv, const Buffer& attended, const Buffer& logits) {
    const std::size_t batch = x.shape(0);
    if (batch == 0 || x.shape(1) != decoder_.hidden() || qkv.shape(0) != batch ||
        qkv.shape(1) < width_ || attended.shape(0) != batch || attended.shape(1) < heads_ ||
        logits.shape(0) != batch || logits.shape(1) < decoder_.vocabulary())
      refuse("The buffers do not fit the layers.");
    buffers_ = {x, qkv, attended, logits};
    rows_ = {static_cast<u32>(batch), x.data(), qkv.data(), attended.data(), logits.data()};
  }

  void set_angles(const std::optional<Floats>& cos, const std::optional<Floats>& sin,
                  bool interleaved) {
    if (cos.has_value() != sin.has_value() || (cos && cos->shape(0) != sin->shape(0)))
      refuse("cos and sin belong together.");
    cos_ = cos;
    sin_ = sin;
    angles_ = {};
    if (cos)
      angles_ = {cos->data(), sin->data(), static_cast<u32>(cos->shape(0)), interleaved};
  }

  void before(std::size_t number) {
    check(number);
    if (2 * angles_.pairs > decoder_.layer(number).head_dim)
      refuse("There are more angles than pairs in a head.");
    nb::gil_scoped_release release;
    std::lock_guard lock(mutex_);
    decoder_.before(number, angles_, rows_);
  }

  void after(std::size_t number) {
    check(number);
    nb::gil_scoped_release release;
    std::lock_guard lock(mutex_);
    decoder_.after(number, rows_);
  }

  void logits() {
    if (!rows_.batch || !decoder_.vocabulary()) refuse("bind() and set_head() come first.");
    nb::gil_scoped_release release;
    std::lock_guard lock(mutex_);
    decoder_.logits(rows_);
  }

 private:
  void check(std::size_t number) const {
    if (!rows_.batch) refuse("bind() comes first.");
    if (number >= decoder_.num_layers()) throw nb::index_error("There is no such layer.");
  }

  decoder::Norm norm(const GivenNorm& given, u64 size) {
    if (!given) return {};
    const auto& [weight, eps] = *given;
    if (weight.shape(0) != size) refuse("A norm has another size than what it is for.");
    floats_.push_back(weight);
    return {weight.data(), eps};
  }

  decoder::Matrix matrix(const GivenMatrix& given, u64 cols) {
    const auto& [weight, scale, bias] = given;
    decoder::Matrix m;
    m.number = number_of(weight.dtype(), true);
    m.data = weight.data();
    m.rows = static_cast<u32>(weight.shape(0));
    m.cols = static_cast<u32>(weight.shape(1));
    if (m.cols != cols || m.rows == 0) refuse("A matrix has another size than its input.");
    weights_.push_back(weight);
    m.scale = row_factor(scale, m.rows);
    m.bias = row_factor(bias, m.rows);
    return m;
  }

  const float* row_factor(const std::optional<Floats>& given, u64 rows) {
    if (!given) return nullptr;
    if (given->shape(0) != rows) refuse("Scales and biases are one a row.");
    floats_.push_back(*given);
    return given->data();
  }

  std::mutex mutex_;
  decoder::Decoder decoder_;
  u64 width_ = 0, heads_ = 0;
  decoder::Rows rows_;
  decoder::Angles angles_;
  std::vector<Buffer> buffers_;
  std::optional<Floats> cos_, sin_;
  std::vector<Floats> floats_;
  std::vector<Weights> weights_;
};

void attend(const std::vector<std::tuple<Queries4, Kept, Kept>>& parts, float scale, u32 threads,
            const Outputs4& out) {
  if (parts.empty()) refuse("attend_one needs at least one part.");
  const auto& [q0, k0, v0] = parts[0];
  decoder::Heads heads{static_cast<u32>(q0.shape(0)), static_cast<u32>(q0.shape(1)),
                       static_cast<u32>(k0.shape(1)), static_cast<u32>(q0.shape(3)),
                       static_cast<u32>(v0.shape(3))};
  const auto whole = [](u32 n) { return n && n % decoder::kDimMultiple == 0; };
  if (!heads.num_kv_heads || heads.num_heads % heads.num_kv_heads || !whole(heads.dim) ||
      !whole(heads.value_dim))
    refuse("Query heads are a multiple of key heads, and head sizes multiples of 16.");
  if (out.shape(0) != heads.batch || out.shape(1) != heads.num_heads || out.shape(2) != 1 ||
      out.shape(3) != heads.value_dim)
    refuse("The output has another shape than the queries.");
  std::vector<decoder::Part> given;
  for (const auto& [q, k, v] : parts) {
    for (std::size_t i = 0; i < 4; ++i)
      if (q.shape(i) != q0.shape(i)) refuse("The queries of all parts have one shape.");
    if (q.shape(2) != 1 || k.shape(0) != heads.batch || v.shape(0) != heads.batch ||
        k.shape(1) != heads.num_kv_heads || v.shape(1) != heads.num_kv_heads ||
        k.shape(2) != v.shape(2) || k.shape(3) != heads.dim || v.shape(3) != heads.value_dim)
      refuse("Queries, keys and values do not fit together.");
    if (k.stride(3) != 1 || v.stride(3) != 1) refuse("The numbers of a head lie in a row.");
    const Number number = number_of(k.dtype(), false);
    if (number != number_of(v.dtype(), false)) refuse("Keys and values are numbers of one kind.");
    given.push_back({q.data(), k.data(), v.data(), k.stride(0), k.stride(1), k.stride(2),
                     v.stride(0), v.stride(1), v.stride(2), number,
                     static_cast<u32>(k.shape(2))});
  }
  nb::gil_scoped_release release;
  decoder::attend(given, heads, scale, threads, out.data());
}

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const decoder::Kernels* kernels : decoder::usable_kernels()) names.push_back(kernels->name);
  return names;
}

void use_kernels(const std::optional<std::string>& name) {
  if (!name) return decoder::use_kernels(nullptr);
  for (const decoder::Kernels* kernels : decoder::usable_kernels())
    if (*name == kernels->name) return decoder::use_kernels(kernels);
  refuse("This processor has no kernels of that name.");
}

}  // namespace

void bind_decoder(nb::module_& m) {
  const decoder::Kernels* kernels = decoder::best_kernels();
  m.attr("DECODER_KERNELS") = kernels ? nb::object(nb::str(kernels->name)) : nb::none();
  if (!kernels) return;
  nb::class_<Layers>(m, "Layers")
      .def(nb::init<u32, u32>(), "hidden"_a, "threads"_a)
      .def("add", &Layers::add, "before"_a.none(), "qkv"_a, "query"_a.none(), "key"_a.none(),
           "out"_a, "after_attention"_a.none(), "middle"_a.none(), "gate"_a, "up"_a, "activation"_a,
           "down"_a, "after_mlp"_a.none(), "num_heads"_a, "num_kv_heads"_a, "head_dim"_a)
      .def("set_head", &Layers::set_head, "norm"_a.none(), "head"_a)
      .def("bind", &Layers::bind, "x"_a, "qkv"_a, "attended"_a, "logits"_a)
      .def("set_angles", &Layers::set_angles, "cos"_a.none(), "sin"_a.none(),
           "interleaved"_a = false)
      .def("before", &Layers::before, "layer"_a)
      .def("after", &Layers::after, "layer"_a)
      .def("logits", &Layers::logits);
  m.def("kernel_names", &kernel_names);
  m.def("use_kernels", &use_kernels, "name"_a.none());
  m.def("share_threads", &Team::share, "shared"_a);
  m.def("attend_one", &attend, "parts"_a, "scale"_a, "threads"_a, "out"_a);
}

}  // namespace unspool
