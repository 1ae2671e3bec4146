// Values whose lives do not overlap share buffers. Only values of one row count, width, form and
// type share, so that every operand's stride is its own width.
#include <algorithm>

#include "base/check.h"
#include "compile/passes.h"

namespace millpower::compile {
namespace {

class Planner {
 public:
  explicit Planner(Lowered& lowered) : lowered_(lowered) {
    last_use_.assign(lowered.buffer_of_value.size(), -1);
    for (size_t i = 0; i < lowered.instructions.size(); ++i)
      for (const View& view : lowered.instructions[i].operands)
        if (view.value != ir::kNoValue)
          last_use_[static_cast<size_t>(view.value)] = static_cast<int>(i);
  }

  std::vector<isa::Instruction> Run() {
    std::vector<isa::Instruction> instructions;
    for (size_t i = 0; i < lowered_.instructions.size(); ++i) {
      const LoweredInstruction& lowered = lowered_.instructions[i];
      isa::Instruction instruction = lowered.instruction;
      for (size_t j = 0; j < lowered.operands.size(); ++j)
        instruction.operands[j] = Place(lowered.operands[j]);
      instructions.push_back(instruction);
      for (const View& view : lowered.operands)
        if (view.value != ir::kNoValue &&
            last_use_[static_cast<size_t>(view.value)] == static_cast<int>(i))
          Release(view.value);
    }
    return instructions;
  }

 private:
  isa::Operand Place(const View& view) {
    if (view.buffer != isa::kNoBuffer) return {view.buffer, 0, view.cols, view.shape};
    if (view.value == ir::kNoValue) return {};
    int32_t& buffer = lowered_.buffer_of_value[static_cast<size_t>(view.value)];
    if (buffer < 0) buffer = Claim(view.value);
    return {buffer, view.begin, view.cols, view.shape};
  }

  int32_t Claim(ir::ValueId id) {
    isa::Buffer wanted = lowered_.scratch[static_cast<size_t>(id)];
    CHECK(wanted.cols > 0) << "value " << id << " has no place";
    const auto fits = std::ranges::find_if(free_, [&](int32_t free) {
      const isa::Buffer& buffer = lowered_.program.buffers[static_cast<size_t>(free)];
      wanted.name = buffer.name;
      return buffer == wanted;
    });
    if (fits != free_.end()) {
      const int32_t buffer = *fits;
      free_.erase(fits);
      return buffer;
    }
    wanted.name = "scratch." + std::to_string(scratch_count_++);
    lowered_.program.buffers.push_back(std::move(wanted));
    return static_cast<int32_t>(lowered_.program.buffers.size()) - 1;
  }

  // An operand may name a value twice; it is released once.
  void Release(ir::ValueId id) {
    const int32_t buffer = lowered_.buffer_of_value[static_cast<size_t>(id)];
    const bool scratch =
        lowered_.program.buffers[static_cast<size_t>(buffer)].kind == isa::BufferKind::kScratch;
    if (scratch && std::ranges::find(free_, buffer) == free_.end()) free_.push_back(buffer);
  }

  Lowered& lowered_;
  std::vector<int> last_use_;  // by value: the last instruction that touches it
  std::vector<int32_t> free_;  // scratch buffers that hold nothing live
  int scratch_count_ = 0;
};

}  // namespace

std::vector<isa::Instruction> PlanBuffers(Lowered& lowered) { return Planner(lowered).Run(); }

}  // namespace millpower::compile
