#include "device/chip/cost_experts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "device/chip/cost_host.h"

namespace millpower::device::chip {
namespace {

// Expert kernels sort rows into blocks of at most so many, and cut a chip's smallest tile down to
// what a matrix instruction takes: experts have few rows each.
constexpr int64_t kMostTileSide = 128;
constexpr int64_t kLeastTileRows = 16;
constexpr int64_t kLeastTileChannels = 64;

// [fitted.moe] or [fitted.moe_8bit]; where a chip has none, what its other figures say.
struct Constants {
  double kernel_s;           // from one kernel to the next
  double sort_s;             // sorting one choice of one row
  double memory_efficiency;  // of the memory's bandwidth, while weights are streamed
  double rows_efficiency;    // of the same, in kernels that go over rows
  double tile_s;             // filling a tile's pipeline, and storing its result
  double core_bytes_per_s;   // what a core loads of tiles' operands
  double matrix_efficiency;  // of the matrix engines' rate
  double away_share;         // of choices of experts elsewhere, those written as zeros

  Constants(const Chip& chip, bool quantised) {
    const std::string kind = quantised && chip.fitted.contains("moe_8bit") ? "moe_8bit" : "moe";
    const auto of = [&](const char* name, double otherwise) {
      return chip.Fitted(kind, name, otherwise);
    };
    const double shared = chip.cache.bytes_per_s.value > 0 ? chip.cache.bytes_per_s.value
                                                           : chip.memory.bytes_per_s.value;
    kernel_s = of("kernel_s", chip.issue_s.value);
    sort_s = of("sort_s", 0);
    memory_efficiency = of("memory_efficiency", chip.memory.efficiency.value);
    rows_efficiency = of("rows_efficiency", chip.memory.efficiency.value);
    tile_s = of("tile_s", chip.memory.latency_s.value);
    core_bytes_per_s = of("core_bytes_per_s", shared / chip.cores.value);
    matrix_efficiency = of("matrix_efficiency", 1);
    away_share = of("away_share", 0);
  }
};

double WeightBytes(DType type) {
  return IsBlockType(type)
             ? static_cast<double>(BlockBytes(type)) / static_cast<double>(BlockSize(type))
             : static_cast<double>(SizeBytes(type));
}

// The chip's tiles of no more than kMostTileSide each way, and with half, a quarter .. of their
// rows.
std::vector<Tile> ExpertTiles(const Chip& chip, DType type) {
  std::vector<Tile> tiles;
  const auto add = [&](Tile tile) {
    for (; tile.rows >= kLeastTileRows; tile.rows /= 2)
      if (std::ranges::none_of(tiles, [&](const Tile& t) {
            return t.rows == tile.rows && t.channels == tile.channels;
          }))
        tiles.push_back(tile);
  };
  for (const Tile& tile : chip.matrix[static_cast<size_t>(MatrixTypeOf(type))].tiles)
    if (tile.rows <= kMostTileSide && tile.channels <= kMostTileSide &&
        tile.channels >= kLeastTileChannels &&
        std::has_single_bit(static_cast<uint64_t>(tile.rows)))
      add(tile);
  if (tiles.empty()) add({kMostTileSide, kMostTileSide, 64});
  return tiles;
}

double Ceil(double a, double b) { return std::ceil(a / b); }

// What a product with the experts' weights comes to, whatever its tiles.
struct Product {
  double steps = 0, channels = 0;
  double x_bytes = 0, w_bytes = 0;  // of one value
  double rate = 0;                  // operations a second of one core
  double memory_s = 0;              // of all waves
};

// All waves of a product with tiles of one form; `blocks` of its rows, in all experts.
Wave ProductWaves(const Chip& chip, const Constants& constants, const Product& product,
                  const Tile& tile, double blocks) {
  const auto rows = static_cast<double>(tile.rows);
  const auto channels = static_cast<double>(tile.channels);
  const double tiles = blocks * Ceil(product.channels, channels);
  const double loaded = product.steps * (rows * product.x_bytes + channels * product.w_bytes);
  Wave wave;
  wave.count = std::max<int64_t>(1, static_cast<int64_t>(Ceil(tiles, chip.cores.value)));
  wave.busy(Unit::kMemory) = product.memory_s / static_cast<double>(wave.count);
  if (blocks == 0) return wave;
  wave.busy(Unit::kScratch) = constants.tile_s + loaded / constants.core_bytes_per_s;
  wave.busy(Unit::kMatrix) = constants.tile_s + 2 * rows * channels * product.steps / product.rate;
  return wave;
}

double Length(const Wave& wave) {
  return static_cast<double>(wave.count) * *std::ranges::max_element(wave.busy_s);
}

// A kernel that goes over rows and does next to nothing with them.
Wave RowsWave(const Chip& chip, const Constants& constants, double bytes) {
  Wave wave;
  wave.busy(Unit::kMemory) = bytes / (chip.memory.bytes_per_s.value * constants.rows_efficiency);
  return wave;
}

}  // namespace

Work RouteWork(const Chip& chip, const ExpertShape& shape) {
  if (IsHost(chip)) {
    RowTraffic traffic;  // one thread makes the list
    traffic.read = 4 * static_cast<double>(shape.rows * shape.experts);
    traffic.vector_ops =
        2 * static_cast<double>(shape.rows) * static_cast<double>(shape.experts + shape.choices);
    return HostRowWork(chip, traffic);
  }
  const Constants constants(chip, shape.quantised);
  const double entries = static_cast<double>(shape.rows) * static_cast<double>(shape.choices);
  Work work;
  work.issue_s = 3 * constants.kernel_s;
  work.traffic.memory_read = static_cast<double>(shape.rows) * static_cast<double>(shape.experts) *
                             static_cast<double>(SizeBytes(chip.activation_type));
  work.traffic.vector_ops =
      static_cast<double>(shape.rows) * static_cast<double>(shape.experts + shape.choices);
  Wave wave = RowsWave(chip, constants, work.traffic.memory_read);
  wave.latency_s = entries * constants.sort_s;
  work.waves.push_back(wave);
  return work;
}

Result<Work> ExpertMatMulWork(const Chip& chip, const ExpertShape& shape,
                              std::span<const int64_t> rows_of_expert) {
  if (IsHost(chip)) return HostExpertMatMulWork(chip, shape, rows_of_expert);
  const Constants constants(chip, shape.quantised);
  const DType multiplied = shape.quantised ? shape.weights : chip.activation_type;
  const auto activation_bytes = static_cast<double>(SizeBytes(chip.activation_type));
  Product product;
  product.rate = MatrixRate(chip, multiplied) * constants.matrix_efficiency / chip.cores.value;
  if (product.rate <= 0)
    return Fail(ErrorCode::kUnsupported,
                chip.name + ": no matrix engine multiplies " + std::string(Name(multiplied)));
  product.steps = static_cast<double>(shape.steps);
  product.channels = static_cast<double>(shape.channels);
  product.x_bytes = shape.quantised ? 1 : activation_bytes;
  product.w_bytes = WeightBytes(shape.weights);

  double entries = 0, active = 0;
  for (const int64_t rows : rows_of_expert) {
    entries += static_cast<double>(rows);
    active += rows > 0 ? 1 : 0;
  }
  const double x_rows =
      shape.own_columns ? entries : std::min(static_cast<double>(shape.rows), entries);
  const double y_bytes =
      (entries + shape.away * constants.away_share) * product.channels * activation_bytes;
  Work work;
  work.issue_s = constants.kernel_s;
  Traffic& traffic = work.traffic;
  traffic.weights = active * product.channels * product.steps * product.w_bytes;
  traffic.memory_read = traffic.weights + x_rows * product.steps * product.x_bytes;
  traffic.memory_written = y_bytes;
  traffic.matrix_ops = 2 * entries * product.channels * product.steps;
  traffic.matrix_type = multiplied;
  product.memory_s = (traffic.memory_read + traffic.memory_written) /
                     (chip.memory.bytes_per_s.value * constants.memory_efficiency);

  Wave best;
  for (const Tile& tile : ExpertTiles(chip, multiplied)) {
    double blocks = 0;
    for (const int64_t rows : rows_of_expert)
      blocks += Ceil(static_cast<double>(rows), static_cast<double>(tile.rows));
    const Wave wave = ProductWaves(chip, constants, product, tile, blocks);
    if (Length(best) == 0 || Length(wave) < Length(best)) best = wave;
  }
  // What the cores load comes through the cache.
  traffic.cache = traffic.scratch = static_cast<double>(best.count) * chip.cores.value *
                                    std::max(0.0, best.busy(Unit::kScratch) - constants.tile_s) *
                                    constants.core_bytes_per_s;
  work.waves.push_back(best);
  if (!shape.gated) return work;

  traffic.memory_read += y_bytes;
  traffic.memory_written += y_bytes / 2;
  traffic.vector_ops = 4 * y_bytes / 2 / activation_bytes;
  work.issue_s += constants.kernel_s;
  work.waves.push_back({});  // so that the gate's transfers wait for the product
  work.waves.push_back(RowsWave(chip, constants, 1.5 * y_bytes));
  return work;
}

Work CombineWork(const Chip& chip, const ExpertShape& shape) {
  if (IsHost(chip)) {
    RowTraffic traffic;
    traffic.rows = static_cast<double>(shape.rows);
    const double values = traffic.rows * static_cast<double>(shape.channels);
    traffic.read = 4 * values * static_cast<double>(shape.choices);
    traffic.written = 4 * values;
    traffic.vector_ops = 2 * values * static_cast<double>(shape.choices);
    return HostRowWork(chip, traffic);
  }
  const Constants constants(chip, shape.quantised);
  const double rows = static_cast<double>(shape.rows);
  const double read =
      rows * static_cast<double>(shape.choices) - shape.away * (1 - constants.away_share);
  const double row_bytes =
      static_cast<double>(shape.channels) * static_cast<double>(SizeBytes(chip.activation_type));
  Work work;
  work.issue_s = constants.kernel_s;
  work.traffic.memory_read = read * row_bytes;
  work.traffic.memory_written = rows * row_bytes;
  work.traffic.vector_ops = 2 * read * static_cast<double>(shape.channels);
  work.waves.push_back(RowsWave(chip, constants, (read + rows) * row_bytes));
  return work;
}

}  // namespace millpower::device::chip
