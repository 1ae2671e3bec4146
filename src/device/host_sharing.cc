#include "device/host_sharing.h"

#include <algorithm>
#include <vector>

#include "isa/layout.h"
#include "isa/opcodes.h"

namespace millpower::device {

double MatMulWeightBytes(const isa::Program& program) {
  double bytes = 0;
  std::vector<bool> counted(program.buffers.size());
  for (const auto& stream : program.streams)
    for (const isa::Instruction& instruction : stream) {
      int at = isa::matmul::kW;
      if (instruction.op == isa::Opcode::kExpertMatMul)
        at = isa::expert_matmul::kW;
      else if (instruction.op != isa::Opcode::kMatMul)
        continue;
      const auto id = static_cast<size_t>(instruction.operand(at).buffer);
      if (counted[id]) continue;
      counted[id] = true;
      const isa::Buffer& w = program.buffer(instruction.operand(at));
      bytes += static_cast<double>(isa::BufferBytes(w, w.rows.size));
    }
  return bytes;
}

bool StayCached(double weight_bytes) { return weight_bytes <= (int64_t{32} << 20); }

int64_t ProductParts(int64_t threads, int64_t rows, int64_t panels, bool stay_cached) {
  constexpr int64_t kLeastRows = 24, kManyRows = 96, kPartsPerThread = 4;
  constexpr int64_t kOwnRows = 8;  // the most of one of the kernels' tiles
  if (threads == 1) return 1;
  const int64_t most = threads * kPartsPerThread;
  if (rows >= most * kManyRows) return most;
  if (stay_cached && rows >= threads * kOwnRows) return threads;
  const int64_t panels_at_least = std::max<int64_t>(1, panels);
  return std::clamp<int64_t>(rows / kLeastRows, 1, (most + panels_at_least - 1) / panels_at_least);
}

}  // namespace millpower::device
