// The kernels for AVX-512; the build gives this file its own flags.
#if defined(__AVX512F__) && defined(__AVX512BW__)
#define LANES 16
#define NAME "avx512"
#include "decoder_kernels.inc"

namespace unspool::decoder {
const Kernels* avx512_kernels() { return &kernels; }
}  // namespace unspool::decoder
#else
#include "decoder_kernels.hpp"

namespace unspool::decoder {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace unspool::decoder
#endif
