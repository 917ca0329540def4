// bfloat16 as storage: widened to float32 on load, rounded to nearest even on store.
#pragma once

#include "host_device.h"

#include <stdint.h>

namespace gg {

struct bfloat16 {
  uint16_t bits;
};

GG_HD float widen(bfloat16 value) { return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

GG_HD bfloat16 narrow(float value) {
  uint32_t bits = bit_cast<uint32_t>(value);
  if (value != value) return bfloat16{static_cast<uint16_t>((bits >> 16) | 0x40)};
  return bfloat16{static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// How a storage type is computed with.
template <class Storage>
struct Accumulator {
  using Type = Storage;
};
template <>
struct Accumulator<bfloat16> {
  using Type = float;
};

template <class Storage>
GG_HD typename Accumulator<Storage>::Type load_scalar(const Storage* at) {
  return *at;
}
GG_HD float load_scalar(const bfloat16* at) { return widen(*at); }
template <class Storage>
GG_HD void store_scalar(Storage* at, typename Accumulator<Storage>::Type value) {
  *at = value;
}
GG_HD void store_scalar(bfloat16* at, float value) { *at = narrow(value); }

}  // namespace gg
