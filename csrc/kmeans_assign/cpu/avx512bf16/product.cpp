// The product of bfloat16 codes with AVX-512 BF16.
#include "kmeans_assign/cpu/avx512/product.h"

namespace ktfast::cpu {
namespace {

struct Bfloat16Codes {
  using Sum = __m512;
  using Product = float;
  static __m512 multiply(__m512 sum, __m512i x, __m512i c) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(c));
  }
};

}  // namespace

Product product_avx512_bf16() { return product_avx512<Bfloat16Codes>; }

}  // namespace ktfast::cpu
