#include "device/chip/description_figures.h"

#include <algorithm>

namespace millpower::device::chip {

std::vector<FigureInfo> FiguresOf(Chip& c) {
  constexpr auto kUp = Better::kHigher;
  constexpr auto kDown = Better::kLower;
  constexpr auto kNeither = Better::kNeither;
  constexpr Default kNone = {};  // not published, or not there
  std::vector<FigureInfo> all = {
      {"process_nm", &c.process_nm, 0.5, 1000, kNeither, kNone},
      {"die_mm2", &c.die_mm2, 1, 1e5, kNeither, kNone},
      {"transistors", &c.transistors, 1e6, 1e14, kNeither, kNone},
      {"year", &c.year, 1990, 2100, kNeither, kNone, true},
      {"cores", &c.cores, 1, 1e6, kNeither, {}, true},
      {"clock_hz", &c.clock_hz, 1e6, 1e11, kUp, {}},
      {"price_usd_per_hour", &c.price_usd_per_hour, 0, 1e6, kDown, kNone},
  };
  for (size_t i = 0; i < kMatrixTypeCount; ++i) {
    const std::string type = std::string("matrix.") + kMatrixNames[i];
    all.push_back({type + ".ops_per_s", &c.matrix[i].ops_per_s, 1e6, 1e20, kUp, kNone});
    all.push_back({type + ".j_per_op", &c.energy.matrix_j_per_op[i], 1e-18, 1e-3, kDown, kNone});
  }
  const std::vector<FigureInfo> rest = {
      {"vector.ops_per_s", &c.vector_ops_per_s, 1e6, 1e18, kUp, {}},
      {"vector.special_ops_per_s", &c.special_ops_per_s, 1e6, 1e18, kUp, {}},
      {"memory.bytes", &c.memory.bytes, 1e6, 1e15, kNeither, {}},
      {"memory.bytes_per_s", &c.memory.bytes_per_s, 1e6, 1e17, kUp, {}},
      {"memory.efficiency", &c.memory.efficiency, 0.01, 1, kUp, Default{0.9, 0.8, 0.95}},
      {"memory.random_efficiency", &c.memory.random_efficiency, 0.001, 1, kUp,
       Default{0.5, 0.3, 0.7}},
      {"memory.access_bytes", &c.memory.access_bytes, 1, 65536, kNeither, Default{64}, true},
      {"memory.channels", &c.memory.channels, 1, 1e5, kNeither, Default{1}, true},
      {"memory.latency_s", &c.memory.latency_s, 1e-10, 1e-3, kDown, {}},
      {"cache.bytes", &c.cache.bytes, 0, 1e12, kUp, kNone},
      {"cache.bytes_per_s", &c.cache.bytes_per_s, 0, 1e17, kUp, kNone},
      {"cache.latency_s", &c.cache.latency_s, 0, 1e-3, kDown, kNone},
      {"scratchpad.bytes", &c.scratchpad.bytes, 1024, 1e12, kUp, {}},
      {"scratchpad.bytes_per_s", &c.scratchpad.bytes_per_s, 1e6, 1e17, kUp, {}},
      {"links.bytes_per_s", &c.links.bytes_per_s, 0, 1e17, kUp, kNone},
      {"links.latency_s", &c.links.latency_s, 0, 1, kDown, kNone},
      {"links.max_chips", &c.links.max_chips, 1, 1e6, kNeither, Default{1}, true},
      {"overheads.issue_s", &c.issue_s, 0, 1, kDown, {}},
      {"overheads.launch_s", &c.launch_s, 0, 1, kDown, {}},
      {"overheads.host_s", &c.host_s, 0, 1, kDown, {}},
      {"overheads.sampling_s", &c.sampling_s, 0, 1, kDown, kNone},
      {"overheads.prefetch_bytes", &c.prefetch_bytes, 0, 1e12, kUp, kNone},
      {"energy.idle_w", &c.idle_w, 0, 1e6, kDown, {}},
      {"energy.tdp_w", &c.tdp_w, 0.1, 1e6, kNeither, {}},
      {"energy.vector_j_per_op", &c.energy.vector_j_per_op, 1e-18, 1e-3, kDown, {}},
      {"energy.memory_j_per_byte", &c.energy.memory_j_per_byte, 1e-15, 1e-3, kDown, {}},
      {"energy.cache_j_per_byte", &c.energy.cache_j_per_byte, 0, 1e-3, kDown, kNone},
      {"energy.scratch_j_per_byte", &c.energy.scratch_j_per_byte, 0, 1e-3, kDown, kNone},
      {"energy.link_j_per_byte", &c.energy.link_j_per_byte, 0, 1e-3, kDown, kNone},
  };
  all.insert(all.end(), rest.begin(), rest.end());
  return all;
}

Better BetterOf(std::string_view name) {
  if (name.contains("efficiency")) return Better::kHigher;
  for (const char* end : {"_hz", "_per_s", "_per_cycle"})
    if (name.ends_with(end)) return Better::kHigher;
  for (const char* end : {"_s", "_cycles", "_bytes", "_ops", "_j", "_w"})
    if (name.ends_with(end)) return Better::kLower;
  return Better::kNeither;
}

std::string_view UnitOf(std::string_view key) {
  struct Unit {
    const char *end, *words;
  };
  // Longer ends first.
  constexpr Unit kUnits[] = {
      {"bytes_per_s", "bytes per second"},
      {"ops_per_s", "operations per second"},
      {"usd_per_hour", "US dollars per hour"},
      {"j_per_op", "joules per operation"},
      {"j_per_byte", "joules per byte"},
      {"_hz", "hertz"},
      {"_s", "seconds"},
      {"bytes", "bytes"},
      {"_w", "watts"},
      {"_nm", "nanometres"},
      {"_mm2", "square millimetres"},
  };
  const auto* unit =
      std::ranges::find_if(kUnits, [&](const Unit& u) { return key.ends_with(u.end); });
  return unit == std::end(kUnits) ? std::string_view() : unit->words;
}

}  // namespace millpower::device::chip
