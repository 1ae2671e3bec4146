#include "device/cpu/conflicts.h"

#include <algorithm>

namespace millpower::device::cpu {
namespace {

struct Access {
  int64_t begin, end;  // columns
  int32_t place;
  bool write;
};

}  // namespace

std::vector<std::vector<int32_t>> FindConflicts(const isa::Program& program,
                                                const std::vector<isa::Instruction>& order) {
  std::vector<std::vector<int32_t>> conflicts(order.size());
  std::vector<std::vector<Access>> accesses(program.buffers.size());  // that may matter later
  for (size_t i = 0; i < order.size(); ++i) {
    const auto place = static_cast<int32_t>(i);
    const isa::OpInfo& info = isa::Info(order[i].op);
    for (size_t j = 0; j < info.operands.size(); ++j) {
      const isa::Operand& operand = order[i].operands[j];
      if (!operand.present()) continue;
      const isa::BufferKind kind = program.buffer(operand).kind;
      if (kind == isa::BufferKind::kWeight || kind == isa::BufferKind::kInput) continue;
      const bool write = info.operands[j].access != isa::Access::kRead;
      const int64_t begin = operand.begin, end = operand.begin + operand.cols;
      auto& earlier = accesses[static_cast<size_t>(operand.buffer)];
      for (const Access& access : earlier)
        if (access.place != place && (write || access.write) && access.begin < end &&
            begin < access.end)
          conflicts[i].push_back(access.place);
      // Who comes after a write comes after what the write had to come after.
      if (write)
        std::erase_if(earlier, [&](const Access& access) {
          return begin <= access.begin && access.end <= end;
        });
      earlier.push_back({begin, end, place, write});
    }
    std::ranges::sort(conflicts[i]);
    const auto repeated = std::ranges::unique(conflicts[i]);
    conflicts[i].erase(repeated.begin(), repeated.end());
  }
  return conflicts;
}

}  // namespace millpower::device::cpu
