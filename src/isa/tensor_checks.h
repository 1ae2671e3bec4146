// What each instruction on tensors of any rank demands of its operands and attributes: the `check`s
// of the opcode table (opcodes.cc). Operands exist, lie inside their buffers and have the elements
// of their shapes; attributes name entries of the Program's tables. Errors: kCorrupt, naming the
// operand. Internal to this folder.
#pragma once

#include "base/result.h"
#include "isa/opcodes.h"
#include "isa/sizes.h"

namespace millpower::isa {

Result<void> CheckMap(const Sizes&, const Instruction&);
Result<void> CheckReduce(const Sizes&, const Instruction&);
Result<void> CheckCopy(const Sizes&, const Instruction&);
Result<void> CheckContract(const Sizes&, const Instruction&);
Result<void> CheckConv(const Sizes&, const Instruction&);
Result<void> CheckPool(const Sizes&, const Instruction&);
Result<void> CheckTake(const Sizes&, const Instruction&);
Result<void> CheckTakeAlong(const Sizes&, const Instruction&);
Result<void> CheckGatherNd(const Sizes&, const Instruction&);
Result<void> CheckScatter(const Sizes&, const Instruction&);
Result<void> CheckEmbeddingBag(const Sizes&, const Instruction&);
Result<void> CheckSoftmax(const Sizes&, const Instruction&);
Result<void> CheckLayerNorm(const Sizes&, const Instruction&);
Result<void> CheckTopK(const Sizes&, const Instruction&);
Result<void> CheckCumulate(const Sizes&, const Instruction&);

}  // namespace millpower::isa
