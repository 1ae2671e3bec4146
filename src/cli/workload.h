// What a language model's Program has to move and compute, counted off its instructions: the
// numerators of every "share of the limit".
#pragma once

#include "isa/program.h"

namespace millpower::cli {

// Two operations a multiply-add. Only matrix products count: norms, rotations, attention and
// sampling are left out, so a share made from these is never flattered.
struct Workload {
  // Bytes of matrices that a step of one row reads: all of a plain one, the chosen experts' part
  // of an expert one.
  double step_weight_bytes = 0;
  // Bytes of keys and values that a row reads for each position before it, all layers.
  double kv_bytes_per_position = 0;
  // Operations of one row in the layers, by what multiplies them: f32 FMAs for float weights, 8-bit
  // integer products for weights in blocks.
  double float_ops = 0;
  double int8_ops = 0;
  // Operations of a row whose next token is wanted, besides.
  double head_ops = 0;
};

Workload WorkloadOf(const isa::Program& program);

}  // namespace millpower::cli
