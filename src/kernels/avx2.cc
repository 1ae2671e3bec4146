// The AVX2 set: a vector of 16 lanes is two registers.
#include "kernels/kernel_sets.h"

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

#include "kernels/vector_kernels.h"

#define MP_INLINE [[gnu::always_inline]] static inline

namespace millpower::kernels {
namespace {

struct Avx2 {
  struct Float {
    __m256 lo;  // lanes 0 .. 7
    __m256 hi;  // lanes 8 .. 15
  };
  struct Mask {
    __m256i lo;
    __m256i hi;
  };
  // Accumulators of a register tile, in pairs: 3 rows of 2 blocks, or 5 rows of one, leave 4 or 6
  // of the 16 registers for weights and x. 6 rows would fit, but g++ 12 then spills four of them.
  static constexpr int kTileVectors = 6;
  static constexpr int64_t kTileRows = 5;  // the most rows of a tile

  MP_INLINE Float Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  MP_INLINE Float Set1(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  MP_INLINE Float Load(const float* from) {
    return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
  }
  MP_INLINE void Store(float* to, Float v) {
    _mm256_storeu_ps(to, v.lo);
    _mm256_storeu_ps(to + 8, v.hi);
  }
  MP_INLINE Mask FirstLanes(int64_t count) {
    const __m256i counts = _mm256_set1_epi32(static_cast<int>(count));
    return {_mm256_cmpgt_epi32(counts, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
            _mm256_cmpgt_epi32(counts, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
  }
  MP_INLINE Float MaskedLoad(Mask mask, const float* from) {
    return {_mm256_maskload_ps(from, mask.lo), _mm256_maskload_ps(from + 8, mask.hi)};
  }
  MP_INLINE void MaskedStore(Mask mask, float* to, Float v) {
    _mm256_maskstore_ps(to, mask.lo, v.lo);
    _mm256_maskstore_ps(to + 8, mask.hi, v.hi);
  }

  MP_INLINE Float Fma(Float a, Float b, Float c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  MP_INLINE Float Add(Float a, Float b) {
    return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
  }
  MP_INLINE Float Sub(Float a, Float b) {
    return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
  }
  MP_INLINE Float Mul(Float a, Float b) {
    return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
  }
  MP_INLINE Float Div(Float a, Float b) {
    return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
  }
  MP_INLINE Float Max(Float a, Float b) {
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
  }
  MP_INLINE Float Negate(Float a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
  }

  MP_INLINE Mask LessThan(Float a, Float b) {
    return {_mm256_castps_si256(_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
            _mm256_castps_si256(_mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
  }
  MP_INLINE Mask Equal(Float a, Float b) {
    return {_mm256_castps_si256(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ)),
            _mm256_castps_si256(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ))};
  }
  MP_INLINE Float Select(Mask mask, Float yes, Float no) {
    return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_castsi256_ps(mask.lo)),
            _mm256_blendv_ps(no.hi, yes.hi, _mm256_castsi256_ps(mask.hi))};
  }
  MP_INLINE bool AnyLane(Mask mask) {
    return _mm256_movemask_epi8(_mm256_or_si256(mask.lo, mask.hi)) != 0;
  }

  MP_INLINE Float WidenEven(const std::byte* line) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(LoadHalf(line), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(LoadHalf(line + 32), 16))};
  }
  MP_INLINE Float WidenOdd(const std::byte* line) {
    const __m256i upper = _mm256_set1_epi32(~0xffff);
    return {_mm256_castsi256_ps(_mm256_and_si256(LoadHalf(line), upper)),
            _mm256_castsi256_ps(_mm256_and_si256(LoadHalf(line + 32), upper))};
  }
  MP_INLINE Float LoadBf16(const std::byte* from) { return Widen(LoadHalf(from)); }
  // `mask` has an even number of lanes, which AVX2 can only load as pairs.
  MP_INLINE Float MaskedLoadBf16(Mask mask, const std::byte* from) {
    // Lane pairs 0..7 are lanes 0, 2, 4 ... of the mask.
    const __m256i even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    const __m256i pairs = _mm256_blend_epi32(_mm256_permutevar8x32_epi32(mask.lo, even),
                                             _mm256_permutevar8x32_epi32(mask.hi, even), 0xf0);
    return Widen(_mm256_maskload_epi32(reinterpret_cast<const int*>(from), pairs));
  }
  MP_INLINE Float ShiftExponent(Float p, Float n) {
    return {ShiftExponentHalf(p.lo, n.lo), ShiftExponentHalf(p.hi, n.hi)};
  }

 private:
  MP_INLINE __m256i LoadHalf(const std::byte* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  MP_INLINE Float Widen(__m256i bf16) {
    const __m256i lo = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(bf16));
    const __m256i hi = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(bf16, 1));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
  }
  MP_INLINE __m256 ShiftExponentHalf(__m256 p, __m256 n) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
  }
};

constexpr KernelSet kSet = MakeKernelSet<Avx2>("avx2", "AVX2 FMA");

}  // namespace

constinit const KernelSet* const kAvx2Set = &kSet;

}  // namespace millpower::kernels

#else

namespace millpower::kernels {
constinit const KernelSet* const kAvx2Set = nullptr;
}  // namespace millpower::kernels

#endif
