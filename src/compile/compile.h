// Graph to Program. The passes, one file each, in the order they run:
//   fuse.cc      linears that share an input become one; residual adds and gates become epilogues
//   lower.cc     nodes become instructions; views and in-place results need no copies
// (fuse_tensor.cc and lower_tensor.cc for graphs of tensors of any rank, as imported models are)
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
  // Type of matrix weights: f32, bf16, q8_0 (int8), q4_0 (int4) or f8_e4m3; absent: the file's own
  // (f16 widens to f32). Routers of experts keep the file's type where a quantised type is asked
  // for: they are small, and what they decide is not a matter of degree.
  std::optional<DType> weight_type;
  std::optional<DType> kv_type;  // f32, bf16, i8 or f8_e4m3; absent: bf16
  // Type of embedding tables of tensor graphs: f32, bf16, f16, i8 or i4; absent: the file's own.
  std::optional<DType> table_type = {};
  // Products with weights of quantised types take f32 activations: nothing else is quantised.
  bool weight_only = false;
};

// Tensors of one type that are stored as another, or widened: q6_k stays q6_k, in 8 bits.
struct Conversion {
  DType from = DType::kF32;
  DType to = DType::kF32;
  int64_t tensors = 0;
  std::string example;  // the name of one
};

struct Compiled {
  isa::Program program;
  PackPlan packing;
  std::vector<Conversion> conversions;  // of matrix weights, by types
};

// Needs no weights: a graph made from a config alone compiles to the same Program.
// Errors: kInvalidArgument for a type that weights or pages cannot have; kUnsupported, naming a
// node that no instruction carries out.
Result<Compiled> Compile(const ir::Graph& graph, const Options& options);

}  // namespace millpower::compile
