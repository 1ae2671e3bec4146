#include "ir/op_table.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "ir/tensor_shapes.h"

namespace millpower::ir {
namespace {

// Shape rules. Each error names the operand; the caller puts the operator in front.

std::unexpected<Error> Misfit(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

Result<void> Expect(bool condition, const char* message) {
  if (condition) return {};
  return Misfit(message);
}

std::string Describe(const Use& use, size_t operand) {
  return "'" + use.value(operand).name + "' " + ToString(use.value(operand).shape);
}

// A table: any number of rows, a constant number of columns.
struct Table {
  Dim rows;
  int64_t cols = 0;
};

Result<Table> TableOf(const Use& use, size_t operand) {
  const Shape& shape = use.value(operand).shape;
  if (shape.size() != 2 || !shape[1].symbol.empty())
    return Misfit(Describe(use, operand) + " is not a table with a constant number of columns");
  return Table{shape[0], shape[1].size};
}

// A table with `rows` rows and `cols` columns, both told by an earlier operand.
Result<void> ExpectTable(const Use& use, size_t operand, const Dim& rows, int64_t cols) {
  if (use.value(operand).shape == Shape{rows, Constant(cols)}) return {};
  return Misfit(Describe(use, operand) + " is not " + ToString({rows, Constant(cols)}));
}

// A vector with a constant number of elements.
Result<int64_t> VectorOf(const Use& use, size_t operand) {
  const Shape& shape = use.value(operand).shape;
  if (shape.size() != 1 || !shape[0].symbol.empty())
    return Misfit(Describe(use, operand) + " is not a vector of constant size");
  return shape[0].size;
}

Result<void> ExpectVector(const Use& use, size_t operand, int64_t size) {
  if (use.value(operand).shape == Shape{Constant(size)}) return {};
  return Misfit(Describe(use, operand) + " is not " + ToString({Constant(size)}));
}

// A list of any number of entries.
Result<Dim> ListOf(const Use& use, size_t operand) {
  const Shape& shape = use.value(operand).shape;
  if (shape.size() != 1) return Misfit(Describe(use, operand) + " is not a list");
  return shape[0];
}

// Every index of the list points into `rows`.
Result<void> ExpectIndexOf(const Use& use, size_t operand, const Dim& rows) {
  const std::optional<Dim>& bound = use.value(operand).index_bound;
  const bool constants = bound && bound->symbol.empty() && rows.symbol.empty();
  if (bound && (*bound == rows || (constants && bound->size <= rows.size))) return {};
  return Misfit(Describe(use, operand) + " has no bound that keeps it below " + ToString({rows}));
}

Result<Shape> EmbeddingShape(const Use& use) {
  TRY_ASSIGN(const Table table, TableOf(use, 0));
  TRY_ASSIGN(const Dim rows, ListOf(use, 1));
  TRY(ExpectIndexOf(use, 1, table.rows));
  return Shape{rows, Constant(table.cols)};
}

Result<Shape> RmsNormShape(const Use& use) {
  const int64_t group = use.integer("group");
  const double epsilon = use.real("epsilon");
  TRY_ASSIGN(const Table x, TableOf(use, 0));
  TRY(Expect(group >= 1 && x.cols % group == 0, "group does not divide the columns of x"));
  TRY(ExpectVector(use, 1, group));
  TRY(Expect(epsilon >= 0 && epsilon < 1, "epsilon is not in [0, 1)"));
  return use.value(0).shape;
}

Result<Shape> LinearShape(const Use& use) {
  TRY_ASSIGN(const Table x, TableOf(use, 0));
  TRY_ASSIGN(const Table weight, TableOf(use, 1));
  TRY(ExpectTable(use, 1, weight.rows, x.cols));
  TRY(Expect(weight.rows.symbol.empty(), "weight has no constant number of rows"));
  const int64_t n = weight.rows.size;
  if (use.has(2)) TRY(ExpectVector(use, 2, n));
  if (use.has(3)) TRY(ExpectTable(use, 3, x.rows, n));
  return Shape{x.rows, Constant(n)};
}

Result<Shape> GatedLinearShape(const Use& use) {
  TRY_ASSIGN(const Table x, TableOf(use, 0));
  TRY_ASSIGN(const Table gate, TableOf(use, 1));
  TRY(ExpectTable(use, 1, gate.rows, x.cols));
  TRY(ExpectTable(use, 2, gate.rows, x.cols));
  TRY(Expect(gate.rows.symbol.empty(), "gate has no constant number of rows"));
  return Shape{x.rows, gate.rows};
}

Result<Shape> UnaryShape(const Use& use) { return use.value(0).shape; }

Result<Shape> BinaryShape(const Use& use) {
  if (use.value(0).shape == use.value(1).shape) return use.value(0).shape;
  return Misfit(Describe(use, 0) + " and " + Describe(use, 1) + " differ in shape");
}

Result<Shape> ConcatShape(const Use& use) {
  TRY_ASSIGN(Table all, TableOf(use, 0));
  for (size_t i = 1; i < use.inputs.size(); ++i) {
    TRY_ASSIGN(const Table x, TableOf(use, i));
    TRY(ExpectTable(use, i, all.rows, x.cols));
    all.cols += x.cols;
  }
  return Shape{all.rows, Constant(all.cols)};
}

Result<Shape> SliceShape(const Use& use) {
  const int64_t begin = use.integer("begin");
  const int64_t size = use.integer("size");
  TRY_ASSIGN(const Table x, TableOf(use, 0));
  TRY(Expect(begin >= 0 && size >= 1 && size <= x.cols && begin <= x.cols - size,
             "columns are outside of x"));
  return Shape{x.rows, Constant(size)};
}

Result<Shape> RopeTableShape(const Use& use) {
  TRY_ASSIGN(const Dim rows, ListOf(use, 0));
  TRY_ASSIGN(const int64_t half, VectorOf(use, 1));
  TRY(Expect(std::isfinite(use.real("scale")), "scale is not finite"));
  return Shape{rows, Constant(2 * half)};
}

Result<Shape> RopeShape(const Use& use) {
  const int64_t heads = use.integer("heads");
  TRY_ASSIGN(const Table x, TableOf(use, 0));
  TRY(Expect(heads >= 1 && x.cols % heads == 0, "heads do not divide the columns of x"));
  TRY(ExpectTable(use, 1, x.rows, x.cols / heads));
  return use.value(0).shape;
}

Result<Shape> AttentionShape(const Use& use) {
  const int64_t heads = use.integer("heads");
  const int64_t kv_heads = use.integer("kv_heads");
  const int64_t head_dim = use.integer("head_dim");
  TRY_ASSIGN(const Table q, TableOf(use, 0));
  TRY(Expect(head_dim >= 1 && q.cols % head_dim == 0 && q.cols / head_dim == heads,
             "q is not heads x head_dim wide"));
  TRY(Expect(kv_heads >= 1 && heads % kv_heads == 0, "kv_heads do not divide heads"));
  TRY(ExpectTable(use, 1, q.rows, kv_heads * head_dim));
  TRY(ExpectTable(use, 2, q.rows, kv_heads * head_dim));
  TRY_ASSIGN(const Table sequences, TableOf(use, 3));
  TRY(Expect(sequences.cols == 4, "sequences do not have 4 columns"));
  TRY(ListOf(use, 4));
  TRY(Expect(use.value(4).index_bound.has_value(), "pages have no bound"));
  TRY(Expect(use.integer("layer") >= 0, "layer is negative"));
  TRY(Expect(use.integer("window") >= 0, "window is negative"));
  TRY(Expect(std::isfinite(use.real("scale")), "scale is not finite"));
  return use.value(0).shape;
}

Result<Shape> SelectRowsShape(const Use& use) {
  TRY_ASSIGN(const Table x, TableOf(use, 0));
  TRY_ASSIGN(const Dim picked, ListOf(use, 1));
  TRY(ExpectIndexOf(use, 1, x.rows));
  return Shape{picked, Constant(x.cols)};
}

Result<Shape> SampleShape(const Use& use) {
  const int64_t words = use.integer("record_words");
  TRY_ASSIGN(const Table logits, TableOf(use, 0));
  TRY_ASSIGN(const Table params, TableOf(use, 1));
  TRY(ExpectTable(use, 1, logits.rows, params.cols));
  TRY_ASSIGN(const Dim adjusts, ListOf(use, 2));
  TRY(ExpectIndexOf(use, 2, Constant(logits.cols)));
  TRY_ASSIGN(const Table adjustments, TableOf(use, 3));
  TRY(ExpectTable(use, 3, adjusts, adjustments.cols));
  TRY(Expect(words >= 1, "record_words is not positive"));
  return Shape{logits.rows, Constant(words)};
}

Result<Shape> ExpertsShape(const Use& use) {
  const int64_t choices = use.integer("choices");
  const int64_t normalise = use.integer("normalise");
  TRY_ASSIGN(const Table x, TableOf(use, 0));
  TRY_ASSIGN(const Table router, TableOf(use, 1));
  TRY(ExpectTable(use, 1, router.rows, x.cols));
  TRY(Expect(router.rows.symbol.empty(), "router has no constant number of experts"));
  const Dim experts = router.rows;
  const Shape& gate = use.value(2).shape;
  TRY(Expect(gate.size() == 3 && gate[1].symbol.empty(), "gate is not [experts, inner, hidden]"));
  const Shape in = {experts, gate[1], Constant(x.cols)};
  const Shape out = {experts, Constant(x.cols), gate[1]};
  for (const size_t operand : {size_t{2}, size_t{3}, size_t{4}})
    if (use.value(operand).shape != (operand == 4 ? out : in))
      return Misfit(Describe(use, operand) + " is not " + ToString(operand == 4 ? out : in));
  TRY(Expect(choices >= 1 && choices <= experts.size, "choices are not 1 to the experts' number"));
  TRY(Expect(normalise == 0 || normalise == 1, "normalise is neither 0 nor 1"));
  return use.value(0).shape;
}

Result<Shape> CollectiveShape(const Use& use) {
  const int64_t kind = use.integer("kind");
  const int64_t ranks = use.graph.ranks;
  TRY_ASSIGN(const Table x, TableOf(use, 0));
  TRY(Expect(kind >= 0 && kind <= 3, "kind is none of 0 to 3"));
  TRY(Expect(kind < 2 || x.cols % ranks == 0, "the ranks do not divide the columns of x"));
  TRY(Expect(!use.has(1) || kind % 2 == 0, "only sums take a residual"));
  const int64_t cols = kind == 1 ? x.cols * ranks : kind == 2 ? x.cols / ranks : x.cols;
  if (use.has(1)) TRY(ExpectTable(use, 1, x.rows, cols));
  return Shape{x.rows, Constant(cols)};
}

using enum OperandType;

constexpr OperandInfo kEmbeddingOperands[] = {{"table"}, {"ids", kInteger}};
constexpr OperandInfo kRmsNormOperands[] = {{"x"}, {"weight"}};
constexpr OperandInfo kLinearOperands[] = {
    {"x"}, {"weight"}, {"bias", kReal, true}, {"residual", kReal, true}};
constexpr OperandInfo kGatedLinearOperands[] = {{"x"}, {"gate"}, {"up"}};
constexpr OperandInfo kUnaryOperands[] = {{"x"}};
constexpr OperandInfo kBinaryOperands[] = {{"a"}, {"b"}};
constexpr OperandInfo kRopeTableOperands[] = {{"positions", kInteger}, {"inv_freq"}};
constexpr OperandInfo kRopeOperands[] = {{"x"}, {"table"}};
constexpr OperandInfo kAttentionOperands[] = {
    {"q"}, {"k"}, {"v"}, {"sequences", kInteger}, {"pages", kInteger}};
constexpr OperandInfo kSelectRowsOperands[] = {{"x"}, {"index", kInteger}};
constexpr OperandInfo kSampleOperands[] = {
    {"logits"}, {"params", kInteger}, {"adjust_tokens", kInteger}, {"adjustments", kInteger}};
constexpr OperandInfo kExpertsOperands[] = {{"x"}, {"router"}, {"gate"}, {"up"}, {"down"}};

constexpr OperandInfo kCollectiveOperands[] = {{"x"}, {"residual", kReal, true}};

constexpr AttributeInfo kCollectiveAttributes[] = {{"kind", AttributeType::kInteger}};
constexpr AttributeInfo kRmsNormAttributes[] = {{"group", AttributeType::kInteger},
                                                {"epsilon", AttributeType::kReal}};
constexpr AttributeInfo kSliceAttributes[] = {{"begin", AttributeType::kInteger},
                                              {"size", AttributeType::kInteger}};
constexpr AttributeInfo kRopeTableAttributes[] = {{"scale", AttributeType::kReal}};
constexpr AttributeInfo kRopeAttributes[] = {{"heads", AttributeType::kInteger}};
constexpr AttributeInfo kAttentionAttributes[] = {
    {"layer", AttributeType::kInteger},    {"heads", AttributeType::kInteger},
    {"kv_heads", AttributeType::kInteger}, {"head_dim", AttributeType::kInteger},
    {"scale", AttributeType::kReal},       {"window", AttributeType::kInteger}};
constexpr AttributeInfo kSampleAttributes[] = {{"record_words", AttributeType::kInteger}};

constexpr AttributeInfo kExpertsAttributes[] = {{"choices", AttributeType::kInteger},
                                                {"normalise", AttributeType::kInteger}};

constexpr OperandInfo kMapOperands[] = {{"x", OperandType::kTensor, true}};
constexpr OperandInfo kTensorOperands[] = {{"x", OperandType::kTensor}};
constexpr OperandInfo kContractOperands[] = {{"a", OperandType::kTensor},
                                             {"b", OperandType::kTensor}};
constexpr OperandInfo kConvOperands[] = {
    {"x", OperandType::kTensor}, {"w", OperandType::kTensor}, {"bias", OperandType::kTensor, true}};
constexpr OperandInfo kTakeOperands[] = {{"x", OperandType::kTensor},
                                         {"index", OperandType::kTensor}};
constexpr OperandInfo kScatterOperands[] = {{"x", OperandType::kTensor},
                                            {"index", OperandType::kTensor},
                                            {"updates", OperandType::kTensor}};
constexpr OperandInfo kEmbeddingBagOperands[] = {{"table", OperandType::kTensor},
                                                 {"index", OperandType::kTensor},
                                                 {"offsets", OperandType::kTensor, true},
                                                 {"weights", OperandType::kTensor, true}};
constexpr OperandInfo kLayerNormOperands[] = {{"x", OperandType::kTensor},
                                              {"weight", OperandType::kTensor, true},
                                              {"bias", OperandType::kTensor, true}};

constexpr OperandInfo kDenseOperands[] = {{"x", OperandType::kTensor},
                                          {"weight", OperandType::kTensor},
                                          {"bias", OperandType::kTensor, true},
                                          {"residual", OperandType::kTensor, true}};

constexpr AttributeInfo kMapAttributes[] = {{"code", AttributeType::kList},
                                            {"sizes", AttributeType::kShape},
                                            {"shape", AttributeType::kShape}};
constexpr AttributeInfo kReduceAttributes[] = {{"kind", AttributeType::kInteger},
                                               {"axes", AttributeType::kList}};
constexpr AttributeInfo kShapeAttributes[] = {{"shape", AttributeType::kShape}};
constexpr AttributeInfo kTransposeAttributes[] = {{"perm", AttributeType::kList}};
constexpr AttributeInfo kStridedSliceAttributes[] = {{"begin", AttributeType::kShape},
                                                     {"step", AttributeType::kList},
                                                     {"shape", AttributeType::kShape}};
constexpr AttributeInfo kJoinAttributes[] = {{"axis", AttributeType::kInteger}};
constexpr AttributeInfo kPadAttributes[] = {{"before", AttributeType::kList},
                                            {"after", AttributeType::kList},
                                            {"interior", AttributeType::kList},
                                            {"value", AttributeType::kReal}};
constexpr AttributeInfo kContractAttributes[] = {{"transpose_a", AttributeType::kInteger},
                                                 {"transpose_b", AttributeType::kInteger}};
constexpr AttributeInfo kConvAttributes[] = {{"strides", AttributeType::kList},
                                             {"pads_begin", AttributeType::kList},
                                             {"pads_end", AttributeType::kList},
                                             {"dilations", AttributeType::kList},
                                             {"groups", AttributeType::kInteger}};
constexpr AttributeInfo kPoolAttributes[] = {
    {"kind", AttributeType::kInteger},  {"kernel", AttributeType::kList},
    {"strides", AttributeType::kList},  {"pads_begin", AttributeType::kList},
    {"pads_end", AttributeType::kList}, {"dilations", AttributeType::kList},
    {"out", AttributeType::kList},      {"count_padding", AttributeType::kInteger}};
constexpr AttributeInfo kTakeAttributes[] = {{"axis", AttributeType::kInteger},
                                             {"policy", AttributeType::kInteger}};
constexpr AttributeInfo kGatherNdAttributes[] = {{"batch_dims", AttributeType::kInteger},
                                                 {"policy", AttributeType::kInteger}};
constexpr AttributeInfo kScatterAttributes[] = {{"mode", AttributeType::kInteger},
                                                {"axis", AttributeType::kInteger},
                                                {"reduction", AttributeType::kInteger},
                                                {"policy", AttributeType::kInteger}};
constexpr AttributeInfo kEmbeddingBagAttributes[] = {{"mode", AttributeType::kInteger},
                                                     {"ends", AttributeType::kInteger},
                                                     {"policy", AttributeType::kInteger},
                                                     {"default_row", AttributeType::kInteger},
                                                     {"padding_row", AttributeType::kInteger}};
constexpr AttributeInfo kSoftmaxAttributes[] = {{"log", AttributeType::kInteger}};
constexpr AttributeInfo kLayerNormAttributes[] = {{"epsilon", AttributeType::kReal}};
constexpr AttributeInfo kTopKAttributes[] = {{"k", AttributeType::kInteger},
                                             {"largest", AttributeType::kInteger}};
constexpr AttributeInfo kCumulateAttributes[] = {{"kind", AttributeType::kInteger},
                                                 {"axis", AttributeType::kInteger},
                                                 {"exclusive", AttributeType::kInteger},
                                                 {"reverse", AttributeType::kInteger}};
constexpr AttributeInfo kDenseAttributes[] = {{"transposed", AttributeType::kInteger},
                                              {"relu", AttributeType::kInteger}};

// An entry whose result has the type of its first operand, or what `type` says.
constexpr OpInfo TensorOp(Op op, const char* name, std::span<const OperandInfo> operands,
                          std::span<const AttributeInfo> attributes,
                          Result<Shape> (*shape)(const Use&), bool variadic = false,
                          Result<DType> (*type)(const Use&) = FirstType) {
  return {op, name, operands, attributes, shape, DType::kF32, variadic, type};
}

constexpr std::array<OpInfo, kOpCount> kTable = {{
    {Op::kEmbedding, "embedding", kEmbeddingOperands, {}, EmbeddingShape},
    {Op::kRmsNorm, "rms_norm", kRmsNormOperands, kRmsNormAttributes, RmsNormShape},
    {Op::kLinear, "linear", kLinearOperands, {}, LinearShape},
    {Op::kGatedLinear, "gated_linear", kGatedLinearOperands, {}, GatedLinearShape},
    {Op::kSilu, "silu", kUnaryOperands, {}, UnaryShape},
    {Op::kMul, "mul", kBinaryOperands, {}, BinaryShape},
    {Op::kAdd, "add", kBinaryOperands, {}, BinaryShape},
    {Op::kConcat, "concat", kUnaryOperands, {}, ConcatShape, DType::kF32, true},
    {Op::kSlice, "slice", kUnaryOperands, kSliceAttributes, SliceShape},
    {Op::kRopeTable, "rope_table", kRopeTableOperands, kRopeTableAttributes, RopeTableShape},
    {Op::kRope, "rope", kRopeOperands, kRopeAttributes, RopeShape},
    {Op::kAttention, "attention", kAttentionOperands, kAttentionAttributes, AttentionShape},
    {Op::kSelectRows, "select_rows", kSelectRowsOperands, {}, SelectRowsShape},
    {Op::kSample, "sample", kSampleOperands, kSampleAttributes, SampleShape, DType::kI32},
    {Op::kExperts, "experts", kExpertsOperands, kExpertsAttributes, ExpertsShape},
    {Op::kCollective, "collective", kCollectiveOperands, kCollectiveAttributes, CollectiveShape},
    TensorOp(Op::kMap, "map", kMapOperands, kMapAttributes, MapShape, true, MapType),
    TensorOp(Op::kReduce, "reduce", kTensorOperands, kReduceAttributes, ReduceShape, false,
             ReduceType),
    TensorOp(Op::kReshape, "reshape", kTensorOperands, kShapeAttributes, ReshapeShape),
    TensorOp(Op::kTranspose, "transpose", kTensorOperands, kTransposeAttributes, TransposeShape),
    TensorOp(Op::kStridedSlice, "strided_slice", kTensorOperands, kStridedSliceAttributes,
             StridedSliceShape),
    TensorOp(Op::kExpand, "expand", kTensorOperands, kShapeAttributes, ExpandShape),
    TensorOp(Op::kJoin, "join", kTensorOperands, kJoinAttributes, JoinShape, true),
    TensorOp(Op::kPad, "pad", kTensorOperands, kPadAttributes, PadShape),
    TensorOp(Op::kContract, "contract", kContractOperands, kContractAttributes, ContractShape),
    TensorOp(Op::kConv, "conv", kConvOperands, kConvAttributes, ConvShape),
    TensorOp(Op::kPool, "pool", kTensorOperands, kPoolAttributes, PoolShape, false, PoolType),
    TensorOp(Op::kTake, "take", kTakeOperands, kTakeAttributes, TakeShape),
    TensorOp(Op::kTakeAlong, "take_along", kTakeOperands, kTakeAttributes, TakeAlongShape),
    TensorOp(Op::kGatherNd, "gather_nd", kTakeOperands, kGatherNdAttributes, GatherNdShape),
    TensorOp(Op::kScatter, "scatter", kScatterOperands, kScatterAttributes, ScatterShape),
    TensorOp(Op::kEmbeddingBag, "embedding_bag", kEmbeddingBagOperands, kEmbeddingBagAttributes,
             EmbeddingBagShape, false, EmbeddingBagType),
    TensorOp(Op::kSoftmax, "softmax", kTensorOperands, kSoftmaxAttributes, SoftmaxShape),
    TensorOp(Op::kLayerNorm, "layer_norm", kLayerNormOperands, kLayerNormAttributes,
             LayerNormShape),
    TensorOp(Op::kTopK, "top_k", kTensorOperands, kTopKAttributes, TopKShape, false, IndexType),
    TensorOp(Op::kCumulate, "cumulate", kTensorOperands, kCumulateAttributes, CumulateShape),
    TensorOp(Op::kDense, "dense", kDenseOperands, kDenseAttributes, DenseShape),
}};

// The table stands in the order of the operators.
static_assert([] {
  for (size_t i = 0; i < kTable.size(); ++i)
    if (static_cast<size_t>(kTable[i].op) != i) return false;
  return true;
}());

Result<void> CheckOperands(const Graph& graph, const OpInfo& info,
                           std::span<const ValueId> inputs) {
  const size_t count = info.operands.size();
  const bool may_be_none = info.variadic && info.operands.back().optional;
  if (inputs.size() < (may_be_none ? 0 : count) || (inputs.size() > count && !info.variadic))
    return Misfit("takes " + std::to_string(count) + " operands, not " +
                  std::to_string(inputs.size()));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const OperandInfo& operand = info.operands[std::min(i, count - 1)];
    if (inputs[i] == kNoValue) {
      if (!operand.optional) return Misfit(std::string("operand ") + operand.name + " is missing");
      continue;
    }
    if (inputs[i] < 0 || static_cast<size_t>(inputs[i]) >= graph.values().size())
      return Misfit(std::string("operand ") + operand.name + " is no value of the graph");
    const Value& value = graph.value(inputs[i]);
    const bool fits = operand.type == OperandType::kTensor
                          ? IsElementType(value.dtype)
                          : (value.dtype == DType::kI32) == (operand.type == kInteger);
    if (!fits)
      return Misfit(std::string("operand ") + operand.name + " ('" + value.name + "') is " +
                    Name(value.dtype));
  }
  return {};
}

Result<void> CheckAttributes(const OpInfo& info, const Attributes& attributes) {
  for (const AttributeInfo& attribute : info.attributes) {
    const auto found = attributes.find(attribute.name);
    if (found == attributes.end())
      return Misfit(std::string("attribute ") + attribute.name + " is missing");
    constexpr const char* kKinds[] = {"an integer", "a real number", "a list of integers",
                                      "a shape"};
    if (found->second.index() != static_cast<size_t>(attribute.type))
      return Misfit(std::string("attribute ") + attribute.name + " is not " +
                    kKinds[static_cast<size_t>(attribute.type)]);
  }
  // None is missing, so more than the table has means one it does not know.
  if (attributes.size() == info.attributes.size()) return {};
  return Misfit("has attributes that the operator does not know");
}

}  // namespace

const OpInfo& Info(Op op) { return kTable[static_cast<size_t>(op)]; }

const char* Name(Op op) { return Info(op).name; }

Result<Type> InferType(const Graph& graph, Op op, std::span<const ValueId> inputs,
                       const Attributes& attributes) {
  const OpInfo& info = Info(op);
  const auto infer = [&]() -> Result<Type> {
    TRY(CheckOperands(graph, info, inputs));
    TRY(CheckAttributes(info, attributes));
    const Use use{graph, inputs, attributes};
    Type type{info.output_type, {}};
    if (info.type != nullptr) {
      TRY_ASSIGN(type.dtype, info.type(use));
    }
    TRY_ASSIGN(type.shape, info.shape(use));
    return type;
  };
  auto type = infer();
  if (!type) return FailAt(info.name, std::move(type).error());
  return type;
}

}  // namespace millpower::ir
