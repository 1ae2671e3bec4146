// Blocks of ggml's types, as files have them (base/blocks.h), into the chip's packed layout
// (isa/layout.h). Internal to this folder.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "isa/layout.h"

namespace millpower::compile {

// For each of 16 channels: the blocks of its row; null: a row of zeros.
using LaneBlocks = std::array<const std::byte*, isa::kLanes>;

// Writes one block of 16 channels, isa::PackedLines(k, type) lines, from rows of `blocks` blocks of
// `type`. What the rows leave of k, and of the last chunk, is values of 0. Scales and integers are
// the file's, whatever they are.
void Repack(DType type, const LaneBlocks& lanes, int64_t blocks, int64_t k, std::byte* lines);

}  // namespace millpower::compile
