// The one list of a chip's figures, by which they are read, checked, listed as assumed and taken at
// one end. Of description*.cc only.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "device/chip/description.h"

namespace millpower::device::chip {

// Which way of a figure a user of the chip would like.
enum class Better : uint8_t { kHigher, kLower, kNeither };

// A value for a figure that a file leaves out, with the bounds of what is then assumed.
struct Default {
  double value = 0;
  double low = value, high = value;
};

struct FigureInfo {
  std::string key;  // "memory.bytes_per_s": table and name in the file
  Figure* figure = nullptr;
  double least = 0, most = 0;  // what makes sense
  Better better = Better::kNeither;
  std::optional<Default> otherwise = {};  // without one the file must have the figure
  bool whole = false;                     // a count
};

// Pointers are into `chip`. In the order of docs/chip-files.md.
std::vector<FigureInfo> FiguresOf(Chip& chip);

// Of a fitted constant, by its name: what ends in _hz, _per_s, _per_cycle or holds "efficiency" is
// better high; other ends _s, _cycles, _bytes, _ops, _j, _w are better low.
Better BetterOf(std::string_view name);

// "bytes per second" for "memory.bytes_per_s"; empty for what has no unit.
std::string_view UnitOf(std::string_view key);

inline constexpr std::array<const char*, kMatrixTypeCount> kMatrixNames = {
    "f32", "bf16", "f16", "fp8_e4m3", "int8", "int4", "fp4"};

}  // namespace millpower::device::chip
