// Shape and type rules of the operators on tensors of any rank. Internal to this folder; graph.h
// says what each operator does.
#pragma once

#include "ir/op_table.h"

namespace millpower::ir {

Result<Shape> MapShape(const Use& use);
Result<DType> MapType(const Use& use);
Result<Shape> ReduceShape(const Use& use);
Result<DType> ReduceType(const Use& use);
Result<Shape> ReshapeShape(const Use& use);
Result<Shape> TransposeShape(const Use& use);
Result<Shape> StridedSliceShape(const Use& use);
Result<Shape> ExpandShape(const Use& use);
Result<Shape> JoinShape(const Use& use);
Result<Shape> PadShape(const Use& use);
Result<Shape> ContractShape(const Use& use);
Result<Shape> ConvShape(const Use& use);
Result<Shape> PoolShape(const Use& use);
Result<DType> PoolType(const Use& use);
Result<Shape> TakeShape(const Use& use);
Result<Shape> TakeAlongShape(const Use& use);
Result<Shape> GatherNdShape(const Use& use);
Result<Shape> ScatterShape(const Use& use);
Result<Shape> EmbeddingBagShape(const Use& use);
Result<DType> EmbeddingBagType(const Use& use);
Result<Shape> SoftmaxShape(const Use& use);
Result<Shape> LayerNormShape(const Use& use);
Result<Shape> TopKShape(const Use& use);
Result<Shape> CumulateShape(const Use& use);
Result<Shape> DenseShape(const Use& use);

Result<DType> FirstType(const Use& use);  // of the first operand
Result<DType> IndexType(const Use& use);  // i64

}  // namespace millpower::ir
