#include "cli/workload.h"

#include "device/device.h"

namespace millpower::cli {

Workload WorkloadOf(const isa::Program& program) {
  Workload work;
  work.kv_bytes_per_position =
      static_cast<double>(device::KvPageBytes(program)) / static_cast<double>(isa::kPagePositions);
  const int32_t picked = program.FindRegister("picked");
  for (const auto& stream : program.streams) {
    for (const isa::Instruction& in : stream) {
      const bool expert = in.op == isa::Opcode::kExpertMatMul;
      if (in.op != isa::Opcode::kMatMul && !expert) continue;
      const isa::Buffer& w =
          program.buffer(in.operand(expert ? int{isa::expert_matmul::kW} : int{isa::matmul::kW}));
      double used = 1;  // of the weight's channels
      bool head = false;
      if (expert) {
        const isa::Buffer& list = program.buffer(in.operand(isa::expert_matmul::kList));
        used = static_cast<double>(list.cols) / static_cast<double>(list.heads);
      } else {
        const isa::Dim& rows = program.buffer(in.operand(isa::matmul::kY)).rows;
        head = picked >= 0 && rows.reg == picked;
      }
      const double ops = used * 2 * static_cast<double>(w.rows.size) * static_cast<double>(w.cols);
      work.step_weight_bytes += used * static_cast<double>(isa::BufferBytes(w, w.rows.size));
      (head ? work.head_ops : IsBlockType(w.dtype) ? work.int8_ops : work.float_ops) += ops;
    }
  }
  return work;
}

}  // namespace millpower::cli
