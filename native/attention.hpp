// Attention over listed keys on the processor: what a call is made of, and the kernels that run it.
//
// What: softmax(q k^T * scale) v over the keys that a pattern leaves each query, with the
// log-sum-exp of every row, and the gradients of both.
// Source: FlashAttention (Dao et al. 2022), algorithm 1 in the loop order of FlashAttention-2, and
// its backward pass.
// Differs: queries lie across the lanes of a vector, so that keys and values are read row by row
// where they are, whether they lie together or scattered; nothing is packed or gathered first.
// Cost: a query tile costs rows * listed keys * (D + Dv) multiplications, and one row's worth of
// memory. Shapes: B batch, Hq and Hkv heads, T queries, S keys, D and Dv head sizes.
#pragma once
#include <cstddef>
#include <cstring>

#include "base.hpp"

namespace unspool::attention {

using i32 = std::int32_t;

// Keys that are met at once, and query rows of one tile at most.
constexpr i64 kKeys = 64;
constexpr i64 kRows = 64;
// A row has met no key while its maximum is at this.
constexpr float kNothing = -1e30f;

// [B, H, N, D] in elements; the last dimension is dense.
struct Strides {
  i64 batch = 0, head = 0, row = 0;
};

// [B|1, N], or nothing.
template <class T>
struct PerBatch {
  const T* data = nullptr;
  i64 stride = 0;
  const T* of(i64 batch) const { return data ? data + batch * stride : nullptr; }
};

struct Problem {
  i64 batch = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0, head_dim = 0, value_dim = 0;
  bool half = false;  // bfloat16, else float32
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  void* out = nullptr;
  Strides q_strides, k_strides, v_strides, out_strides;
  float* lse = nullptr;  // [B, Hq, T]
  float scale = 1, softcap = 0;

  // distance = query position - key position. Visible: distance >= min_distance, and
  // near_min <= distance <= near_max unless the key or the query is excused.
  i64 min_distance = 0, near_min = 0, near_max = 0, sinks = 0;
  bool any_distance = true, near = false;
  PerBatch<i64> q_positions, k_positions;  // none: 0 … S - 1, and the last T of these
  PerBatch<i64> q_documents, k_documents;
  PerBatch<u8> q_global, k_global;

  // Block lists, or none: every key is listed.
  const i32 *indices = nullptr, *counts = nullptr;
  i64 list_batches = 1, list_heads = 1, list_rows = 0, list_length = 0;
  i64 block_q = 1, block_k = 1;

  // Backward.
  const void* d_out = nullptr;
  Strides d_out_strides;
  const float* delta = nullptr;  // [B, Hq, T]: row sums of d_out * out, less the gradient of lse
  float* d_q = nullptr;          // [B, Hq, T, D]
  float *d_k = nullptr, *d_v = nullptr;  // [B, Hkv, S, *_width], added to
  i64 k_width = 0, v_width = 0;          // D and Dv rounded up to whole vectors
};

// Rounded to the nearest, half to even.
inline u16 to_bfloat16(float x) {
  u32 b;
  std::memcpy(&b, &x, sizeof b);
  if ((b & 0x7fffffff) > 0x7f800000) return static_cast<u16>((b >> 16) | 0x40);  // NaN stays NaN
  return static_cast<u16>((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}

// Query rows that go together: `heads` query heads of one key-value head, `count` queries each.
struct Tile {
  i64 batch = 0, kv_head = 0, head = 0, heads = 1, query = 0, count = 1;
  i64 begin = 0, end = 0;    // of the list of keys; of spans of kKeys keys, where nothing is listed
  float* partial = nullptr;  // a part of the list: unfinished rows go here, not to `out`
  i64 rows() const { return heads * count; }
};

// An unfinished row: its values, its maximum in powers of two, its sum.
inline i64 partial_size(const Problem& p) { return p.value_dim + 2; }

struct Kernels {
  const char* name;
  i64 lanes;
  void (*tile)(const Problem&, const Tile&, char* scratch);      // many rows
  void (*few)(const Problem&, const Tile&, char* scratch);       // at most lanes / 2 rows
  void (*gradients)(const Problem&, const Tile&, char* scratch);
};

const Kernels& portable();
const Kernels* avx2();    // null where the processor has it not
const Kernels* avx512();
const Kernels* avx512_bf16();

// The fastest kernels of this processor, or those of that name; throws BadQuery for other names.
const Kernels& kernels(const std::string& name = "");

void forward(const Problem& p, const Kernels& use, u64 threads);
void backward(const Problem& p, const Kernels& use, u64 threads);

}  // namespace unspool::attention
