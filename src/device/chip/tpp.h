// What export rules ask of a chip: how much it computes, and on how much silicon.
//
// Source: U.S. Export Administration Regulations, 15 CFR Part 774, Supplement No. 1, ECCN 3A090 and
// its Technical Notes, as set by the Bureau of Industry and Security's interim final rule of 25
// October 2023 (88 FR 73458) and corrected on 4 April 2024 (89 FR 23876). This is arithmetic on
// figures of a description, not advice on what may be exported: the rule has further parts (what a
// chip is designed or marketed for, memory, destinations) and changes.
#pragma once

#include <cstdint>
#include <string>

#include "device/chip/description.h"

namespace millpower::device::chip {

// "TPP", Technical Note 2 to 3A090.a and .b: 2 x MacTOPS x bit length of the operation, the largest
// over the types of numbers, dense: that is tera-operations a second, a multiply-add being two,
// times bits of the longer operand. Vector engines count as f32. Of all dies of the chip.
double TotalProcessingPerformance(const Chip& chip);

// "Performance density": TPP by the area, in mm2, of dies made in a process of non-planar
// transistors. 0 when the file has no area (die_mm2), or the process is planar: above 16 nm, as
// processes are called.
double PerformanceDensity(const Chip& chip);

enum class ExportTier : uint8_t {
  kNone,     // below what 3A090 names
  kB,        // 3A090.b: (2400 <= TPP < 4800 and 1.6 <= density < 5.92) or
             //          (TPP >= 1600 and 3.2 <= density < 5.92)
  kA,        // 3A090.a: TPP >= 4800, or TPP >= 1600 and density >= 5.92
  kUnknown,  // it hangs on the density, and the area of the dies is not published
};

ExportTier ExportTierOf(const Chip& chip);

// "TPP 15830, density 19.4: meets 3A090.a".
std::string ExportSummary(const Chip& chip);

}  // namespace millpower::device::chip
