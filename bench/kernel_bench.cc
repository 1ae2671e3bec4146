// How close the kernels come to the machine: each benchmark reports GB/s of weights or KV, Gop/s,
// and its share of the limit, which is the larger of bytes / read bandwidth and operations / peak,
// over the time taken. Both limits are measured right before and after each benchmark, on one
// thread, since a shared machine changes by the minute (kernels/peak.h).
//
//   kernel_bench --benchmark_filter='avx512.*/rows:1$'
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/rng.h"
#include "base/threads.h"
#include "isa/layout.h"
#include "kernels/kernels.h"
#include "kernels/peak.h"

namespace millpower::kernels {
namespace {

// Operands are rotated through this much memory, so that they come from there and not from cache.
constexpr int64_t kPoolBytes = int64_t{512} << 20;

struct Limits {
  double read_bytes_per_s = 0;
  double operations_per_s = 0;
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

// Of one thread, with the widest instructions of this machine: f32, or 8-bit integers.
Limits MeasureLimits(bool integers) {
  static ThreadTeam alone(1);
  return {.read_bytes_per_s = ReadBandwidth(alone, {Pool(), static_cast<size_t>(kPoolBytes)}),
          .operations_per_s = integers ? Int8Peak(alone) : FmaPeak(alone)};
}

void Report(benchmark::State& state, bool integers, const Limits& before, double bytes,
            double operations) {
  const auto iterations = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes * iterations / 1e9, Counter::kIsRate);
  state.counters["Gop/s"] = Counter(operations * iterations / 1e9, Counter::kIsRate);
  const Limits after = MeasureLimits(integers);
  const double read = std::max(before.read_bytes_per_s, after.read_bytes_per_s);
  const double peak = std::max(before.operations_per_s, after.operations_per_s);
  if (peak == 0) return;
  state.counters["read_GB/s"] = read / 1e9;
  state.counters["peak_Gop/s"] = peak / 1e9;
  const double least_s = std::max(bytes / read, operations / peak);
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
  const bool integers = IsBlockType(type);
  std::vector<std::byte> quantised(static_cast<size_t>(rows * isa::QuantisedRowBytes(k)));
  if (integers) {
    args.xq = quantised.data();
    args.xq_stride_bytes = isa::QuantisedRowBytes(k);
    set->quantise({.x = x.data(), .y = quantised.data(), .k = k, .x_stride = k}, 0, rows);
  }
  if (epilogue != Epilogue::kAdd) args.residual = nullptr;
  const int64_t bytes = isa::PackedBytes(n, k, type);
  int64_t at = 0;
  const Limits before = MeasureLimits(integers);
  for (auto _ : state) {
    args.w = Pool() + at;
    set->matmul(args, 0, isa::PackedBlocks(n));
    at = at + 2 * bytes <= kPoolBytes ? at + bytes : 0;
  }
  Report(state, integers, before, static_cast<double>(bytes),
         2.0 * static_cast<double>(rows * k * n));
}

// Bytes per second of reading rows of `row_bytes` that lie anywhere in the pool, in an order known
// beforehand, on one thread: the best of a few passes.
double RandomReadBandwidth(const std::vector<const std::byte*>& rows, int64_t row_bytes) {
  const SystemClock clock;
  double best = 0;
  for (int pass = 0; pass < 5; ++pass) {
    const int64_t begin = clock.NowNs();
    uint64_t sum = 0;
    for (const std::byte* row : rows)
      for (int64_t at = 0; at < row_bytes; at += isa::kLineBytes) {
        uint64_t word;
        std::memcpy(&word, row + at, sizeof word);
        sum += word;
      }
    benchmark::DoNotOptimize(sum);
    const auto ns = static_cast<double>(clock.NowNs() - begin);
    best = std::max(best, static_cast<double>(row_bytes * std::ssize(rows)) / ns * 1e9);
  }
  return best;
}

// Rows of an f32 embedding table, `items` to a bag, anywhere in the pool.
void PoolRowsBench(benchmark::State& state, const KernelSet* set, int64_t cols, int64_t items) {
  constexpr int64_t kRows = 1 << 20, kBags = 64;  // as the device calls it, some at a time
  const int64_t row_bytes = isa::TableRowBytes(cols, DType::kF32);
  Rng rng(1);
  std::vector<const std::byte*> rows(kRows);
  for (const std::byte*& row : rows)
    row = Pool() + static_cast<int64_t>(rng.Below(kPoolBytes / row_bytes)) * row_bytes;
  std::vector<int32_t> ends;
  for (int64_t bag = 1; bag <= kBags; ++bag) ends.push_back(static_cast<int32_t>(bag * items));
  std::vector<float> y(static_cast<size_t>(kBags * cols));
  const double before = RandomReadBandwidth(rows, row_bytes);
  int64_t at = 0;
  for (auto _ : state) {
    set->pool_rows({.rows = rows.data() + at,
                    .ends = ends.data(),
                    .y = y.data(),
                    .bags = kBags,
                    .cols = cols,
                    .y_stride = cols});
    at = at + 2 * kBags * items <= kRows ? at + kBags * items : 0;
  }
  const double random = std::max(before, RandomReadBandwidth(rows, row_bytes));
  const double bytes = static_cast<double>(kBags * items * row_bytes * state.iterations());
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes / 1e9, Counter::kIsRate);
  state.counters["random_GB/s"] = random / 1e9;
  state.counters["limit%"] = Counter(bytes / random * 100, Counter::kIsRate);
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
  const Limits before = MeasureLimits(false);
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
  Report(state, false, before, static_cast<double>(page_count * page_bytes),
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
    for (DType type :
         {DType::kBf16, DType::kF32, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ6_K}) {
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
  // Layers of the recommenders in bench/ranking/models.py, named by what they take and give.
  for (const auto& [k, n] : {std::pair{367, 512}, {512, 256}, {3456, 512}, {512, 3456}}) {
    const std::string name =
        std::string(set.name) + "/ranking_f32/" + std::to_string(k) + "x" + std::to_string(n);
    for (int64_t rows : {1, 64, 2048})
      benchmark::RegisterBenchmark(name.c_str(), MatMulBench, &set, k, n, DType::kF32,
                                   Epilogue::kRelu)
          ->ArgName("rows")
          ->Arg(rows)
          ->Unit(benchmark::kMicrosecond);
  }
  for (const auto& [cols, items] : {std::pair{16, 1}, {128, 1}, {128, 20}}) {
    const std::string name = std::string(set.name) + "/pool_rows_f32/cols:" + std::to_string(cols) +
                             "/items:" + std::to_string(items);
    benchmark::RegisterBenchmark(name.c_str(), PoolRowsBench, &set, cols, items)
        ->Unit(benchmark::kMicrosecond);
  }
  for (DType type : {DType::kBf16, DType::kF32, DType::kI8}) {
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
