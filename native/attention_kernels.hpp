// All kernels for one instruction set. Included once for each, inside its namespace, after the
// headers that must not be compiled for it: what is inline there would be shared with the others.
#include "attention_simd.hpp"
//
#include "attention_product.hpp"
//
#include "attention_tile.hpp"
//
#include "attention_few.hpp"
//
#include "attention_gradient.hpp"
