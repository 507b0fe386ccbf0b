// The product of int8 codes with AVX-512 VNNI.
#include "kmeans_assign/cpu/avx512/product.h"

namespace ktfast::cpu {
namespace {

struct Int8Codes {
  using Sum = __m512i;
  using Product = int32_t;
  static __m512i multiply(__m512i sum, __m512i x, __m512i c) {
    return _mm512_dpbusd_epi32(sum, c, x);
  }
};

}  // namespace

Product product_avx512_vnni() { return product_avx512<Int8Codes>; }

}  // namespace ktfast::cpu
