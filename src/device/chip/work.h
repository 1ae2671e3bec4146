// What one instruction asks of a chip: the contract between the functions that expand instructions
// into tiles (cost_*.h) and the machine that plays them (machine.h).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/dtype.h"

namespace millpower::device::chip {

// The engines of a chip that work at the same time. Each takes what it is given in order.
enum class Unit : uint8_t {
  kMemory,   // HBM and its channels
  kCache,    // the last-level cache, to and from the cores
  kScratch,  // the busiest core's scratchpad
  kMatrix,   // the busiest core's matrix engine
  kVector,   // the busiest core's vector engine
  kLink,     // to other chips
};
inline constexpr int kUnitCount = 6;
const char* Name(Unit unit);

// Tiles that the cores work on together: one on each core, or as many as fit there. For how long
// they keep each unit busy, in seconds; what the units do overlaps, tile by tile, so that a wave
// takes as long as the busiest of them, and then `latency_s`, which nothing hides: pipelines that
// fill, barriers, the last store.
struct Wave {
  int64_t count = 1;  // how many such waves follow each other
  std::array<double, kUnitCount> busy_s{};
  double latency_s = 0;
  // The part of the memory's time that is spent on weights, 0 to 1: it depends on nothing that is
  // computed, so a chip with buffers for it reads it ahead.
  double weight_share = 0;

  double& busy(Unit unit) { return busy_s[static_cast<size_t>(unit)]; }
  double busy(Unit unit) const { return busy_s[static_cast<size_t>(unit)]; }
};

// What is moved and computed, of the whole instruction on one chip: for energy and for shares of
// peaks. Bytes; operations (a multiply-add is two).
struct Traffic {
  double memory_read = 0;
  double memory_written = 0;
  double weights = 0;  // of what is read
  double cache = 0;
  double scratch = 0;
  double link = 0;
  double matrix_ops = 0;
  DType matrix_type = DType::kBf16;  // of the operands that are multiplied
  double vector_ops = 0;

  Traffic& operator+=(const Traffic& more) {
    memory_read += more.memory_read;
    memory_written += more.memory_written;
    weights += more.weights;
    cache += more.cache;
    scratch += more.scratch;
    link += more.link;
    matrix_ops += more.matrix_ops;
    vector_ops += more.vector_ops;
    return *this;
  }
};

struct Work {
  // Before the first wave, with nothing to do: what it takes to begin (or, of an instruction that a
  // chip's library carries out as several kernels, to begin them all).
  double issue_s = 0;
  std::vector<Wave> waves;
  Traffic traffic;
};

}  // namespace millpower::device::chip
