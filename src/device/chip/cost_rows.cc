#include "device/chip/cost_rows.h"

#include <algorithm>
#include <cmath>

#include "device/chip/cost_host.h"

namespace millpower::device::chip {

Work RowWork(const Chip& chip, const RowTraffic& traffic, bool joins) {
  if (IsHost(chip)) return HostRowWork(chip, traffic);
  Work work;
  Wave wave;
  const double read = joins ? 0 : traffic.read;
  // What instructions before left in the last-level cache, as far as it holds it beside what is
  // written now.
  const bool fits = read + traffic.written <= chip.cache.bytes.value;
  const double access = std::max(chip.memory.access_bytes.value, 1.0);
  const double each = std::ceil(traffic.random_bytes / access) * access;
  const double missed = traffic.random_reads * (1 - traffic.cached_share) * each;

  Traffic& total = work.traffic;
  total.weights = traffic.constants;
  total.memory_read = traffic.constants + traffic.state_read + missed + (fits ? 0 : read);
  total.memory_written = traffic.state_written + (fits ? 0 : traffic.written);
  total.cache = read + traffic.written + traffic.random_reads * each;
  total.vector_ops = traffic.vector_ops + traffic.special_ops;
  total.matrix_ops = traffic.matrix_ops;
  total.matrix_type = traffic.matrix_type;

  const double streamed = total.memory_read + total.memory_written - missed;
  const double bandwidth = chip.memory.bytes_per_s.value;
  const double in_order = streamed / (bandwidth * chip.memory.efficiency.value);
  const double at_random = missed / (bandwidth * chip.memory.random_efficiency.value);
  wave.busy(Unit::kMemory) = in_order + at_random;
  if (in_order + at_random > 0)
    wave.weight_share =
        traffic.constants / (bandwidth * chip.memory.efficiency.value) / (in_order + at_random);
  if (chip.cache.bytes_per_s.value > 0)
    wave.busy(Unit::kCache) = total.cache / chip.cache.bytes_per_s.value;

  const double cores = std::clamp(traffic.rows / chip.cores.value, 1 / chip.cores.value, 1.0);
  wave.busy(Unit::kVector) = (traffic.vector_ops / chip.vector_ops_per_s.value +
                              traffic.special_ops / chip.special_ops_per_s.value) /
                             cores;
  if (traffic.matrix_ops > 0)
    wave.busy(Unit::kMatrix) = traffic.matrix_ops / (MatrixRate(chip, traffic.matrix_type) * cores);
  if (!joins) {
    work.issue_s = chip.issue_s.value;
    wave.latency_s =
        total.memory_read > 0 ? chip.memory.latency_s.value : chip.cache.latency_s.value;
  }
  work.waves.push_back(wave);
  return work;
}

}  // namespace millpower::device::chip
