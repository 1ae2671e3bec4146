#include "device/chip/cost_matmul.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>

#include "device/chip/cost_host.h"

namespace millpower::device::chip {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Into how many parts a reduction is split.
constexpr std::array<int, 13> kSplits = {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32};
constexpr double kLeastSplitTransfers = 2;  // of each part
constexpr double kMostSplitWaves = 4;       // of all parts
constexpr double kSumBytes = 4;             // of one value of a part's sum

// A library has no reason to take a taller tile than this for half of its rows or fewer.
constexpr double kShortTile = 64;

bool Narrow(const Chip& chip, DType weights) {
  return IsBlockType(weights) || SizeBytes(weights) < SizeBytes(chip.activation_type);
}

// The tables of [fitted] to look in, best first.
std::array<const char*, 3> Kinds(const Chip& chip, const MatMulShape& shape) {
  if (!shape.quantised)
    return {Narrow(chip, shape.weights) ? "gemm_weight_only" : "gemm_bf16", "gemm_bf16", ""};
  if (MatrixTypeOf(shape.weights) == MatrixType::kF8) return {"gemm_fp8", "gemm_int8", "gemm_bf16"};
  return {"gemm_int8", "gemm_fp8", "gemm_bf16"};
}

// [fitted.gemm_*]; where a chip has none, what its other figures say.
struct Constants {
  double start_s;               // of a kernel, until its cores have something to do
  double memory_efficiency;     // of the memory's bandwidth
  double cache_bytes_per_s;     // of all cores from the last-level cache
  double core_bytes_per_s;      // of one core from the same
  double matrix_efficiency;     // of the matrix engines' rate
  double transfer_s;            // latency of one transfer of operands
  double tile_s;                // filling a tile's pipeline and draining it
  double store_bytes_per_s;     // of all cores, results
  double overlap_power;         // how sharply the slower of cores and memory decides
  double split_s;               // a split reduction's second kernel
  double sustained_efficiency;  // of the matrix engines' rate, once the power limit is felt
  double boost_s;               // when that is, in time of the matrix engines
  double memory_latency_s;      // datasheet figures, from here on
  double memory_bytes_per_s;
  double half_cache_bytes;
  double cores;

  Constants(const Chip& chip, std::initializer_list<const char*> kinds) {
    std::string kind;
    for (const char* name : kinds)
      if (kind.empty() && chip.fitted.contains(name)) kind = name;
    const auto of = [&](const char* name, double otherwise) {
      return chip.Fitted(kind, name, otherwise);
    };
    const double shared = chip.cache.bytes_per_s.value;
    start_s = of("start_s", chip.issue_s.value);
    memory_efficiency = of("memory_efficiency", chip.memory.efficiency.value);
    cache_bytes_per_s = of("cache_bytes_per_s", shared > 0 ? shared : kNever);
    core_bytes_per_s = of("core_bytes_per_s", chip.scratchpad.bytes_per_s.value);
    matrix_efficiency = of("matrix_efficiency", 0.9);
    transfer_s = of("transfer_s", 0);
    tile_s = of("tile_s", chip.memory.latency_s.value);
    store_bytes_per_s = of("store_bytes_per_s", cache_bytes_per_s);
    overlap_power = of("overlap_power", 4);
    split_s = of("split_s", chip.issue_s.value);
    sustained_efficiency = of("sustained_efficiency", matrix_efficiency);
    boost_s = of("boost_s", 0);
    memory_latency_s = chip.memory.latency_s.value;
    memory_bytes_per_s = chip.memory.bytes_per_s.value * memory_efficiency;
    half_cache_bytes = chip.cache.bytes.value / 2;
    cores = chip.cores.value;
  }

  // The part of what is used again after `bytes` of traffic that has left the cache by then: none
  // up to half of its size, all from its size on.
  double Missed(double bytes) const {
    if (half_cache_bytes <= 0 || bytes >= 2 * half_cache_bytes) return 1;
    return std::max(0.0, bytes / half_cache_bytes - 1);
  }
};

// What a product comes to, whatever its tiles.
struct Product {
  double rows = 0, channels = 0, steps = 0;
  double x_bytes = 0, w_bytes = 0, y_bytes = 0;  // of one value; y's of one channel of the weight
  double rate = 0;                               // operations a second of one core
  double weights_read = 0;                       // bytes from memory
  double others_read = 0, written = 0;
  double throttled_s = 0;  // that the power limit adds

  double MemoryBytes() const { return weights_read + others_read + written; }
};

double WeightBytes(DType type) {
  return IsBlockType(type)
             ? static_cast<double>(BlockBytes(type)) / static_cast<double>(BlockSize(type))
             : static_cast<double>(SizeBytes(type));
}

Product ProductOf(const Chip& chip, const Constants& c, const MatMulShape& shape,
                  DType multiplied) {
  const auto activation_bytes = static_cast<double>(SizeBytes(chip.activation_type));
  Product p;
  p.rows = static_cast<double>(shape.rows);
  p.channels = static_cast<double>(shape.channels);
  p.steps = static_cast<double>(shape.steps);
  p.x_bytes = shape.quantised ? 1 : activation_bytes;
  p.w_bytes = WeightBytes(shape.weights);
  p.y_bytes = shape.gated ? activation_bytes / 2 : activation_bytes;
  const double rate = MatrixRate(chip, multiplied) * c.matrix_efficiency;
  p.rate = rate / c.cores;
  const double x = p.rows * p.steps * p.x_bytes;
  const double w = p.channels * p.steps * p.w_bytes;
  const double y = p.rows * p.channels * p.y_bytes;
  const double residual = shape.residual ? y : 0;
  const double rows_missed = c.Missed(x + residual + w + y);
  p.weights_read = w * c.Missed(x + residual + y + std::max(w, shape.program_weight_bytes));
  p.others_read = (x + residual) * rows_missed;
  p.written = y * rows_missed;
  const double matrix_s = 2 * p.rows * p.channels * p.steps / rate;
  p.throttled_s = std::max(0.0, matrix_s - c.boost_s) *
                  std::max(0.0, c.matrix_efficiency / c.sustained_efficiency - 1);
  return p;
}

// Tiles of one form, `splits` for each of y's, on the cores at the same time.
struct Tiling {
  const Tile* tile = nullptr;
  double splits = 1;
  double count = 0;      // of all
  double at_once = 0;    // that the cores hold
  double transfers = 0;  // of each
  double transfer_bytes = 0;

  Tiling(const Constants& c, const Product& p, const Tile& of, int split_into)
      : tile(&of), splits(split_into) {
    const auto rows = static_cast<double>(of.rows);
    const auto channels = static_cast<double>(of.channels);
    const auto steps = static_cast<double>(of.steps);
    count = std::ceil(p.rows / rows) * std::ceil(p.channels / channels) * splits;
    at_once = c.cores * static_cast<double>(of.per_core);
    transfers = std::ceil(std::ceil(p.steps / steps) / splits);
    transfer_bytes = (rows * p.x_bytes + channels * p.w_bytes) * steps;
  }
  double FullWaves() const { return std::floor(count / at_once); }
  double Last() const { return count - FullWaves() * at_once; }
};

// What one wave of `tiles` takes of the cores, as if memory gave everything at once.
struct CoreTime {
  double matrix_s = 0, cache_s = 0, scratch_s = 0;
  double total_s = 0;
};

CoreTime CoresOf(const Constants& c, const Product& p, const Tiling& tiling, double tiles) {
  const Tile& tile = *tiling.tile;
  const double area = static_cast<double>(tile.rows) * static_cast<double>(tile.channels);
  const double busiest = std::ceil(tiles / c.cores);
  CoreTime time;
  time.matrix_s = tiling.transfers * 2 * area * static_cast<double>(tile.steps) / p.rate * busiest;
  time.scratch_s = tiling.transfers * tiling.transfer_bytes / c.core_bytes_per_s * busiest;
  time.cache_s = tiling.transfers * tiling.transfer_bytes / c.cache_bytes_per_s * tiles;
  const double waiting_s = tiling.transfers * c.transfer_s / static_cast<double>(tile.stages);
  const double stored = area * (tiling.splits > 1 ? kSumBytes : p.y_bytes) * tiles;
  time.total_s = std::max({time.matrix_s, time.scratch_s, time.cache_s, waiting_s}) +
                 stored / c.store_bytes_per_s + c.tile_s;
  return time;
}

// How long all tiles take, and of that the cores and memory by themselves.
struct Estimate {
  double cores_s = 0, memory_s = 0;
  double both_s = 0;  // as they get in each other's way
  double sum_s = 0;   // of the parts of a split reduction
};

Estimate EstimateOf(const Constants& c, const Product& p, const Tiling& tiling) {
  Estimate e;
  if (tiling.FullWaves() > 0)
    e.cores_s += tiling.FullWaves() * CoresOf(c, p, tiling, tiling.at_once).total_s;
  if (tiling.Last() > 0) e.cores_s += CoresOf(c, p, tiling, tiling.Last()).total_s;
  // Memory gives no more than what is under way in one latency.
  const double under_way = std::min(tiling.count, tiling.at_once) *
                           static_cast<double>(tiling.tile->stages) * tiling.transfer_bytes;
  e.memory_s = p.MemoryBytes() / std::min(c.memory_bytes_per_s, under_way / c.memory_latency_s);
  const double longer = std::max(e.cores_s, e.memory_s);
  const double shorter = std::min(e.cores_s, e.memory_s);
  e.both_s =
      longer * std::pow(1 + std::pow(shorter / longer, c.overlap_power), 1 / c.overlap_power);
  if (tiling.splits > 1)
    e.sum_s = c.split_s + p.rows * p.channels * kSumBytes * tiling.splits / c.cache_bytes_per_s;
  return e;
}

bool Fits(const Tile& tile, int64_t rows) {
  return rows >= tile.least_rows && (tile.most_rows == 0 || rows <= tile.most_rows);
}

// Whether it is worth a thought, where the menu leaves the choice.
bool TooTall(const Tile& tile, double rows) {
  const auto height = static_cast<double>(tile.rows);
  return tile.least_rows == 0 && tile.most_rows == 0 && height > kShortTile && height >= 2 * rows;
}

struct Choice {
  Tiling tiling;
  Estimate estimate;
};

Choice Fastest(const Constants& c, const Product& p, const std::vector<Tile>& menu, int64_t rows) {
  std::optional<Choice> best;
  const auto consider = [&](const Tile& tile) {
    const double transfers = std::ceil(p.steps / static_cast<double>(tile.steps));
    for (const int splits : kSplits) {
      const Tiling tiling(c, p, tile, splits);
      if (splits > 1 && (transfers < kLeastSplitTransfers * splits ||
                         tiling.count > kMostSplitWaves * tiling.at_once))
        break;
      const Estimate e = EstimateOf(c, p, tiling);
      if (!best || e.both_s + e.sum_s < best->estimate.both_s + best->estimate.sum_s)
        best = Choice{tiling, e};
    }
  };
  for (const Tile& tile : menu)
    if (Fits(tile, rows) && !TooTall(tile, p.rows)) consider(tile);
  // A menu without a tile for so many rows.
  if (!best)
    for (const Tile& tile : menu) consider(tile);
  return *best;
}

// `count` waves of `tiles` each, as a share of all. The machine takes the longest of the units and
// then the latency: where cores take longer than memory, waiting is latency; where memory does, it
// is busy all along.
Wave WaveOf(const Constants& c, const Product& p, const Choice& choice, double count,
            double tiles) {
  const Estimate& e = choice.estimate;
  const CoreTime cores = CoresOf(c, p, choice.tiling, tiles);
  const double share = cores.total_s / e.cores_s;
  const double total_s = share * (e.both_s + p.throttled_s);
  Wave wave;
  wave.count = static_cast<int64_t>(count);
  wave.busy(Unit::kMatrix) = cores.matrix_s + share * p.throttled_s;
  wave.busy(Unit::kScratch) = cores.scratch_s;
  wave.busy(Unit::kCache) = cores.cache_s;
  wave.busy(Unit::kMemory) = share * e.memory_s;
  if (e.memory_s > e.cores_s)
    wave.busy(Unit::kMemory) = total_s;
  else
    wave.latency_s = std::max(0.0, total_s - *std::ranges::max_element(wave.busy_s));
  if (p.MemoryBytes() > 0) wave.weight_share = p.weights_read / p.MemoryBytes();
  return wave;
}

Traffic TrafficOf(const Product& p, const Tiling& tiling, DType multiplied) {
  Traffic traffic;
  traffic.weights = p.weights_read;
  traffic.memory_read = p.weights_read + p.others_read;
  traffic.memory_written = p.written;
  const double sums = tiling.splits > 1 ? 2 * kSumBytes * tiling.splits : 0;
  traffic.cache = tiling.count * tiling.transfers * tiling.transfer_bytes +
                  p.rows * p.channels * (p.y_bytes + sums);
  traffic.scratch = 2 * tiling.count * tiling.transfers * tiling.transfer_bytes;
  traffic.matrix_ops = 2 * p.rows * p.channels * p.steps;
  traffic.matrix_type = multiplied;
  return traffic;
}

const std::vector<Tile>& MenuOf(const Chip& chip, DType type, bool widened) {
  static const std::vector<Tile> kAny = {{64, 64, 64}, {128, 128, 64}};
  for (const MatrixType t :
       {MatrixTypeOf(type), MatrixType::kBf16, MatrixType::kF16, MatrixType::kF32}) {
    const MatrixEngine& engine = chip.matrix[static_cast<size_t>(t)];
    if (engine.ops_per_s.value <= 0 || engine.tiles.empty()) continue;
    return widened && !engine.narrow_tiles.empty() ? engine.narrow_tiles : engine.tiles;
  }
  return kAny;
}

}  // namespace

Result<Work> MatMulWork(const Chip& chip, const MatMulShape& shape) {
  const DType multiplied = shape.quantised ? shape.weights : chip.activation_type;
  if (MatrixRate(chip, multiplied) <= 0)
    return Fail(ErrorCode::kUnsupported,
                chip.name + ": no matrix engine multiplies " + std::string(Name(multiplied)));
  if (IsHost(chip)) return HostMatMulWork(chip, shape);
  const auto kinds = Kinds(chip, shape);
  const Constants c(chip, {kinds[0], kinds[1], kinds[2]});
  Work work;
  work.issue_s = c.start_s;
  if (shape.rows <= 0 || shape.channels <= 0 || shape.steps <= 0) return work;
  const Product p = ProductOf(chip, c, shape, multiplied);
  const bool widened = !shape.quantised && Narrow(chip, shape.weights);
  const Choice choice = Fastest(c, p, MenuOf(chip, multiplied, widened), shape.rows);
  const Tiling& tiling = choice.tiling;
  if (tiling.FullWaves() > 0)
    work.waves.push_back(WaveOf(c, p, choice, tiling.FullWaves(), tiling.at_once));
  if (tiling.Last() > 0) work.waves.push_back(WaveOf(c, p, choice, 1, tiling.Last()));
  if (tiling.splits > 1) {
    Wave sum;
    sum.busy(Unit::kCache) = choice.estimate.sum_s - c.split_s;
    sum.latency_s = c.split_s;
    work.waves.push_back(sum);
  }
  work.traffic = TrafficOf(p, tiling, multiplied);
  return work;
}

std::optional<Work> QuantiseWork(const Chip& chip, int64_t rows, int64_t columns, DType type) {
  MatMulShape product;
  product.weights = type;
  product.quantised = true;
  const std::string kind = Kinds(chip, product)[0];
  const double row_s = chip.Fitted(kind, "quantise_row_s", 0);
  if (row_s <= 0) return std::nullopt;
  const Constants c(chip, {kind.c_str()});
  const double row_bytes =
      static_cast<double>(columns) * static_cast<double>(SizeBytes(chip.activation_type) + 1);
  const double bytes = static_cast<double>(rows) * row_bytes;
  // A core takes a row at a time.
  const double rows_each = std::ceil(static_cast<double>(rows) / c.cores);
  const double core_rate = chip.Fitted(kind, "quantise_core_bytes_per_s", c.core_bytes_per_s);
  Work work;
  work.issue_s = chip.Fitted(kind, "quantise_start_s", chip.issue_s.value);
  Wave wave;
  wave.busy(Unit::kVector) = rows_each * (row_s + row_bytes / core_rate);
  work.traffic.memory_read = bytes * c.Missed(bytes);
  wave.busy(Unit::kMemory) = work.traffic.memory_read / c.memory_bytes_per_s;
  work.waves.push_back(wave);
  work.traffic.cache = bytes;
  work.traffic.vector_ops = 3 * static_cast<double>(rows) * static_cast<double>(columns);
  return work;
}

}  // namespace millpower::device::chip
