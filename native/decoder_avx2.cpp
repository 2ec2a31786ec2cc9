// The kernels for AVX2 with FMA; the build gives this file its own flags.
#if defined(__AVX2__) && defined(__FMA__)
#define LANES 8
#define NAME "avx2"
#include "decoder_kernels.inc"

namespace unspool::decoder {
const Kernels* avx2_kernels() { return &kernels; }
}  // namespace unspool::decoder
#else
#include "decoder_kernels.hpp"

namespace unspool::decoder {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace unspool::decoder
#endif
