// Attention over listed keys, as Python calls it: arrays in, arrays written.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <limits>
#include <optional>

#include "attention.hpp"
#include "binding.hpp"

using namespace nb::literals;

namespace unspool {
namespace {

using attention::i32;
using attention::Problem;
using attention::Strides;

using Array = nb::ndarray<nb::ro, nb::device::cpu>;
using Written = nb::ndarray<nb::device::cpu>;
template <class T, int N>
using Dense = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using WrittenDense = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T>
using PerToken = std::optional<Dense<T, 2>>;

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

// Which pairs are visible: the rules of unspool.attention.Spec, with the tensors it names.
struct Pattern {
  bool causal;
  std::optional<i64> window, right, beyond;
  i64 sinks;
  PerToken<bool> q_global, k_global;
  PerToken<i64> q_positions, k_positions, q_documents, k_documents;
  std::optional<Dense<i32, 4>> indices;
  std::optional<Dense<i32, 3>> counts;
  i64 block_q, block_k;
};

template <class T, class To>
void take(const PerToken<T>& from, attention::PerBatch<To>& to, i64 batch, i64 n,
          const char* name) {
  if (!from) return;
  const i64 rows = static_cast<i64>(from->shape(0));
  if ((rows != 1 && rows != batch) || static_cast<i64>(from->shape(1)) != n)
    refuse(std::string(name) + " must be [" + std::to_string(batch) + " or 1, " +
           std::to_string(n) + "].");
  to.data = reinterpret_cast<const To*>(from->data());
  to.stride = rows == 1 ? 0 : n;
}

void apply(const Pattern& pattern, Problem& p) {
  constexpr i64 far = i64{1} << 40;
  p.min_distance = std::max(pattern.causal ? 0 : -far, pattern.beyond.value_or(-far));
  p.any_distance = p.min_distance == -far;
  p.near = pattern.window || pattern.right;
  p.near_max = pattern.window ? *pattern.window - 1 : far;
  p.near_min = pattern.right ? -*pattern.right : -far;
  p.sinks = pattern.sinks;
  take(pattern.q_global, p.q_global, p.batch, p.queries, "q_global");
  take(pattern.k_global, p.k_global, p.batch, p.keys, "k_global");
  take(pattern.q_positions, p.q_positions, p.batch, p.queries, "q_positions");
  take(pattern.k_positions, p.k_positions, p.batch, p.keys, "k_positions");
  take(pattern.q_documents, p.q_documents, p.batch, p.queries, "q_documents");
  take(pattern.k_documents, p.k_documents, p.batch, p.keys, "k_documents");
  if (!pattern.q_documents != !pattern.k_documents)
    refuse("q_documents and k_documents go together.");
  if (!pattern.indices) return;
  const auto& lists = *pattern.indices;
  if (!pattern.counts) refuse("indices need counts.");
  for (std::size_t i = 0; i < 3; ++i)
    if (lists.shape(i) != pattern.counts->shape(i)) refuse("indices and counts differ in shape.");
  if (pattern.block_q < 1 || pattern.block_k < 1) refuse("blocks hold at least one row.");
  p.block_q = std::min(pattern.block_q, std::max<i64>(1, p.queries));
  p.block_k = pattern.block_k;
  p.list_batches = static_cast<i64>(lists.shape(0));
  p.list_heads = static_cast<i64>(lists.shape(1));
  p.list_rows = static_cast<i64>(lists.shape(2));
  p.list_length = static_cast<i64>(lists.shape(3));
  if (p.list_batches != 1 && p.list_batches != p.batch)
    refuse("lists are for another number of batch rows.");
  if (p.list_heads < 1 || p.heads % p.list_heads) refuse("lists are for another number of heads.");
  if (p.list_rows * p.block_q < p.queries) refuse("lists are for fewer queries.");
  static constexpr i32 nothing = 0;  // an empty array may have no address
  p.indices = p.list_length ? lists.data() : &nothing;
  p.counts = pattern.counts->data();
}

bool is_half(nb::dlpack::dtype type) {
  return type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && type.bits == 16;
}

// A tensor [B, H, N, D] whose last dimension is dense.
template <class A>
Strides strides(const A& x, bool half, std::initializer_list<i64> shape, const char* name) {
  if (x.ndim() != 4) refuse(std::string(name) + " must have four dimensions.");
  if (half != is_half(x.dtype()) || (!half && x.dtype() != nb::dtype<float>()))
    refuse(std::string(name) + " must be float32 or bfloat16, as q is.");
  std::size_t i = 0;
  for (const i64 size : shape)
    if (static_cast<i64>(x.shape(i++)) != size) refuse(std::string(name) + " has another shape.");
  if (x.shape(3) > 1 && x.stride(3) != 1) refuse(std::string(name) + " has gaps in its rows.");
  return {x.stride(0), x.stride(1), x.stride(2)};
}

Problem problem(const Array& q, const Array& k, const Array& v, const Pattern& pattern,
                double scale, double softcap) {
  if (q.ndim() != 4 || k.ndim() != 4 || v.ndim() != 4) refuse("q, k and v have four dimensions.");
  Problem p;
  const auto size = [](const Array& x, std::size_t i) { return static_cast<i64>(x.shape(i)); };
  p.batch = size(q, 0), p.heads = size(q, 1), p.queries = size(q, 2), p.head_dim = size(q, 3);
  p.kv_heads = size(k, 1), p.keys = size(k, 2), p.value_dim = size(v, 3);
  if (p.kv_heads < 1 || p.heads % p.kv_heads) refuse("query heads are shared unevenly.");
  if (p.keys > std::numeric_limits<i32>::max()) refuse("there are more than 2^31 keys.");
  p.half = is_half(q.dtype());
  p.q = q.data(), p.k = k.data(), p.v = v.data();
  p.q_strides = strides(q, p.half, {}, "q");
  p.k_strides = strides(k, p.half, {p.batch, p.kv_heads, p.keys, p.head_dim}, "k");
  p.v_strides = strides(v, p.half, {p.batch, p.kv_heads, p.keys, p.value_dim}, "v");
  p.scale = static_cast<float>(scale);
  p.softcap = static_cast<float>(softcap);
  apply(pattern, p);
  return p;
}

void expect(const WrittenDense<float, 3>& x, const Problem& p) {
  if (static_cast<i64>(x.shape(0)) != p.batch || static_cast<i64>(x.shape(1)) != p.heads ||
      static_cast<i64>(x.shape(2)) != p.queries)
    refuse("the log-sum-exp must be [B, Hq, T].");
}

void forward(const Array& q, const Array& k, const Array& v, const Written& out,
             const WrittenDense<float, 3>& lse, const Pattern& pattern, double scale,
             double softcap, u64 threads, const std::string& kernels) {
  Problem p = problem(q, k, v, pattern, scale, softcap);
  p.out_strides = strides(out, p.half, {p.batch, p.heads, p.queries, p.value_dim}, "out");
  expect(lse, p);
  p.out = out.data();
  p.lse = lse.data();
  const attention::Kernels& use = attention::kernels(kernels);
  Native native;
  attention::forward(p, use, threads);
}

void backward(const Array& q, const Array& k, const Array& v, const WrittenDense<float, 3>& lse,
              const Array& d_out, const WrittenDense<float, 3>& delta,
              const WrittenDense<float, 4>& d_q, const WrittenDense<float, 4>& d_k,
              const WrittenDense<float, 4>& d_v, const Pattern& pattern, double scale,
              double softcap, u64 threads, const std::string& kernels) {
  Problem p = problem(q, k, v, pattern, scale, softcap);
  p.d_out_strides = strides(d_out, p.half, {p.batch, p.heads, p.queries, p.value_dim}, "d_out");
  expect(lse, p);
  expect(delta, p);
  p.lse = lse.data(), p.d_out = d_out.data(), p.delta = delta.data();
  p.d_q = d_q.data(), p.d_k = d_k.data(), p.d_v = d_v.data();
  // Rows of the gradients of keys and values are whole vectors of any kernel.
  constexpr i64 whole = 16;
  p.k_width = static_cast<i64>(round_up(static_cast<u64>(p.head_dim), whole));
  p.v_width = static_cast<i64>(round_up(static_cast<u64>(p.value_dim), whole));
  if (static_cast<i64>(d_q.size()) != p.batch * p.heads * p.queries * p.head_dim ||
      static_cast<i64>(d_k.size()) != p.batch * p.kv_heads * p.keys * p.k_width ||
      static_cast<i64>(d_v.size()) != p.batch * p.kv_heads * p.keys * p.v_width)
    refuse("a gradient has another shape.");
  const attention::Kernels& use = attention::kernels(kernels);
  Native native;
  attention::backward(p, use, threads);
}

}  // namespace

void bind_attention(nb::module_& m) {
  nb::class_<Pattern>(m, "AttentionPattern")
      .def(
          "__init__",
          [](Pattern* self, bool causal, std::optional<i64> window, std::optional<i64> right,
             std::optional<i64> beyond, i64 sinks, PerToken<bool> q_global, PerToken<bool> k_global,
             PerToken<i64> q_positions, PerToken<i64> k_positions, PerToken<i64> q_documents,
             PerToken<i64> k_documents, std::optional<Dense<i32, 4>> indices,
             std::optional<Dense<i32, 3>> counts, i64 block_q, i64 block_k) {
            new (self) Pattern{causal,      window,      right,       beyond,  sinks,
                               q_global,    k_global,    q_positions, k_positions,
                               q_documents, k_documents, indices,     counts,  block_q,
                               block_k};
          },
          nb::kw_only(), "causal"_a, "window"_a.none() = nb::none(), "right"_a.none() = nb::none(),
          "beyond"_a.none() = nb::none(), "sinks"_a = 0, "q_global"_a.none() = nb::none(),
          "k_global"_a.none() = nb::none(), "q_positions"_a.none() = nb::none(),
          "k_positions"_a.none() = nb::none(), "q_documents"_a.none() = nb::none(),
          "k_documents"_a.none() = nb::none(), "indices"_a.none() = nb::none(),
          "counts"_a.none() = nb::none(), "block_q"_a = 1, "block_k"_a = 1);
  m.def("attention_forward", &forward, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a, "pattern"_a,
        nb::kw_only(), "scale"_a, "softcap"_a = 0.0, "threads"_a = 1, "kernels"_a = "");
  m.def("attention_backward", &backward, "q"_a, "k"_a, "v"_a, "lse"_a, "d_out"_a, "delta"_a,
        "d_q"_a, "d_k"_a, "d_v"_a, "pattern"_a, nb::kw_only(), "scale"_a, "softcap"_a = 0.0,
        "threads"_a = 1, "kernels"_a = "");
  m.def("attention_kernels", [] { return std::string(attention::kernels().name); });
}

}  // namespace unspool
