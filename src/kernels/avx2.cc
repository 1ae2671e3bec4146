// The AVX2 set: a vector of 16 lanes is two registers.
#include "kernels/kernel_sets.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

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
  static constexpr int64_t kTileRows = 5;    // the most rows of a tile
  static constexpr int64_t kSquareRows = 5;  // 3 rows of 2 vectors are no faster
  // 4 rows of one block, in pairs, take 8 registers for the integers of a group; the sums in float
  // wait in memory meanwhile.
  static constexpr int kQuantisedVectors = 4;
  static constexpr int64_t kQuantisedRows = 4;

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
  MP_INLINE Float LoadI8(const std::byte* from) { return WidenI8(LoadQuarter(from)); }
  // `mask` has a multiple of four lanes, which AVX2 can only load as fours.
  MP_INLINE Float MaskedLoadI8(Mask mask, const std::byte* from) {
    // Fours 0..3 are lanes 0, 4, 8, 12 of the mask.
    const __m256i every_fourth = _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4);
    const __m256i both =
        _mm256_blend_epi32(_mm256_permutevar8x32_epi32(mask.lo, every_fourth),
                           _mm256_permutevar8x32_epi32(mask.hi, every_fourth), 0x0c);
    const __m128i fours = _mm256_castsi256_si128(both);
    return WidenI8(_mm_maskload_epi32(reinterpret_cast<const int*>(from), fours));
  }
  MP_INLINE Float LoadU8(const std::byte* from) {
    const __m128i bytes = LoadQuarter(from);
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  MP_INLINE Float LoadF16(const std::byte* from) {
    return {_mm256_cvtph_ps(LoadQuarter(from)), _mm256_cvtph_ps(LoadQuarter(from + 16))};
  }
  MP_INLINE Float LoadI4(const std::byte* from) {
    const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    const __m128i mask = _mm_set1_epi8(15);
    const __m128i both = _mm_unpacklo_epi8(_mm_and_si128(pairs, mask),
                                           _mm_and_si128(_mm_srli_epi16(pairs, 4), mask));
    return WidenI8(_mm_sub_epi8(both, _mm_set1_epi8(8)));
  }
  template <int kByte>
  MP_INLINE Float WidenByte(const std::byte* line) {
    constexpr int kLeft = 24 - 8 * kByte;
    return {
        _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(LoadHalf(line), kLeft), 24)),
        _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(LoadHalf(line + 32), kLeft), 24))};
  }

  MP_INLINE Float Abs(Float a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
  }
  MP_INLINE bool AllLanes(Mask mask) {
    return _mm256_movemask_epi8(_mm256_and_si256(mask.lo, mask.hi)) == -1;
  }
  MP_INLINE float MaxLane(Float a) {
    const __m256 eight = _mm256_max_ps(a.lo, a.hi);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }

  // ---- Integers ----

  struct Int {
    __m256i lo;
    __m256i hi;
  };
  MP_INLINE Int SetInt(int32_t value) {
    return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)};
  }
  MP_INLINE Int AddInt(Int a, Int b) {
    return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
  }
  MP_INLINE Float FromInt(Int a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
  MP_INLINE Int RoundToInt(Float a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
  MP_INLINE int32_t SumLanes(Int a) {
    const __m256i eight = _mm256_add_epi32(a.lo, a.hi);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_srli_si128(four, 8));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_srli_si128(four, 4)));
  }
  MP_INLINE void StoreI8(std::byte* to, Int a) {
    // Packing works within halves of 128 bits: put the lanes back in order.
    const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  }

  // Without a dot product of bytes: |w| times the activation with w's sign, in pairs of 16 bits, of
  // which none exceeds 2 * 128 * 127.
  struct Q8 {
    Int magnitude;
    Int value;
  };
  MP_INLINE Int StartQ8(int32_t) { return SetInt(0); }
  MP_INLINE Q8 PrepareQ8(const std::byte* line) {
    const __m256i bias = _mm256_set1_epi8(-128);
    const Int w = {_mm256_xor_si256(LoadHalf(line), bias),
                   _mm256_xor_si256(LoadHalf(line + 32), bias)};
    return {{_mm256_abs_epi8(w.lo), _mm256_abs_epi8(w.hi)}, w};
  }
  MP_INLINE Int DotQ8(Int acc, const Q8& w, int32_t x) {
    const __m256i xs = _mm256_set1_epi32(x);
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i lo = _mm256_maddubs_epi16(w.magnitude.lo, _mm256_sign_epi8(xs, w.value.lo));
    const __m256i hi = _mm256_maddubs_epi16(w.magnitude.hi, _mm256_sign_epi8(xs, w.value.hi));
    return {_mm256_add_epi32(acc.lo, _mm256_madd_epi16(lo, ones)),
            _mm256_add_epi32(acc.hi, _mm256_madd_epi16(hi, ones))};
  }

  using Bytes = Int;
  using Small = Int;  // 32 pairs' sums of 16 bits
  MP_INLINE Bytes LoadBytes(const std::byte* line) { return {LoadHalf(line), LoadHalf(line + 32)}; }
  MP_INLINE Bytes LowNibbles(Bytes a) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
  }
  MP_INLINE Bytes HighNibbles(Bytes a) {
    return LowNibbles({_mm256_srli_epi16(a.lo, 4), _mm256_srli_epi16(a.hi, 4)});
  }
  MP_INLINE Small ZeroSmall() { return SetInt(0); }
  MP_INLINE Small DotSmall(Small acc, Bytes w, int32_t x) {
    const __m256i xs = _mm256_set1_epi32(x);
    return {_mm256_add_epi16(acc.lo, _mm256_maddubs_epi16(w.lo, xs)),
            _mm256_add_epi16(acc.hi, _mm256_maddubs_epi16(w.hi, xs))};
  }
  MP_INLINE Int SumSmall(Small a) {
    const __m256i ones = _mm256_set1_epi16(1);
    return {_mm256_madd_epi16(a.lo, ones), _mm256_madd_epi16(a.hi, ones)};
  }

  MP_INLINE Float ShiftExponent(Float p, Float n) {
    return {ShiftExponentHalf(p.lo, n.lo), ShiftExponentHalf(p.hi, n.hi)};
  }

 private:
  MP_INLINE __m128i LoadQuarter(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  MP_INLINE Float WidenI8(__m128i bytes) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }
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

constexpr KernelSet kSet = MakeKernelSet<Avx2>("avx2", "AVX2 FMA F16C");

}  // namespace

constinit const KernelSet* const kAvx2Set = &kSet;

}  // namespace millpower::kernels

#else

namespace millpower::kernels {
constinit const KernelSet* const kAvx2Set = nullptr;
}  // namespace millpower::kernels

#endif
