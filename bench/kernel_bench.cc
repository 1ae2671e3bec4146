// How close the kernels come to the machine: each benchmark reports GB/s of weights or KV, GFLOP/s,
// and its share of the limit, which is the larger of bytes / read bandwidth and flops / FMA peak,
// over the time taken. Both limits are measured right before and after each benchmark, on the same
// thread, since a shared machine changes by the minute: a plain loop that reads 512 MB, and a loop
// of independent FMAs that never leaves the registers.
//
//   kernel_bench --benchmark_filter='avx512.*/rows:1$'
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <memory>
#include <new>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/rng.h"
#include "isa/layout.h"
#include "kernels/kernels.h"

namespace millpower::kernels {
namespace {

// Operands are rotated through this much memory, so that they come from there and not from cache.
constexpr int64_t kPoolBytes = int64_t{512} << 20;

struct Limits {
  double read_bytes_per_s = 0;
  double flops_per_s = 0;
};

struct FreeAligned {
  void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{64}); }
};

// Random bf16 pairs around 1, which are harmless numbers as f32 too. One pool for all benchmarks.
const std::byte* Pool() {
  static const std::unique_ptr<std::byte, FreeAligned> pool = [] {
    std::unique_ptr<std::byte, FreeAligned> p(static_cast<std::byte*>(
        ::operator new(static_cast<size_t>(kPoolBytes), std::align_val_t{64})));
    for (int64_t at = 0; at < kPoolBytes; at += 4) {
      const auto bits = static_cast<uint32_t>(Mix64(static_cast<uint64_t>(at)));
      const uint32_t value = 0x3f003f00u | (bits & 0x80ff80ffu);
      std::memcpy(p.get() + at, &value, sizeof value);
    }
    return p;
  }();
  return pool.get();
}

// The highest rate of `runs` runs, by processor time as the benchmarks count it.
template <typename Work>
double BestRate(int runs, double amount, const Work& work) {
  double best = 0;
  for (int run = 0; run < runs; ++run) {
    const std::clock_t start = std::clock();
    work();
    const auto ticks = static_cast<double>(std::clock() - start);
    best = std::max(best, amount * CLOCKS_PER_SEC / ticks);
  }
  return best;
}

#if defined(__x86_64__)

constexpr int kFmaChains = 12;  // more than latency 4 * 2 a cycle
constexpr int64_t kFmaSteps = 4'000'000;

__attribute__((target("avx512f"))) void ReadAvx512(const std::byte* from, int64_t bytes) {
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  for (const std::byte* end = from + bytes; from < end; from += 256) {
    a = _mm512_xor_si512(a, _mm512_load_si512(from));
    b = _mm512_xor_si512(b, _mm512_load_si512(from + 64));
    c = _mm512_xor_si512(c, _mm512_load_si512(from + 128));
    d = _mm512_xor_si512(d, _mm512_load_si512(from + 192));
  }
  benchmark::DoNotOptimize(_mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
}

__attribute__((target("avx2"))) void ReadAvx2(const std::byte* from, int64_t bytes) {
  const auto* at = reinterpret_cast<const __m256i*>(from);
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (const __m256i* end = at + bytes / 32; at < end; at += 4) {
    a = _mm256_xor_si256(a, _mm256_load_si256(at));
    b = _mm256_xor_si256(b, _mm256_load_si256(at + 1));
    c = _mm256_xor_si256(c, _mm256_load_si256(at + 2));
    d = _mm256_xor_si256(d, _mm256_load_si256(at + 3));
  }
  benchmark::DoNotOptimize(_mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
}

__attribute__((target("avx512f"))) void FmaAvx512() {
  __m512 acc[kFmaChains];
  for (int i = 0; i < kFmaChains; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  __m512 x = _mm512_set1_ps(0.5f);
  for (int64_t step = 0; step < kFmaSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kFmaChains; ++i) acc[i] = _mm512_fmadd_ps(acc[i], x, x);
    asm volatile("" : "+v"(x));
  }
  for (int i = 0; i < kFmaChains; ++i) benchmark::DoNotOptimize(acc[i]);
}

__attribute__((target("avx2,fma"))) void FmaAvx2() {
  __m256 acc[kFmaChains];
  for (int i = 0; i < kFmaChains; ++i) acc[i] = _mm256_set1_ps(static_cast<float>(i));
  __m256 x = _mm256_set1_ps(0.5f);
  for (int64_t step = 0; step < kFmaSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kFmaChains; ++i) acc[i] = _mm256_fmadd_ps(acc[i], x, x);
    asm volatile("" : "+x"(x));
  }
  for (int i = 0; i < kFmaChains; ++i) benchmark::DoNotOptimize(acc[i]);
}

Limits MeasureLimits(const KernelSet& set) {
  if (&set == &ScalarKernels()) return {};
  const bool wide = &set == Avx512Kernels();
  const double flops = 2.0 * (wide ? 16 : 8) * kFmaChains * kFmaSteps;
  return {
      .read_bytes_per_s = BestRate(2, static_cast<double>(kPoolBytes),
                                   [&] { (wide ? ReadAvx512 : ReadAvx2)(Pool(), kPoolBytes); }),
      .flops_per_s = BestRate(4, flops, wide ? FmaAvx512 : FmaAvx2),
  };
}

#else

Limits MeasureLimits(const KernelSet&) { return {}; }

#endif

void Report(benchmark::State& state, const KernelSet& set, const Limits& before, double bytes,
            double flops) {
  const auto iterations = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes * iterations / 1e9, Counter::kIsRate);
  state.counters["GFLOP/s"] = Counter(flops * iterations / 1e9, Counter::kIsRate);
  if (before.flops_per_s == 0) return;
  const Limits after = MeasureLimits(set);
  const double read = std::max(before.read_bytes_per_s, after.read_bytes_per_s);
  const double fma = std::max(before.flops_per_s, after.flops_per_s);
  state.counters["read_GB/s"] = read / 1e9;
  state.counters["fma_GFLOP/s"] = fma / 1e9;
  const double least_s = std::max(bytes / read, flops / fma);
  state.counters["limit%"] = Counter(least_s * iterations * 100, Counter::kIsRate);
}

void MatMulBench(benchmark::State& state, const KernelSet* set, int64_t k, int64_t n, DType type,
                 Epilogue epilogue) {
  const int64_t rows = state.range(0);
  std::vector<float> x(static_cast<size_t>(rows * k), 0.5f);
  std::vector<float> y(static_cast<size_t>(rows * n), 0.0f);
  MatMulArgs args;
  args.x = x.data();
  args.y = y.data();
  args.residual = y.data();
  args.rows = rows;
  args.k = args.x_stride = k;
  args.n = args.y_stride = args.residual_stride = n;
  args.weight_type = type;
  args.epilogue = epilogue;
  const int64_t bytes = isa::PackedBytes(n, k, type);
  int64_t at = 0;
  const Limits before = MeasureLimits(*set);
  for (auto _ : state) {
    args.w = Pool() + at;
    set->matmul(args, 0, isa::PackedBlocks(n));
    at = at + 2 * bytes <= kPoolBytes ? at + bytes : 0;
  }
  Report(state, *set, before, static_cast<double>(bytes), 2.0 * static_cast<double>(rows * k * n));
}

// One layer's attention of Qwen3-0.6B: 16 heads of 128 over 8 KV heads.
void AttentionBench(benchmark::State& state, const KernelSet* set, int64_t first_position,
                    DType type) {
  constexpr int64_t kKvHeads = 8, kGroup = 2, kHeadDim = 128;
  const int64_t rows = state.range(0);
  std::vector<float> q(static_cast<size_t>(rows * kKvHeads * kGroup * kHeadDim), 0.01f);
  std::vector<float> out(q.size());
  const int64_t page_count = (first_position + rows + 15) / 16;
  const int64_t page_bytes = isa::KvPageBytes(kKvHeads, kHeadDim, type);
  std::vector<int32_t> pages(static_cast<size_t>(page_count));
  for (size_t i = 0; i < pages.size(); ++i)
    pages[i] = static_cast<int32_t>(i * 37 % pages.size());  // scattered
  AttentionArgs args;
  args.pages = pages.data();
  args.page_bytes = page_bytes;
  args.q_stride = args.out_stride = kKvHeads * kGroup * kHeadDim;
  args.query_rows = rows;
  args.group = kGroup;
  args.head_dim = kHeadDim;
  args.first_position = first_position;
  args.scale = 0.088f;
  args.kv_type = type;
  int64_t at = 0;
  const Limits before = MeasureLimits(*set);
  for (auto _ : state) {
    for (int64_t head = 0; head < kKvHeads; ++head) {
      args.kv = Pool() + at;
      args.head_offset_bytes = head * isa::KvHeadBytes(kHeadDim, type);
      args.q = q.data() + head * kGroup * kHeadDim;
      args.out = out.data() + head * kGroup * kHeadDim;
      set->attention(args);
    }
    at = at + 2 * page_count * page_bytes <= kPoolBytes ? at + page_count * page_bytes : 0;
  }
  double positions = 0;  // seen, over all rows
  for (int64_t r = 0; r < rows; ++r) positions += static_cast<double>(first_position + r + 1);
  Report(state, *set, before, static_cast<double>(page_count * page_bytes),
         4.0 * kHeadDim * kGroup * kKvHeads * positions);
}

void RegisterSet(const KernelSet& set) {
  struct Shape {
    const char* name;
    int64_t k;
    int64_t n;
    Epilogue epilogue;
  };
  const Shape shapes[] = {
      {"qkv", 1024, 4096, Epilogue::kNone},         {"attn_out", 2048, 1024, Epilogue::kAdd},
      {"gate_up", 1024, 6144, Epilogue::kSiluGate}, {"down", 3072, 1024, Epilogue::kAdd},
      {"head", 1024, 151936, Epilogue::kNone},
  };
  const bool scalar = &set == &ScalarKernels();
  for (const Shape& shape : shapes) {
    for (DType type : {DType::kBf16, DType::kF32}) {
      if (isa::PackedBytes(shape.n, shape.k, type) > kPoolBytes) continue;
      const std::string name = std::string(set.name) + "/matmul_" + Name(type) + "/" + shape.name;
      for (int64_t rows : {1, 8, 32, 512}) {
        const bool large = rows * shape.n > 32 * 151936;
        if (large || (scalar && (rows > 1 || shape.n > 10000))) continue;
        benchmark::RegisterBenchmark(name.c_str(), MatMulBench, &set, shape.k, shape.n, type,
                                     shape.epilogue)
            ->ArgName("rows")
            ->Arg(rows)
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
  if (scalar) return;
  for (DType type : {DType::kBf16, DType::kF32}) {
    const std::string name = std::string(set.name) + "/attention_" + Name(type);
    benchmark::RegisterBenchmark((name + "/decode_4096").c_str(), AttentionBench, &set, 4095, type)
        ->ArgName("rows")
        ->Arg(1)
        ->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark((name + "/prefill_512").c_str(), AttentionBench, &set, 0, type)
        ->ArgName("rows")
        ->Arg(512)
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace
}  // namespace millpower::kernels

int main(int argc, char** argv) {
  using namespace millpower::kernels;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const KernelSet* set : AvailableKernels()) RegisterSet(*set);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
