// The AVX-512 set: a vector of 16 lanes is one register.
#include "kernels/kernel_sets.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "kernels/vector_kernels.h"

#define MP_INLINE [[gnu::always_inline]] static inline

namespace millpower::kernels {
namespace {

struct Avx512 {
  using Float = __m512;
  using Mask = __mmask16;
  // Accumulators of a register tile: with 4 weight vectors and one of x they leave 3 of 32 free.
  static constexpr int kTileVectors = 24;
  static constexpr int64_t kTileRows = 8;  // the most rows of a tile

  MP_INLINE Float Zero() { return _mm512_setzero_ps(); }
  MP_INLINE Float Set1(float value) { return _mm512_set1_ps(value); }
  MP_INLINE Float Load(const float* from) { return _mm512_loadu_ps(from); }
  MP_INLINE void Store(float* to, Float v) { _mm512_storeu_ps(to, v); }
  MP_INLINE Mask FirstLanes(int64_t count) { return static_cast<Mask>((1u << count) - 1); }
  MP_INLINE Float MaskedLoad(Mask mask, const float* from) {
    return _mm512_maskz_loadu_ps(mask, from);
  }
  MP_INLINE void MaskedStore(Mask mask, float* to, Float v) { _mm512_mask_storeu_ps(to, mask, v); }

  MP_INLINE Float Fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  MP_INLINE Float Add(Float a, Float b) { return _mm512_add_ps(a, b); }
  MP_INLINE Float Sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  MP_INLINE Float Mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  MP_INLINE Float Div(Float a, Float b) { return _mm512_div_ps(a, b); }
  MP_INLINE Float Max(Float a, Float b) { return _mm512_max_ps(a, b); }
  MP_INLINE Float Negate(Float a) {
    return _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi32(INT32_MIN)));
  }

  MP_INLINE Mask LessThan(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  MP_INLINE Mask Equal(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  MP_INLINE Float Select(Mask mask, Float yes, Float no) {
    return _mm512_mask_blend_ps(mask, no, yes);
  }
  MP_INLINE bool AnyLane(Mask mask) { return mask != 0; }

  MP_INLINE Float WidenEven(const std::byte* line) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(line), 16));
  }
  MP_INLINE Float WidenOdd(const std::byte* line) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(line), _mm512_set1_epi32(~0xffff)));
  }
  MP_INLINE Float LoadBf16(const std::byte* from) {
    return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  MP_INLINE Float MaskedLoadBf16(Mask mask, const std::byte* from) {
    return Widen(_mm256_maskz_loadu_epi16(mask, from));
  }
  MP_INLINE Float ShiftExponent(Float p, Float n) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
  }

 private:
  MP_INLINE Float Widen(__m256i bf16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16));
  }
};

constexpr KernelSet kSet = MakeKernelSet<Avx512>("avx512", "AVX512F AVX512BW AVX512VL");

}  // namespace

constinit const KernelSet* const kAvx512Set = &kSet;

}  // namespace millpower::kernels

#else

namespace millpower::kernels {
constinit const KernelSet* const kAvx512Set = nullptr;
}  // namespace millpower::kernels

#endif
