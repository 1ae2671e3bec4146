#include "device/chip/cost_host.h"

#include <algorithm>
#include <cmath>

#include "device/host_sharing.h"
#include "isa/layout.h"

namespace millpower::device::chip {
namespace {

// The kernels' rules (kernels/avx512_vector.h, vector_attention.h): rows that they compute with a
// weight once it is loaded, of many and of floats at most; vectors of 16 products that a core has
// begun before the first is done, two a cycle for four cycles; queries of a tile.
constexpr double kTileRows = 6, kMostTileRows = 8;
constexpr double kInFlight = 8;
// What loading a weight of floats for one row takes of what it takes for several.
constexpr double kLoneRow = 0.88;
constexpr double kTileQueries = 24;
constexpr double kPanelBlocks = static_cast<double>(kPanelChannels / isa::kLanes);

// What an instruction keeps busy when all threads work on it, in seconds.
struct Load {
  double load_s = 0;     // bringing values to where they are computed with
  double compute_s = 0;  // computing
  double memory_s = 0;   // bytes from memory
  double rest_s = 0;     // what does not overlap with these
  double begin_s = 0;    // before threads have anything to do, besides its issue
  double floats = 0;     // touched: whether it is worth sharing
  double parts = 1;      // that threads can take
};

double Threads(const Chip& chip) { return std::max(1.0, chip.cores.value); }

// The part of their full rate at which `busy` of the threads work, where one has `alone` of it.
double ShareOf(const Chip& chip, double alone, double busy) {
  const double threads = Threads(chip);
  if (threads <= 1 || busy >= threads) return 1;
  return alone + (1 - alone) * (busy - 1) / (threads - 1);
}

// How much longer equal parts take than if they could be cut at will: the last round has fewer.
double Unevenness(const Chip& chip, double alone, double parts) {
  const double threads = Threads(chip);
  const double rounds = std::floor(parts / threads);
  const double last = parts - rounds * threads;
  if (last <= 0) return 1;
  return (rounds * threads + last / ShareOf(chip, alone, last)) / parts;
}

// Of two that overlap: the longer one, and the more of the shorter the nearer they are.
double Overlapped(double a, double b, double power) {
  const double longer = std::max(a, b), shorter = std::min(a, b);
  if (longer <= 0) return 0;
  return longer * std::pow(1 + std::pow(shorter / longer, power), 1 / power);
}

Work WorkOf(const Chip& chip, const HostConstants& c, Load load, const Traffic& traffic) {
  const bool serial = load.parts <= 1 || Threads(chip) <= 1 || load.floats < kSerialFloats;
  double begin_s = load.begin_s + chip.issue_s.value;
  if (serial && Threads(chip) > 1) {
    load.load_s /= c.thread_share;
    load.compute_s /= c.thread_share;
    load.rest_s /= c.thread_share;
    load.memory_s /= c.thread_memory_share;
  } else if (!serial) {
    begin_s = load.begin_s + c.meet_s;
    const double uneven = Unevenness(chip, c.thread_share, load.parts);
    load.load_s *= uneven;
    load.compute_s *= uneven;
    load.rest_s *= uneven;
    load.memory_s *= Unevenness(chip, c.thread_memory_share, load.parts);
  }
  Wave wave;
  wave.busy(Unit::kVector) = begin_s +
                             Overlapped(Overlapped(load.load_s, load.compute_s, c.overlap_power),
                                        load.memory_s, c.memory_power) +
                             load.rest_s;
  wave.busy(Unit::kMemory) = load.memory_s;
  wave.busy(Unit::kMatrix) = traffic.matrix_ops > 0 ? load.compute_s : 0;
  wave.busy(Unit::kCache) = load.load_s;
  Work work;
  work.waves.push_back(wave);
  work.traffic = traffic;
  return work;
}

// The part of what comes again after `bytes` that has left the last-level cache by then.
double Missed(const Chip& chip, double bytes) {
  const double cache = chip.cache.bytes.value;
  if (cache <= 0) return 1;
  return std::clamp(2 * bytes / cache - 1, 0.0, 1.0);
}

// The same of `bytes` that a thread reads again and again, of its own cache.
double LeftOwnCache(const Chip& chip, double bytes) {
  return std::clamp(2 * bytes / chip.scratchpad.bytes.value - 1, 0.0, 1.0);
}

double Bandwidth(const Chip& chip) {
  return chip.memory.bytes_per_s.value * chip.memory.efficiency.value;
}

double WeightBytes(DType type) {
  return IsBlockType(type)
             ? static_cast<double>(BlockBytes(type)) / static_cast<double>(BlockSize(type))
             : static_cast<double>(SizeBytes(type));
}

// Seconds for one value of a weight and one row, by all threads.
double MacSeconds(const Chip& chip, const HostWeights& weights, DType multiplied) {
  return 2 / (std::max(1.0, MatrixRate(chip, multiplied)) * weights.efficiency);
}

// A product's part in `load`: of each row `values` products, in panels of so many `blocks` of
// channels, and what finishing its sums takes, in products.
void AddProduct(const Chip& chip, double values, double blocks, double finishing, double rows,
                DType type, bool quantised, Load& load) {
  const HostWeights weights(chip, type);
  const double mac_s = MacSeconds(chip, weights, quantised ? type : DType::kF32);
  const bool one_tile = !quantised && rows <= kMostTileRows;
  const double tiles = one_tile ? 1 : std::ceil(rows / kTileRows);
  const double computed = quantised ? rows : tiles * std::max(rows / tiles, kInFlight / blocks);
  const double loads = !quantised && rows <= 1 ? kLoneRow : tiles;
  load.load_s += values * mac_s * weights.load_rows * loads;
  load.compute_s += (values * computed + finishing * rows) * mac_s;
}

// Weights lie in whole lines.
double PaddedChannels(int64_t channels) {
  return static_cast<double>(isa::PackedBlocks(channels) * isa::kLanes);
}

double PositionsSeen(const AttentionShape& shape, double position) {
  return shape.window > 0 ? std::min(position + 1, static_cast<double>(shape.window))
                          : position + 1;
}

}  // namespace

bool IsHost(const Chip& chip) { return chip.fitted.contains(kHostKind); }

HostConstants::HostConstants(const Chip& chip) {
  const auto of = [&](const char* name, double otherwise) {
    return chip.Fitted(kHostKind, name, otherwise);
  };
  meet_s = of("meet_s", chip.issue_s.value);
  thread_share = std::clamp(of("thread_share", 1 / Threads(chip)), 0.01, 1.0);
  thread_memory_share = std::clamp(of("thread_memory_share", 1 / Threads(chip)), 0.01, 1.0);
  overlap_power = std::clamp(of("overlap_power", 2), 1.0, 20.0);
  memory_power = std::clamp(of("memory_power", 4), 1.0, 20.0);
  attention_efficiency = std::clamp(of("attention_efficiency", 0.9), 0.01, 10.0);
  segment_s = of("segment_s", 0);
  append_s = of("append_s", 2 / chip.vector_ops_per_s.value);
  contract_efficiency = std::clamp(of("contract_efficiency", 0.5), 0.001, 10.0);
  tensor_s = of("tensor_s", chip.issue_s.value);
  finish_steps = of("finish_steps", 0);
  exchange_s = of("exchange_s", 0);
  bag_s = chip.Fitted(kHostTablesKind, "bag_s", chip.cache.latency_s.value);
  item_s = chip.Fitted(kHostTablesKind, "item_s", chip.cache.latency_s.value);
  far_s = chip.Fitted(kHostTablesKind, "far_s", chip.cache.latency_s.value / Threads(chip));
  miss_s = chip.Fitted(kHostTablesKind, "miss_s", chip.memory.latency_s.value / Threads(chip));
}

HostWeights::HostWeights(const Chip& chip, DType type) {
  const std::string name(Name(type));
  load_rows = chip.Fitted(kHostWeightsKind, "load_rows_" + name, 3);
  efficiency = std::clamp(chip.Fitted(kHostWeightsKind, "efficiency_" + name, 1), 0.001, 10.0);
}

Work HostMatMulWork(const Chip& chip, const MatMulShape& shape) {
  const HostConstants c(chip);
  const auto rows = static_cast<double>(shape.rows);
  const double channels = PaddedChannels(shape.channels);
  const double values = channels * static_cast<double>(shape.steps);
  const double panels = std::ceil(channels / kPanelChannels);
  Load load;
  Traffic traffic;
  if (rows <= 0 || values <= 0) return WorkOf(chip, c, load, traffic);
  const double bytes = values * WeightBytes(shape.weights);
  const double passed = std::max(bytes, shape.program_weight_bytes);
  load.floats = values * rows;
  const bool shared = load.floats >= kSerialFloats;
  const double parts =
      shared ? static_cast<double>(ProductParts(static_cast<int64_t>(Threads(chip)), shape.rows,
                                                static_cast<int64_t>(panels), StayCached(passed)))
             : 1;
  AddProduct(chip, values, channels / isa::kLanes / panels, channels * c.finish_steps, rows / parts,
             shape.weights, shape.quantised, load);
  load.load_s *= parts;
  load.compute_s *= parts;
  traffic.weights = bytes * Missed(chip, passed);
  traffic.memory_read = traffic.weights;
  traffic.matrix_ops = 2 * values * rows;
  traffic.matrix_type = shape.quantised ? shape.weights : DType::kF32;
  traffic.cache = bytes + 4 * rows * static_cast<double>(shape.channels + shape.steps);
  load.memory_s = traffic.memory_read / Bandwidth(chip);
  // Threads that have channels of their own find these in their caches, and what others wrote in
  // theirs; those that have rows of their own, the other way round.
  const double readers = std::min(parts, Threads(chip));
  if (chip.cache.bytes_per_s.value > 0)
    load.memory_s += readers * (bytes - traffic.weights) *
                     LeftOwnCache(chip, passed * readers / Threads(chip)) /
                     chip.cache.bytes_per_s.value;
  if (shared)
    load.begin_s += rows * static_cast<double>(shape.steps) * (shape.quantised ? 1 : 4) *
                    (1 - readers / Threads(chip)) * c.exchange_s;
  load.parts = panels * parts;
  return WorkOf(chip, c, load, traffic);
}

Work HostExpertMatMulWork(const Chip& chip, const ExpertShape& shape,
                          std::span<const int64_t> rows_of_expert) {
  const HostConstants c(chip);
  const double channels = PaddedChannels(shape.channels);
  const double values = channels * static_cast<double>(shape.steps);
  Load load;
  Traffic traffic;
  traffic.matrix_type = shape.quantised ? shape.weights : DType::kF32;
  for (const int64_t rows : rows_of_expert) {
    if (rows <= 0) continue;
    AddProduct(chip, values, kPanelBlocks, channels * c.finish_steps, static_cast<double>(rows),
               shape.weights, shape.quantised, load);
    traffic.weights += values * WeightBytes(shape.weights);
    traffic.matrix_ops += 2 * values * static_cast<double>(rows);
    load.floats += values * static_cast<double>(rows);
    load.parts += std::ceil(static_cast<double>(shape.channels) / (2 * kPanelChannels));
  }
  traffic.memory_read = traffic.weights;
  traffic.cache = traffic.weights;
  load.memory_s = traffic.memory_read / Bandwidth(chip);
  return WorkOf(chip, c, load, traffic);
}

Work HostAttentionWork(const Chip& chip, const AttentionShape& shape,
                       std::span<const QueryRun> runs) {
  const HostConstants c(chip);
  const auto kv_heads = static_cast<double>(shape.kv_heads);
  const double group = static_cast<double>(shape.heads) / std::max(1.0, kv_heads);
  const auto dim = static_cast<double>(shape.head_dim);
  Load load;
  load.parts = 0;
  Traffic traffic;
  traffic.matrix_type = DType::kF32;
  Load products;
  double scores = 0, segments = 0;
  for (const QueryRun& run : runs) {
    const auto first = static_cast<double>(run.first_position);
    const auto rows = static_cast<double>(run.rows);
    if (rows <= 0) continue;
    for (double at = 0; at < rows; at += kRunRows) {
      const double count = std::min<double>(kRunRows, rows - at);
      const double seen =
          (PositionsSeen(shape, first + at) + PositionsSeen(shape, first + at + count - 1)) / 2;
      const double queries = count * group;
      // Keys and values of `seen` positions pass once for each tile of queries.
      const double tiles = std::ceil(queries / kTileQueries);
      for (double tile = 0; tile < tiles; ++tile)
        AddProduct(chip, 2 * seen * dim * kv_heads, kPanelBlocks, 0, queries / tiles, shape.kv,
                   false, products);
      scores += queries * seen * kv_heads;
      segments +=
          queries * kv_heads * std::ceil(seen / static_cast<double>(isa::kAttentionSegment));
      load.parts += kv_heads;
      load.floats = std::max(load.floats, 2 * (first + at + count) * dim);
    }
    const double last = PositionsSeen(shape, first + rows - 1);
    traffic.memory_read +=
        2 * (last + (shape.window > 0 ? rows - 1 : 0)) * dim * kv_heads * WeightBytes(shape.kv);
  }
  load.floats *= load.parts;  // as the device guesses: all as long as the longest
  load.load_s = products.load_s / c.attention_efficiency;
  load.compute_s = products.compute_s / c.attention_efficiency;
  load.memory_s = traffic.memory_read / Bandwidth(chip);
  load.rest_s = segments * c.segment_s;
  traffic.matrix_ops = 4 * scores * dim;
  traffic.cache = traffic.memory_read;
  return WorkOf(chip, c, load, traffic);
}

Work HostKvAppendWork(const Chip& chip, const AttentionShape& shape, int64_t rows,
                      int64_t sequences) {
  const HostConstants c(chip);
  const double values =
      2 * static_cast<double>(rows) * static_cast<double>(shape.kv_heads * shape.head_dim);
  Load load;
  load.memory_s = values * c.append_s;  // into lines that are far apart
  const auto lists = static_cast<double>(std::max<int64_t>(1, sequences));
  load.parts = lists * std::ceil(static_cast<double>(rows) / lists / kRunRows);
  // As the device guesses: all runs are full.
  load.floats = load.parts * kRunRows * values / std::max(1.0, static_cast<double>(rows));
  Traffic traffic;
  traffic.cache = values * SizeBytes(DType::kF32);
  traffic.memory_written = values * SizeBytes(shape.kv);
  traffic.vector_ops = values;
  return WorkOf(chip, c, load, traffic);
}

Work HostRowWork(const Chip& chip, const RowTraffic& t) {
  const HostConstants c(chip);
  const double bytes = t.read + t.written + t.constants + t.state_read + t.state_written;
  Load load;
  const double left = LeftOwnCache(chip, bytes);
  const double missed = Missed(chip, bytes);
  load.load_s = bytes * (1 - left) / chip.scratchpad.bytes_per_s.value;
  if (left > missed && chip.cache.bytes_per_s.value > 0)
    load.load_s += bytes * (left - missed) / chip.cache.bytes_per_s.value;
  load.memory_s = bytes * missed / Bandwidth(chip);
  load.compute_s =
      t.vector_ops / chip.vector_ops_per_s.value + t.special_ops / chip.special_ops_per_s.value;
  if (t.matrix_ops > 0)
    load.compute_s +=
        t.matrix_ops / (std::max(1.0, MatrixRate(chip, DType::kF32)) * c.contract_efficiency);
  load.rest_s = t.gathered * c.item_s;
  if (t.on_tensors) load.begin_s = c.tensor_s;
  Traffic traffic;
  if (t.random_reads > 0) {
    const double missed_share = 1 - t.cached_share, far_share = t.cached_share - t.near_share;
    const double missed_rows = t.random_reads * missed_share;
    load.rest_s += t.rows * c.bag_s + t.random_reads * (c.item_s + far_share * c.far_s) +
                   missed_rows * (c.miss_s + t.random_bytes / Bandwidth(chip));
    // The first row of all is waited for; those after it come meanwhile.
    load.begin_s +=
        missed_share * chip.memory.latency_s.value + far_share * chip.cache.latency_s.value;
    traffic.memory_read += missed_rows * t.random_bytes;
  }
  load.floats = (t.written + t.random_reads * (t.random_bytes + 256)) / 4;
  load.parts = t.rows;
  traffic.memory_read += load.memory_s * Bandwidth(chip);
  traffic.cache = bytes;
  traffic.vector_ops = t.vector_ops + t.special_ops;
  traffic.matrix_ops = t.matrix_ops;
  traffic.matrix_type = DType::kF32;
  return WorkOf(chip, c, load, traffic);
}

}  // namespace millpower::device::chip
