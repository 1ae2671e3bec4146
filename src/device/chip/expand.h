// One instruction as work on a chip: the dispatch from opcodes to the functions of cost_*.h, which
// hold the formulas. Every opcode of the instruction set has an entry; a test holds the table to
// isa/opcodes.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "device/chip/cost_attention.h"
#include "device/chip/description.h"
#include "device/chip/routing.h"
#include "device/chip/work.h"
#include "device/launch.h"
#include "isa/program.h"

namespace millpower::device::chip {

struct ExpandOptions {
  int ranks = 1;  // chips that run the Program together
  // Of what collectives exchange, where it is not the chip's activation type: switches add floating
  // point only.
  std::optional<DType> collective_type{};
  RoutingModel routing;  // which experts rows choose, and which rows of tables are looked up
  // Bytes of weights besides the Program's that its chip multiplies with from one launch to the
  // next.
  double other_weight_bytes = 0;
};

// What a launch is to those who expand its instructions.
struct LaunchView {
  std::span<const int64_t> registers;
  // By work list, as FindWorkLists has them.
  std::span<const WorkList> lists;
  std::vector<std::vector<QueryRun>> runs;

  int64_t Rows(const isa::Dim& dim) const { return RowsOf(registers, dim); }
  std::span<const QueryRun> RunsOf(const WorkList& list) const;
};

// What an expansion looks at besides the launch: two instructions with equal keys have equal work.
std::vector<int64_t> ExpansionKey(const isa::Program& program, const isa::Instruction& instruction);

// The registers that the work depends on, ascending; and whether on work lists, too.
struct Dependence {
  std::vector<int32_t> registers;
  bool on_work = false;
};
Dependence DependenceOf(const isa::Program& program, const isa::Instruction& instruction);

// Whether it works row by row on vectors, so that a chip's library runs it in one kernel with
// others like it (Chip::joins_row_work).
bool IsRowWork(isa::Opcode op);

// `joins`: it follows another of its kind without a wait between, in the same kernel; then it costs
// no issue, and finds its rows on the chip. The instruction is not wait, post or end.
// Errors: kUnsupported (the chip multiplies no such numbers), naming them.
Result<Work> Expand(const Chip& chip, const ExpandOptions& options, const isa::Program& program,
                    const isa::Instruction& instruction, const LaunchView& launch, bool joins);

}  // namespace millpower::device::chip
