#include "compile/compile.h"

#include "compile/passes.h"
#include "isa/verify.h"

namespace millpower::compile {

Result<Compiled> Compile(const ir::Graph& source, const Options& options) {
  TRY(ir::Verify(source));
  ir::Graph graph = source;
  Compiled compiled;
  TRY(Fuse(graph, compiled.packing));
  TRY(ir::Verify(graph));
  TRY_ASSIGN(Lowered lowered, Lower(graph, options, compiled.packing));
  const std::vector<isa::Instruction> instructions = PlanBuffers(graph, lowered);
  compiled.program = std::move(lowered.program);
  Schedule(instructions, compiled.program);
  if (const auto verified = isa::Verify(compiled.program); !verified)
    return FailAt("compiled Program is unsound", verified.error());
  return compiled;
}

}  // namespace millpower::compile
