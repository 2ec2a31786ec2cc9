// The arithmetic of one written token, compiled once for each instruction set. Plain data only: what
// these files include must not leave functions behind that other files would share.
#pragma once
#include <cstddef>
#include <cstdint>

namespace unspool::decoder {

enum class Number : int { f32 = 0, bf16 = 1, i8 = 2 };
enum class Activation : int { silu = 0, gelu_tanh = 1 };

// Rows of weights, each times its scale, and a bias.
struct Matrix {
  const void* data = nullptr;
  const float* scale = nullptr;  // of each row; none: 1
  const float* bias = nullptr;
  std::uint32_t rows = 0, cols = 0;
  Number number = Number::f32;
};

// A run of keys that a group of query heads of one sequence attends to.
struct Piece {
  const float* q;  // [groups, dim], scaled
  const void* k;
  const void* v;
  std::int64_t k_stride, v_stride;  // from token to token, in numbers
  Number number;
  std::uint32_t keys, groups, dim, value_dim;
  float* scores;  // room for [4, keys]
  float* most;    // [groups]
  float* sum;     // [groups]
  float* out;     // [groups, value_dim], times `sum`
};

struct Kernels {
  const char* name;
  // y[b, r] = scale[r] * dot(row r, x[b]) + bias[r] for rows begin to end. `begin` is a multiple of
  // 4. Every row is summed in one order, whatever the range and the batch.
  void (*multiply)(const Matrix&, std::uint32_t begin, std::uint32_t end, const float* x,
                   std::size_t x_stride, std::uint32_t batch, float* y, std::size_t y_stride);
  void (*attend)(const Piece&);
  // gate = activation(gate) * up
  void (*activate)(Activation, float* gate, const float* up, std::uint32_t n);
  // y = x / sqrt(mean(x^2) + eps) * weight
  void (*normalise)(const float* x, const float* weight, float eps, std::uint32_t n, float* y);
};

const Kernels* base_kernels();    // null where the compiler has no vectors
const Kernels* avx2_kernels();    // null where it was not compiled
const Kernels* avx512_kernels();  // null where it was not compiled
inline constexpr std::uint32_t kDimMultiple = 16;  // of head sizes that `attend` takes

}  // namespace unspool::decoder
