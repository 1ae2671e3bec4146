#include "device/chip/cost_attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "device/chip/cost_host.h"

namespace millpower::device::chip {
namespace {

constexpr double kBlock = 128;      // positions of keys that a core works on at a time
constexpr double kDecodeRows = 64;  // rows of a decode tile: query heads of one KV head
constexpr double kPromptRows[] = {128, 64};
constexpr double kSplits[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128};
constexpr double kSharp = 4;  // how sharply the slower of cores and memory decides
constexpr double kMostThreads = 512, kCoreThreads = 2048;

double Smooth(double a, double b) {
  return std::pow(std::pow(a, kSharp) + std::pow(b, kSharp), 1 / kSharp);
}

double DimFactor(double head_dim, double power) { return std::pow(head_dim / 128, power); }

double CacheRate(const Chip& chip) {
  return chip.cache.bytes_per_s.value > 0 ? chip.cache.bytes_per_s.value
                                          : chip.memory.bytes_per_s.value;
}

// [fitted.decode_attention]
struct DecodeConstants {
  double launch_s, sequence_s, tile_s, block_s, dim_power, narrow_tile, narrow_block;
  double core_cache_bytes_per_s, core_memory_bytes_per_s, cache_bytes_per_s, memory_efficiency;
  double combine_s;

  explicit DecodeConstants(const Chip& chip) {
    const auto of = [&](const char* name, double otherwise) {
      return chip.Fitted("decode_attention", name, otherwise);
    };
    const double cores = chip.cores.value;
    launch_s = of("launch_s", chip.issue_s.value);
    sequence_s = of("sequence_s", 0);
    tile_s = of("tile_s", chip.memory.latency_s.value);
    block_s = of("block_s", 0);
    dim_power = of("dim_power", 1);
    narrow_tile = of("narrow_tile_factor", 1);
    narrow_block = of("narrow_block_factor", 1);
    cache_bytes_per_s = of("cache_bytes_per_s", CacheRate(chip));
    core_cache_bytes_per_s = of("core_cache_bytes_per_s", cache_bytes_per_s / cores);
    core_memory_bytes_per_s = of("core_memory_bytes_per_s", cache_bytes_per_s / cores);
    memory_efficiency = of("memory_efficiency", chip.memory.efficiency.value);
    combine_s = of("combine_s", chip.issue_s.value);
  }
};

// [fitted.prompt_attention]
struct PromptConstants {
  double launch_s, tile_s, dim_power, matrix_efficiency, exp_s, narrow, tail;

  explicit PromptConstants(const Chip& chip) {
    const auto of = [&](const char* name, double otherwise) {
      return chip.Fitted("prompt_attention", name, otherwise);
    };
    launch_s = of("launch_s", chip.issue_s.value);
    tile_s = of("tile_s", 2 * chip.memory.latency_s.value);
    dim_power = of("dim_power", 1);
    matrix_efficiency = of("matrix_efficiency", 0.8);
    exp_s = of("exp_s", chip.cores.value / chip.special_ops_per_s.value);
    narrow = of("narrow_factor", 1);
    tail = of("tail", 1);
  }
};

bool IsNarrow(DType kv) { return SizeBytes(kv) == 1; }

// Positions that the row at `position` sees.
double Seen(const AttentionShape& shape, double position) {
  return shape.window > 0 ? std::min(position + 1, static_cast<double>(shape.window))
                          : position + 1;
}

// Adds one wave in which the busiest core takes `cores_s` and the memory `memory_s`, and what is
// left of `total_s` passes with nothing to do.
void AddWave(double cores_s, double memory_s, double total_s, Work& work) {
  Wave wave;
  wave.busy(Unit::kMatrix) = cores_s;
  wave.busy(Unit::kMemory) = memory_s;
  wave.latency_s = total_s - std::max(cores_s, memory_s);
  work.waves.push_back(wave);
}

class Attention {
 public:
  Attention(const Chip& chip, const AttentionShape& shape, std::span<const QueryRun> runs)
      : chip_(chip), shape_(shape) {
    for (const QueryRun& run : runs) (run.rows == 1 ? decode_ : prompts_).push_back(run);
  }

  Work Expand() {
    work_.traffic.matrix_type = chip_.activation_type;
    if (!decode_.empty()) Decode();
    if (!prompts_.empty()) Prompts();
    return std::move(work_);
  }

 private:
  double dim() const { return static_cast<double>(shape_.head_dim); }
  double kv_heads() const { return static_cast<double>(shape_.kv_heads); }
  double group() const { return static_cast<double>(shape_.heads) / kv_heads(); }
  // Of one position's key and value, of one head.
  double PositionBytes() const { return 2 * dim() * SizeBytes(shape_.kv); }

  void Decode();
  void Prompts();
  double PromptCores(const PromptConstants& constants, double block_rows, bool packed) const;

  const Chip& chip_;
  const AttentionShape& shape_;
  std::vector<QueryRun> decode_, prompts_;
  Work work_;
};

void Attention::Decode() {
  const DecodeConstants c(chip_);
  const bool narrow = IsNarrow(shape_.kv);
  const double tiles = std::ceil(group() / kDecodeRows);
  const auto sequences = static_cast<double>(decode_.size());
  double positions = 0, blocks = 0;
  for (const QueryRun& run : decode_) {
    const double seen = Seen(shape_, static_cast<double>(run.first_position));
    positions += seen;
    blocks += std::ceil(seen / kBlock);
  }
  // All alike: sequences of unequal lengths are spread over the cores by the splits.
  blocks /= sequences;
  const double mean = positions / sequences;
  const double bytes = positions * kv_heads() * PositionBytes();
  const double items = sequences * kv_heads() * tiles;
  const double factor = DimFactor(dim(), c.dim_power);
  const double block_s =
      std::max(std::min(kBlock, mean) * PositionBytes() / c.core_cache_bytes_per_s,
               c.block_s * factor) *
      (narrow ? c.narrow_block : 1);
  const double tile_s = c.tile_s * factor * (narrow ? c.narrow_tile : 1);
  const double hot = chip_.cache.bytes.value > 0
                         ? std::clamp(2 * (1 - bytes / chip_.cache.bytes.value), 0.0, 1.0)
                         : 0;
  const double parts_bytes =
      sequences * static_cast<double>(shape_.heads) * dim() * 4 * 2;  // written, and read again
  double best_s = std::numeric_limits<double>::infinity(), cores_s = 0, memory_s = 0, rest_s = 0;
  for (const double wanted : kSplits) {
    const double splits = std::min(wanted, std::max(blocks, 1.0));
    const double parts = items * splits;
    const double busy = std::min(parts, chip_.cores.value);
    const double cores =
        std::ceil(parts / chip_.cores.value) * (tile_s + std::ceil(blocks / splits) * block_s);
    const double memory =
        bytes * (1 - hot) /
            std::min(chip_.memory.bytes_per_s.value * c.memory_efficiency,
                     busy * c.core_memory_bytes_per_s) +
        bytes * hot / std::min(c.cache_bytes_per_s, busy * c.core_cache_bytes_per_s);
    const double combine =
        splits > 1 ? c.combine_s + parts_bytes * splits / c.cache_bytes_per_s : 0;
    const double total = Smooth(cores, memory) + combine;
    if (total >= best_s) continue;
    best_s = total;
    cores_s = cores;
    memory_s = memory;
    rest_s = combine;
  }
  work_.issue_s += c.launch_s + sequences * c.sequence_s;
  AddWave(cores_s, memory_s * (1 - hot), best_s, work_);
  work_.traffic.memory_read += bytes * (1 - hot);
  work_.traffic.cache += bytes + (rest_s > 0 ? parts_bytes : 0);
  work_.traffic.matrix_ops += 4 * positions * static_cast<double>(shape_.heads) * dim();
}

// How long the cores take for all prompts, by blocks of rows.
double Attention::PromptCores(const PromptConstants& c, double block_rows, bool packed) const {
  const double core_rate = MatrixRate(chip_, chip_.activation_type) / chip_.cores.value;
  const double block_s = (4 * block_rows * kBlock * dim() / (core_rate * c.matrix_efficiency) +
                          block_rows * kBlock * c.exp_s) *
                         (IsNarrow(shape_.kv) ? c.narrow : 1);
  const double tile_s = c.tile_s * DimFactor(dim(), c.dim_power);
  const double heads = packed ? kv_heads() : static_cast<double>(shape_.heads);
  const double together = packed ? group() : 1;
  double items = 0, all_blocks = 0, longest = 0;
  double shortest = std::numeric_limits<double>::infinity();
  const QueryRun* before = nullptr;
  double run_items = 0, run_blocks = 0;
  for (const QueryRun& run : prompts_) {
    if (before == nullptr || !(run == *before)) {
      const double rows = static_cast<double>(run.rows) * together;
      run_items = std::ceil(rows / block_rows);
      run_blocks = 0;
      for (double item = 0; item < run_items; ++item) {
        const double last = std::ceil(std::min((item + 1) * block_rows, rows) / together);
        const double first = std::floor(item * block_rows / together);
        const auto begin = static_cast<double>(run.first_position);
        const double from =
            shape_.window > 0
                ? std::max(begin + first - static_cast<double>(shape_.window) + 1, 0.0)
                : 0;
        const double blocks = std::ceil((begin + last) / kBlock) - std::floor(from / kBlock);
        run_blocks += blocks;
        longest = std::max(longest, blocks);
        shortest = std::min(shortest, blocks);
      }
      before = &run;
    }
    items += heads * run_items;
    all_blocks += heads * run_blocks;
  }
  const double cores = chip_.cores.value;
  const double idle = std::ceil(items / cores) - items / cores;
  return std::max(longest * block_s + tile_s, (all_blocks * block_s + items * tile_s) / cores +
                                                  idle * (shortest * block_s + tile_s) * c.tail);
}

void Attention::Prompts() {
  const PromptConstants c(chip_);
  double cores_s = std::numeric_limits<double>::infinity();
  for (const double rows : kPromptRows)
    for (const bool packed : {false, true})
      cores_s = std::min(cores_s, PromptCores(c, rows, packed));
  double rows = 0, positions = 0, pairs = 0;
  for (const QueryRun& run : prompts_) {
    const auto n = static_cast<double>(run.rows);
    const double last = Seen(shape_, static_cast<double>(run.first_position) + n - 1);
    const double first = Seen(shape_, static_cast<double>(run.first_position));
    rows += n;
    positions +=
        shape_.window > 0 ? std::min(static_cast<double>(run.first_position) + n, last + n) : last;
    pairs += n * (first + last) / 2;
  }
  const double io =
      2 * rows * static_cast<double>(shape_.heads) * dim() * SizeBytes(chip_.activation_type);
  const double bytes = positions * kv_heads() * PositionBytes();
  const double memory_s =
      (io + bytes) / (chip_.memory.bytes_per_s.value * chip_.memory.efficiency.value);
  work_.issue_s += c.launch_s;
  AddWave(cores_s, memory_s, std::max(cores_s, memory_s), work_);
  work_.traffic.memory_read += bytes + io / 2;
  work_.traffic.memory_written += io / 2;
  work_.traffic.cache += io + bytes;
  work_.traffic.matrix_ops += 4 * pairs * static_cast<double>(shape_.heads) * dim();
}

}  // namespace

Work AttentionWork(const Chip& chip, const AttentionShape& shape, std::span<const QueryRun> runs) {
  if (IsHost(chip)) return HostAttentionWork(chip, shape, runs);
  return Attention(chip, shape, runs).Expand();
}

Work KvAppendWork(const Chip& chip, const AttentionShape& shape, int64_t rows, int64_t sequences) {
  if (IsHost(chip)) return HostKvAppendWork(chip, shape, rows, sequences);
  const bool narrow = IsNarrow(shape.kv);
  const double values = static_cast<double>(shape.kv_heads * shape.head_dim);
  const auto count = static_cast<double>(rows);
  const double row_s = chip.Fitted("kv_append", "row_s", 2 * chip.memory.latency_s.value) *
                       (narrow ? chip.Fitted("kv_append", "narrow_factor", 1) : 1);
  const double threads_s =
      count * std::min(values, kMostThreads) * row_s / (kCoreThreads * chip.cores.value);
  const double read = count * 2 * values * SizeBytes(chip.activation_type);
  const double written = count * 2 * values * SizeBytes(shape.kv);
  const double memory_s =
      (read + written) / (chip.memory.bytes_per_s.value * chip.memory.efficiency.value);
  Work work;
  work.issue_s = chip.Fitted("kv_append", "launch_s", chip.issue_s.value);
  Wave wave;
  wave.busy(Unit::kVector) = threads_s;
  wave.busy(Unit::kMemory) = memory_s;
  wave.latency_s = std::hypot(threads_s, memory_s) - std::max(threads_s, memory_s);
  work.waves.push_back(wave);
  work.traffic.memory_read = read;
  work.traffic.memory_written = written;
  work.traffic.cache = read;
  return work;
}

}  // namespace millpower::device::chip
