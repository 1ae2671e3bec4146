#include "device/chip/cost_collective.h"

#include <array>
#include <limits>

namespace millpower::device::chip {
namespace {

// What one way of carrying a collective out takes once it is launched, in seconds.
struct Way {
  double link = std::numeric_limits<double>::infinity();  // on the links
  double latency = 0;                                     // starts, hops, copies

  double total() const { return link + latency; }
};

}  // namespace

Work CollectiveWork(const Chip& chip, const CollectiveShape& shape) {
  Work work;
  if (shape.ranks < 2) return work;
  const auto of = [&](const char* name, double otherwise) {
    return chip.Fitted("collective", name, otherwise);
  };
  const double link = chip.links.bytes_per_s.value;
  const double n = shape.ranks;
  const double part = shape.bytes / n;
  const bool pairs = shape.kind == CollectiveKind::kAllToAll;
  const bool sum = shape.kind == CollectiveKind::kAllReduce;
  const double hops = pairs ? 1 : (sum ? 2 : 1) * (n - 1);
  const double parts = pairs ? n - 1 : hops;
  const double hop_s = of("hop_s", chip.links.latency_s.value);

  Way line, bulk, in_switch;
  line.latency = hops * hop_s;
  line.link = pairs ? part / of("pair_bytes_per_s", link)
                    : (parts + 1) * part / of("line_bytes_per_s", link);
  bulk.latency = of(pairs ? "pairs_start_s" : "ring_start_s", 0) + hops * hop_s +
                 part / of("copy_bytes_per_s", chip.memory.bytes_per_s.value / 2);
  bulk.link = parts * part / (link * of("link_efficiency", 1));
  const double least_ranks = of("switch_least_ranks", std::numeric_limits<double>::infinity());
  if (sum && IsFloat(shape.type) && n >= least_ranks) {
    in_switch.latency = of("switch_start_s", 0) + 2 * hop_s;
    in_switch.link = shape.bytes * (1 + 1 / n) / (link * of("switch_efficiency", 1));
  }
  Way best = line;
  for (const Way& way : {bulk, in_switch})
    if (way.total() < best.total()) best = way;

  work.issue_s = of("launch_s", chip.issue_s.value);
  Wave wave;
  wave.busy(Unit::kLink) = best.link;
  wave.latency_s = best.latency;
  work.waves.push_back(wave);
  work.traffic.link = parts * part;
  work.traffic.memory_read = parts * part;
  work.traffic.memory_written = parts * part;
  if (sum || shape.kind == CollectiveKind::kReduceScatter)
    work.traffic.vector_ops = (n - 1) * part / SizeBytes(shape.type);
  return work;
}

Work ReceiveWork(const Chip& chip, double bytes) {
  Work work = CollectiveWork(chip, {CollectiveKind::kAllToAll, 2, 2 * bytes, DType::kBf16});
  work.traffic.memory_read = 0;
  return work;
}

}  // namespace millpower::device::chip
