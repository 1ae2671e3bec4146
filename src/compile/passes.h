// What the passes of one compilation hand to each other. Internal to this folder.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "compile/compile.h"
#include "ir/graph.h"
#include "isa/program.h"

namespace millpower::compile {

// By value: what a matrix weight is stored as, whatever its file has.
using StoredTypes = std::vector<DType>;
StoredTypes ChooseTypes(const ir::Graph& graph, const Options& options);

// The rows that a weight of the graph is made of.
std::vector<ir::TensorSlice> SlicesOf(const ir::Value& weight, const PackPlan& packing);

// Rewrites `graph`; weights it makes out of others get a rule in `packing` and a type in `types`.
Result<void> Fuse(ir::Graph& graph, PackPlan& packing, StoredTypes& types);

// Whether the graph is made of operators on tensors (ir::Op::kMap and on), as those of imported
// models are. They go through passes of their own: FuseTensor and LowerTensor.
bool IsTensorGraph(const ir::Graph& graph);

// The same for graphs of tensors: what is computed twice or for nothing goes, products with weights
// become kDense with bias, residual and relu, products of computed matrices read transposed ones as
// they lie, chains of maps become one map, rows taken of a weight embedding bags.
Result<void> FuseTensor(ir::Graph& graph);

// An operand before scratch is planned: columns of a value, or a whole declared buffer (a weight or
// a cache that no value stands for). Neither: an optional operand that is absent.
struct View {
  ir::ValueId value = ir::kNoValue;
  int64_t begin = 0;
  int64_t cols = 0;
  int32_t buffer = isa::kNoBuffer;
  int32_t shape = -1;  // of a whole buffer read as a tensor: index into the Program's shapes
  bool operator==(const View&) const = default;
};

struct LoweredInstruction {
  isa::Instruction instruction;  // operands' buffers still empty
  std::vector<View> operands;    // in the order of the op's table
};

struct Lowered {
  isa::Program program;  // name, facts, registers, and the buffers that are not scratch
  // By value. Beyond the graph's there are values that only instructions know of (quantised
  // activations, expert lists).
  std::vector<int32_t> buffer_of_value;  // -1: scratch, or not stored
  std::vector<isa::Buffer> scratch;      // what a value that is scratch takes; no name yet
  std::vector<LoweredInstruction> instructions;
};

Result<Lowered> Lower(const ir::Graph& graph, const Options& options, const StoredTypes& types,
                      PackPlan& packing);

// The same for graphs of tensors. `conversions` is told which weights are stored as another type.
Result<Lowered> LowerTensor(const ir::Graph& graph, const Options& options, PackPlan& packing,
                            std::vector<Conversion>& conversions);

// Gives every scratch value a buffer, and the instructions their operands.
std::vector<isa::Instruction> PlanBuffers(Lowered& lowered);

// Deals the instructions to the Program's streams, with the waits and posts they need.
void Schedule(const std::vector<isa::Instruction>& instructions, isa::Program& program);

}  // namespace millpower::compile
