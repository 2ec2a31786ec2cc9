// The kernels as the compiler's own target allows (SSE on x86-64, NEON on aarch64).
#if defined(__GNUC__)
#define LANES 4
#define NAME "base"
#include "decoder_kernels.inc"

namespace unspool::decoder {
const Kernels* base_kernels() { return &kernels; }
}  // namespace unspool::decoder
#else
#include "decoder_kernels.hpp"

namespace unspool::decoder {
const Kernels* base_kernels() { return nullptr; }  // a compiler without vectors
}  // namespace unspool::decoder
#endif
