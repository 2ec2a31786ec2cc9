// The kernels for x86 processors with AVX-512.
#include "attention_keys.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#define UNSPOOL_LANES 16

#if defined(__clang__)
#pragma clang attribute push(                                               \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
    apply_to = function)
#else
// GCC 12 takes the placeholders of its own intrinsics for variables that nobody set.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif

namespace unspool::attention::lanes16 {
#include "attention_kernels.hpp"
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace unspool::attention {

const Kernels* avx512() {
  static const Kernels found{"avx512", 16, lanes16::tile_forward, lanes16::few_forward,
                             lanes16::tile_gradients};
  const bool able = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return able ? &found : nullptr;
}

}  // namespace unspool::attention

#else

namespace unspool::attention {
const Kernels* avx512() { return nullptr; }
}  // namespace unspool::attention

#endif
