// The kernels for x86 processors with AVX2.
#include "attention_keys.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#define UNSPOOL_LANES 8

#if defined(__clang__)
#pragma clang attribute push(            \
    __attribute__((target("avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace unspool::attention::lanes8 {
#include "attention_kernels.hpp"
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace unspool::attention {

const Kernels* avx2() {
  static const Kernels found{"avx2", 8, lanes8::tile_forward, lanes8::few_forward,
                             lanes8::tile_gradients};
  const bool able = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return able ? &found : nullptr;
}

}  // namespace unspool::attention

#else

namespace unspool::attention {
const Kernels* avx2() { return nullptr; }
}  // namespace unspool::attention

#endif
