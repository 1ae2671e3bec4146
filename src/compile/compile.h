// Graph to Program. The passes, one file each, in the order they run:
//   fuse.cc      linears that share an input become one; residual adds and gates become epilogues
//   lower.cc     nodes become instructions; views and in-place results need no copies
//   plan.cc      values whose lives do not overlap share buffers
//   schedule.cc  instructions are dealt to streams, ordered by as few waits as will do
//   pack.cc      weights take the chip's packed layout, when the bytes are at hand
// The result is verified before it is returned.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "compile/pack.h"
#include "ir/graph.h"
#include "isa/package.h"
#include "isa/program.h"

namespace millpower::compile {

struct Options {
  // Type of matrix weights; absent: the file's own (f16 widens to f32).
  std::optional<DType> weight_type;
  std::optional<DType> kv_type;  // f32 or bf16; absent: bf16
};

struct Compiled {
  isa::Program program;
  PackPlan packing;
};

// Needs no weights: a graph made from a config alone compiles to the same Program.
// Errors: kUnsupported, naming a node that no instruction carries out.
Result<Compiled> Compile(const ir::Graph& graph, const Options& options);

}  // namespace millpower::compile
