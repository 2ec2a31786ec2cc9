// The kernels for any machine: four lanes, which every 64-bit processor has.
#include "attention_keys.hpp"

#define UNSPOOL_LANES 4

namespace unspool::attention {
namespace lanes4 {
#include "attention_kernels.hpp"
}

const Kernels& portable() {
  static const Kernels found{"portable", 4, lanes4::tile_forward, lanes4::few_forward,
                             lanes4::tile_gradients};
  return found;
}

}  // namespace unspool::attention
