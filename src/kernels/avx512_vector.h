// A vector of 16 lanes as one AVX-512 register, for the AVX-512 sets. With VNNI, dot products of
// bytes are one instruction. vector_kernels.h explains.
#pragma once

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
  static constexpr int64_t kTileRows = 8;    // the most rows of a tile
  static constexpr int64_t kSquareRows = 6;  // of a tile of 4 vectors
  // 6 rows of 2 blocks: 12 registers for the integers of a group, 12 for the sums in float.
  static constexpr int kQuantisedVectors = 12;
  static constexpr int64_t kQuantisedRows = 6;

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
  MP_INLINE Float LoadI8(const std::byte* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(LoadQuarter(from)));
  }
  MP_INLINE Float MaskedLoadI8(Mask mask, const std::byte* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, from)));
  }
  MP_INLINE Float LoadU8(const std::byte* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(LoadQuarter(from)));
  }
  MP_INLINE Float LoadF16(const std::byte* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  MP_INLINE Float LoadI4(const std::byte* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(UnpackNibbles(from)));
  }
  template <int kByte>
  MP_INLINE Float WidenByte(const std::byte* line) {
    return _mm512_cvtepi32_ps(
        _mm512_srai_epi32(_mm512_slli_epi32(_mm512_loadu_si512(line), 24 - 8 * kByte), 24));
  }

  MP_INLINE Float Abs(Float a) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(INT32_MAX)));
  }
  MP_INLINE bool AllLanes(Mask mask) { return mask == 0xffff; }
  MP_INLINE float MaxLane(Float a) { return _mm512_reduce_max_ps(a); }

  // ---- Integers ----

  using Int = __m512i;
  MP_INLINE Int SetInt(int32_t value) { return _mm512_set1_epi32(value); }
  MP_INLINE Int AddInt(Int a, Int b) { return _mm512_add_epi32(a, b); }
  MP_INLINE Float FromInt(Int a) { return _mm512_cvtepi32_ps(a); }
  MP_INLINE Int RoundToInt(Float a) { return _mm512_cvtps_epi32(a); }
  MP_INLINE int32_t SumLanes(Int a) { return _mm512_reduce_add_epi32(a); }
  MP_INLINE void StoreI8(std::byte* to, Int a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(a));
  }

  using Bytes = Int;
  MP_INLINE Bytes LoadBytes(const std::byte* line) { return _mm512_loadu_si512(line); }
  MP_INLINE Bytes LowNibbles(Bytes a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
  MP_INLINE Bytes HighNibbles(Bytes a) { return LowNibbles(_mm512_srli_epi16(a, 4)); }
  using Small = Int;
  MP_INLINE Small ZeroSmall() { return SetInt(0); }

#if defined(__AVX512VNNI__)

  // The unsigned operand carries its bias of 128, which 128 times the activations' sum takes off.
  using Q8 = Int;
  MP_INLINE Int StartQ8(int32_t sum) { return SetInt(-128 * sum); }
  MP_INLINE Q8 PrepareQ8(const std::byte* line) { return LoadBytes(line); }
  MP_INLINE Int DotQ8(Int acc, Q8 w, int32_t x) {
    return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x));
  }
  MP_INLINE Small DotSmall(Small acc, Bytes w, int32_t x) { return DotQ8(acc, w, x); }
  MP_INLINE Int SumSmall(Small a) { return a; }

#else

  // Without a dot product of bytes: |w| times the activation with w's sign, in pairs of 16 bits, of
  // which none exceeds 2 * 128 * 127.
  struct Q8 {
    Int magnitude;
    __mmask64 negative;
  };
  MP_INLINE Int StartQ8(int32_t) { return SetInt(0); }
  MP_INLINE Q8 PrepareQ8(const std::byte* line) {
    const Int w = _mm512_xor_si512(LoadBytes(line), _mm512_set1_epi8(-128));
    return {_mm512_abs_epi8(w), _mm512_movepi8_mask(w)};
  }
  MP_INLINE Int DotQ8(Int acc, const Q8& w, int32_t x) {
    const Int xs = _mm512_set1_epi32(x);
    const Int pairs = _mm512_maddubs_epi16(
        w.magnitude, _mm512_mask_sub_epi8(xs, w.negative, _mm512_setzero_si512(), xs));
    return AddInt(acc, SumSmall(pairs));
  }
  // Small: 32 pairs' sums of 16 bits.
  MP_INLINE Small DotSmall(Small acc, Bytes w, int32_t x) {
    return _mm512_add_epi16(acc, _mm512_maddubs_epi16(w, _mm512_set1_epi32(x)));
  }
  MP_INLINE Int SumSmall(Small a) { return _mm512_madd_epi16(a, _mm512_set1_epi16(1)); }

#endif

 private:
  MP_INLINE __m128i LoadQuarter(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  // 16 values of a table of i4, as bytes.
  MP_INLINE __m128i UnpackNibbles(const std::byte* from) {
    const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    const __m128i mask = _mm_set1_epi8(15);
    const __m128i both = _mm_unpacklo_epi8(_mm_and_si128(pairs, mask),
                                           _mm_and_si128(_mm_srli_epi16(pairs, 4), mask));
    return _mm_sub_epi8(both, _mm_set1_epi8(8));
  }
  MP_INLINE Float Widen(__m256i bf16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16));
  }
};

}  // namespace
}  // namespace millpower::kernels
