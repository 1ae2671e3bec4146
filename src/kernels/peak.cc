#include "kernels/peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace millpower::kernels {
namespace {

constexpr int kPasses = 5;
constexpr int kChains = 16;            // independent: latency 4-5 times 2 a cycle, and spare
constexpr int64_t kSteps = 3'000'000;  // of every chain: some 10-30 ms

using Work = void (*)();
using Read = void (*)(std::span<const std::byte>);

// Units of work per second when every member runs `work(member)`, which does `units` of it.
template <typename Body>
double BestRate(ThreadTeam& team, double units, const Body& work) {
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    team.Run(work);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::max(best, units * team.count() / elapsed.count());
  }
  return best;
}

// Where results go, so that no loop is optimised away.
std::atomic<int64_t> sink;

void ReadPlain(std::span<const std::byte> bytes) {
  const auto* words = reinterpret_cast<const uint64_t*>(bytes.data());
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= bytes.size() / 8; i += 8)
    for (size_t j = 0; j < 8; ++j) sums[j] ^= words[i + j];
  for (const uint64_t sum : sums) sink += static_cast<int64_t>(sum);
}

#if defined(__x86_64__)

#define MP_TARGET(isa) __attribute__((target(isa)))

MP_TARGET("avx512f") void ReadAvx512(std::span<const std::byte> bytes) {
  __m512i sums[4] = {};
  const std::byte* from = bytes.data();
  for (const std::byte* end = from + bytes.size() / 256 * 256; from < end; from += 256)
    for (int j = 0; j < 4; ++j)
      sums[j] = _mm512_xor_si512(sums[j], _mm512_load_si512(from + 64 * j));
  const __m512i all =
      _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3]));
  sink += _mm_cvtsi128_si64(_mm512_castsi512_si128(all));
}

MP_TARGET("avx2") void ReadAvx2(std::span<const std::byte> bytes) {
  __m256i sums[4] = {};
  const std::byte* from = bytes.data();
  for (const std::byte* end = from + bytes.size() / 128 * 128; from < end; from += 128)
    for (int j = 0; j < 4; ++j)
      sums[j] = _mm256_xor_si256(
          sums[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(from + 32 * j)));
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  sink += _mm_cvtsi128_si64(_mm256_castsi256_si128(all));
}

// Each loop below advances kChains vectors kSteps times. The empty asm makes a value unknown, so
// that the compiler cannot work the loop out beforehand.
MP_TARGET("avx512f") void FmaAvx512() {
  __m512 acc[kChains], x = _mm512_set1_ps(0.5f);
  for (auto& a : acc) a = _mm512_set1_ps(1.0f);
  for (int64_t step = 0; step < kSteps; ++step) {
    asm volatile("" : "+v"(x));
    for (auto& a : acc) a = _mm512_fmadd_ps(a, x, x);
  }
  for (auto& a : acc) sink += static_cast<int64_t>(_mm512_cvtss_f32(a));
}

MP_TARGET("avx2,fma") void FmaAvx2() {
  __m256 acc[12], x = _mm256_set1_ps(0.5f);  // of 16 registers
  for (auto& a : acc) a = _mm256_set1_ps(1.0f);
  for (int64_t step = 0; step < kSteps * kChains / 12; ++step) {
    asm volatile("" : "+x"(x));
    for (auto& a : acc) a = _mm256_fmadd_ps(a, x, x);
  }
  for (auto& a : acc) sink += static_cast<int64_t>(_mm256_cvtss_f32(a));
}

MP_TARGET("avx512f,avx512vnni") void Int8Avx512Vnni() {
  __m512i acc[kChains] = {}, x = _mm512_set1_epi8(3);
  for (int64_t step = 0; step < kSteps; ++step) {
    asm volatile("" : "+v"(x));
    for (auto& a : acc) a = _mm512_dpbusd_epi32(a, x, x);
  }
  for (auto& a : acc) sink += _mm_cvtsi128_si32(_mm512_castsi512_si128(a));
}

MP_TARGET("avxvnni") void Int8AvxVnni() {
  __m256i acc[12] = {}, x = _mm256_set1_epi8(3);
  for (int64_t step = 0; step < kSteps * kChains / 12; ++step) {
    asm volatile("" : "+x"(x));
    for (auto& a : acc) a = _mm256_dpbusd_avx_epi32(a, x, x);
  }
  for (auto& a : acc) sink += _mm_cvtsi128_si32(_mm256_castsi256_si128(a));
}

// Without dot products of bytes: pairs of products, added up in 16 bits.
MP_TARGET("avx2") void Int8Avx2() {
  __m256i acc[6] = {}, x = _mm256_set1_epi8(3);
  for (int64_t step = 0; step < kSteps * kChains / 6; ++step) {
#pragma GCC unroll 6
    for (auto& a : acc) {
      asm volatile("" : "+x"(x));  // or one product would do for all chains
      a = _mm256_add_epi16(a, _mm256_maddubs_epi16(x, x));
    }
  }
  for (auto& a : acc) sink += _mm_cvtsi128_si32(_mm256_castsi256_si128(a));
}

// CPUID leaf 7, sub-leaf 1, EAX bit 4 (Intel SDM vol. 2A); g++ 12 has no name for it to ask by.
bool HasAvxVnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__builtin_cpu_supports("avx2")) return false;
  asm volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(7), "c"(1));
  return (eax & (1u << 4)) != 0;
}

#endif

// A register loop and the operations it does: lanes * 2 * chains * steps.
struct Loop {
  Work work = nullptr;
  double operations = 0;
};

Loop FmaLoop() {
#if defined(__x86_64__)
  const double steps = static_cast<double>(kSteps) * kChains;
  if (__builtin_cpu_supports("avx512f")) return {FmaAvx512, steps * 16 * 2};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {FmaAvx2, steps * 8 * 2};
#endif
  return {};
}

Loop Int8Loop() {
#if defined(__x86_64__)
  const double steps = static_cast<double>(kSteps) * kChains;
  if (__builtin_cpu_supports("avx512vnni")) return {Int8Avx512Vnni, steps * 64 * 2};
  if (HasAvxVnni()) return {Int8AvxVnni, steps * 32 * 2};
  if (__builtin_cpu_supports("avx2")) return {Int8Avx2, steps * 32 * 2};
#endif
  return {};
}

double Peak(ThreadTeam& team, const Loop& loop) {
  if (loop.work == nullptr) return 0;
  return BestRate(team, loop.operations, [&](int) { loop.work(); });
}

Read ReadLoop() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return ReadAvx512;
  if (__builtin_cpu_supports("avx2")) return ReadAvx2;
#endif
  return ReadPlain;
}

}  // namespace

double ReadBandwidth(ThreadTeam& team, std::span<const std::byte> pool) {
  const Read read = ReadLoop();
  const size_t part = pool.size() / static_cast<size_t>(team.count()) / 4096 * 4096;
  return BestRate(team, static_cast<double>(part), [&](int member) {
    read(pool.subspan(static_cast<size_t>(member) * part, part));
  });
}

double FmaPeak(ThreadTeam& team) { return Peak(team, FmaLoop()); }
double Int8Peak(ThreadTeam& team) { return Peak(team, Int8Loop()); }

}  // namespace millpower::kernels
