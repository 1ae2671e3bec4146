// Where a language model's Program keeps what the engine gives and takes: launches are written and
// results are read here.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "device/device.h"
#include "engine/engine.h"
#include "engine/sequence.h"

namespace millpower::engine {

// By index in the Program.
struct Ports {
  int32_t rows, seqs, picked, adjusts, page_entries, pages;  // registers
  int32_t tokens, positions, sequences, page_list, picked_rows, sampling, adjust_tokens,
      adjustments;  // inputs
  int32_t sampled;  // output

  // Errors: kUnsupported (the Program is no language model: which input or output it lacks).
  static Result<Ports> Find(const isa::Program& program);

  // Writes down the launch that computes `shares`.
  void Write(const std::vector<Share>& shares, device::Launch& launch) const;
};

// A record of the output `sampled` (isa/sampling.h).
TokenInfo ReadRecord(const int32_t* record);

}  // namespace millpower::engine
