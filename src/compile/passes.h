// What the passes of one compilation hand to each other. Internal to this folder.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "compile/compile.h"
#include "ir/graph.h"
#include "isa/program.h"

namespace millpower::compile {

// Rewrites `graph`; weights it makes out of others get a rule in `packing`.
Result<void> Fuse(ir::Graph& graph, PackPlan& packing);

// An operand before scratch is planned: columns of a value, or a whole declared buffer (a weight or
// a cache that no value stands for). Neither: an optional operand that is absent.
struct View {
  ir::ValueId value = ir::kNoValue;
  int64_t begin = 0;
  int64_t cols = 0;
  int32_t buffer = isa::kNoBuffer;
};

struct LoweredInstruction {
  isa::Instruction instruction;  // operands' buffers still empty
  std::vector<View> operands;    // in the order of the op's table
};

struct Lowered {
  isa::Program program;  // name, facts, registers, and the buffers that are not scratch
  std::vector<int32_t> buffer_of_value;        // index by ValueId; -1: scratch, or not stored
  std::map<ir::ValueId, int64_t> stored_cols;  // of values stored wider than they are
  std::vector<LoweredInstruction> instructions;
};

Result<Lowered> Lower(const ir::Graph& graph, const Options& options, PackPlan& packing);

// Gives every scratch value a buffer, and the instructions their operands.
std::vector<isa::Instruction> PlanBuffers(const ir::Graph& graph, Lowered& lowered);

// Deals the instructions to the Program's streams, with the waits and posts they need.
void Schedule(const std::vector<isa::Instruction>& instructions, isa::Program& program);

}  // namespace millpower::compile
