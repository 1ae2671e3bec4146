#include "isa/opcodes.h"

#include <array>
#include <cmath>
#include <limits>

#include "isa/program.h"
#include "isa/sampling.h"
#include "isa/sizes.h"
#include "isa/tensor_checks.h"

namespace millpower::isa {
namespace {

// Shape rules. Each returns an error that names the operand; verify.cc adds the instruction.

std::unexpected<Error> Misfit(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

Result<void> Expect(bool condition, const char* message) {
  if (condition) return {};
  return Misfit(message);
}

// `operand` is row-major of the given type.
Result<void> ExpectRows(const Program& program, const Instruction& instruction, int operand,
                        DType type) {
  const Buffer& buffer = program.buffer(instruction.operand(operand));
  if (buffer.form == Form::kRows && buffer.dtype == type) return {};
  return Misfit(std::string("operand ") +
                Info(instruction.op).operands[static_cast<size_t>(operand)].name + " (" +
                buffer.name + ") is " + Name(buffer.dtype) + " " + Name(buffer.form) + ", not " +
                Name(type) + " rows");
}

Result<void> ExpectSameRows(const Program& program, const Instruction& instruction, int a, int b) {
  const Buffer& first = program.buffer(instruction.operand(a));
  const Buffer& second = program.buffer(instruction.operand(b));
  if (first.rows == second.rows) return {};
  return Misfit(first.name + " and " + second.name + " have different row counts");
}

// `operand` is one row of `cols` f32 values.
Result<void> ExpectVector(const Program& program, const Instruction& instruction, int operand,
                          int64_t cols) {
  TRY(ExpectRows(program, instruction, operand, DType::kF32));
  const Buffer& buffer = program.buffer(instruction.operand(operand));
  if (buffer.rows == Dim{-1, 1} && instruction.operand(operand).cols == cols) return {};
  return Misfit(buffer.name + " is not one row of " + std::to_string(cols) + " values");
}

// Whether they share no columns of a buffer.
bool AreApart(const Operand& a, const Operand& b) {
  return a.buffer != b.buffer || a.begin + a.cols <= b.begin || b.begin + b.cols <= a.begin;
}

// As a float32, which kernels take it as.
bool IsFinite(double value) { return std::abs(value) <= std::numeric_limits<float>::max(); }

bool IsFloatWeight(DType type) { return type == DType::kF32 || type == DType::kBf16; }

// `operand` is activations: f32 rows, or quantised in the type that goes with the weight's.
Result<void> ExpectActivations(const Program& program, const Instruction& instruction, int operand,
                               DType weight_type) {
  const Buffer& x = program.buffer(instruction.operand(operand));
  if (IsFloatWeight(weight_type) || x.form != Form::kQuantised)
    return ExpectRows(program, instruction, operand, DType::kF32);
  const DType wanted = weight_type == DType::kF8E4M3 ? DType::kF8E4M3 : DType::kI8;
  if (x.dtype == wanted) return {};
  return Misfit(std::string("a weight in ") + Name(weight_type) + " takes no x quantised to " +
                Name(x.dtype));
}

Result<void> CheckEnd(const Program&, const Instruction&) { return {}; }

Result<void> CheckSync(const Program& program, const Instruction& instruction) {
  const int64_t semaphore = instruction.integer(sync::kSemaphore);
  const int64_t count = instruction.integer(sync::kCount);
  TRY(Expect(semaphore >= 0 && semaphore < program.semaphores, "semaphore is not declared"));
  return Expect(count >= 1 && count <= 1 << 20, "count is not in 1..2^20");
}

Result<void> CheckGather(const Program& program, const Instruction& instruction) {
  const Operand& table = instruction.operand(gather::kTable);
  const Operand& index = instruction.operand(gather::kIndex);
  const Operand& y = instruction.operand(gather::kY);
  const Buffer& source = program.buffer(table);
  TRY(Expect(
      source.form == Form::kPacked || (source.form == Form::kRows && source.dtype == DType::kF32),
      "table is neither packed nor f32 rows"));
  TRY(ExpectRows(program, instruction, gather::kIndex, DType::kI32));
  TRY(ExpectRows(program, instruction, gather::kY, DType::kF32));
  TRY(ExpectSameRows(program, instruction, gather::kIndex, gather::kY));
  TRY(Expect(index.cols == 1, "index has more than one column"));
  TRY(Expect(table.buffer != y.buffer, "y overwrites the table"));
  TRY(Expect(table.cols == y.cols, "table and y differ in columns"));
  const Buffer& indices = program.buffer(index);
  TRY(Expect(indices.kind == BufferKind::kInput && indices.has_bound,
             "index is not an input with a declared bound"));
  // Equal registers bound each other at every launch; otherwise the worst case must fit.
  return Expect(indices.bound == source.rows ||
                    (source.rows.reg < 0 && program.Max(indices.bound) <= source.rows.size),
                "index may point past the table's rows");
}

Result<void> CheckRmsNorm(const Program& program, const Instruction& instruction) {
  const Operand& x = instruction.operand(rms_norm::kX);
  const Operand& y = instruction.operand(rms_norm::kY);
  const int64_t group = instruction.integer(rms_norm::kGroup);
  const double epsilon = instruction.real(rms_norm::kEpsilon);
  TRY(ExpectRows(program, instruction, rms_norm::kX, DType::kF32));
  TRY(ExpectRows(program, instruction, rms_norm::kY, DType::kF32));
  TRY(ExpectSameRows(program, instruction, rms_norm::kX, rms_norm::kY));
  TRY(Expect(x.cols == y.cols, "x and y differ in columns"));
  TRY(Expect(group >= 1 && x.cols % group == 0, "group does not divide the columns"));
  TRY(ExpectVector(program, instruction, rms_norm::kWeight, group));
  return Expect(epsilon >= 0 && epsilon < 1, "epsilon is not in [0, 1)");
}

Result<void> CheckMatMul(const Program& program, const Instruction& instruction) {
  const Operand& x = instruction.operand(matmul::kX);
  const Operand& bias = instruction.operand(matmul::kBias);
  const Operand& residual = instruction.operand(matmul::kResidual);
  const Operand& y = instruction.operand(matmul::kY);
  const Buffer& w = program.buffer(instruction.operand(matmul::kW));
  const auto epilogue = static_cast<Epilogue>(instruction.integer(matmul::kEpilogue));
  TRY(Expect(w.form == Form::kPacked, "w is not a packed weight"));
  TRY(ExpectActivations(program, instruction, matmul::kX, w.dtype));
  TRY(ExpectRows(program, instruction, matmul::kY, DType::kF32));
  TRY(ExpectSameRows(program, instruction, matmul::kX, matmul::kY));
  TRY(Expect(x.cols == w.cols, "x and w differ in reduction steps"));
  TRY(Expect(AreApart(x, y), "y overwrites x"));
  const bool gate = epilogue == Epilogue::kSiluGate;
  TRY(Expect(!gate || w.rows.size % (2 * kLanes) == 0,
             "a gated weight's channels are not a multiple of 32"));
  TRY(Expect(y.cols == (gate ? w.rows.size / 2 : w.rows.size), "y and w differ in channels"));
  TRY(Expect(!gate || !bias.present(), "a gated matmul takes no bias"));
  if (bias.present()) TRY(ExpectVector(program, instruction, matmul::kBias, w.rows.size));
  const bool takes_residual = epilogue == Epilogue::kAdd || epilogue == Epilogue::kSiluMul;
  TRY(Expect(residual.present() == takes_residual, "residual and epilogue do not agree"));
  if (!residual.present()) return {};
  TRY(ExpectRows(program, instruction, matmul::kResidual, DType::kF32));
  TRY(ExpectSameRows(program, instruction, matmul::kResidual, matmul::kY));
  TRY(Expect(residual.begin == y.begin || AreApart(residual, y), "residual and y overlap in part"));
  return Expect(residual.cols == y.cols, "residual and y differ in columns");
}

Result<void> CheckRopeTable(const Program& program, const Instruction& instruction) {
  const Operand& table = instruction.operand(rope_table::kTable);
  TRY(ExpectRows(program, instruction, rope_table::kPositions, DType::kI32));
  TRY(ExpectRows(program, instruction, rope_table::kTable, DType::kF32));
  TRY(ExpectSameRows(program, instruction, rope_table::kPositions, rope_table::kTable));
  TRY(Expect(program.buffer(instruction.operand(rope_table::kPositions)).cols == 1,
             "positions have more than one column"));
  TRY(Expect(table.begin == 0 && table.cols == program.buffer(table).cols,
             "table is not a whole buffer"));
  TRY(Expect(table.cols % 2 == 0, "table has an odd number of columns"));
  TRY(ExpectVector(program, instruction, rope_table::kInvFreq, table.cols / 2));
  return Expect(IsFinite(instruction.real(rope_table::kScale)), "scale is not finite");
}

Result<void> CheckRope(const Program& program, const Instruction& instruction) {
  const Operand& x = instruction.operand(rope::kX);
  const Operand& table = instruction.operand(rope::kTable);
  const int64_t heads = instruction.integer(rope::kHeads);
  TRY(ExpectRows(program, instruction, rope::kX, DType::kF32));
  TRY(ExpectRows(program, instruction, rope::kTable, DType::kF32));
  TRY(ExpectSameRows(program, instruction, rope::kX, rope::kTable));
  TRY(Expect(x.buffer != table.buffer, "x and table are one buffer"));
  TRY(Expect(table.begin == 0 && table.cols == program.buffer(table).cols && table.cols % 2 == 0,
             "table is not a whole rope table"));
  return Expect(heads >= 1 && heads <= x.cols && heads * table.cols == x.cols,
                "heads times the table's width is not x's width");
}

// `sequences` and `pages` are a work list over `kv`; the rows it names are bounded by `rows`.
Result<void> CheckWorkList(const Program& program, const Operand& sequences, const Operand& pages,
                           const Operand& kv) {
  const Buffer& list = program.buffer(sequences);
  const Buffer& entries = program.buffer(pages);
  const Buffer& cache = program.buffer(kv);
  TRY(Expect(list.kind == BufferKind::kInput && list.dtype == DType::kI32 &&
                 list.form == Form::kRows && list.cols == kSequenceColumns &&
                 sequences.cols == kSequenceColumns,
             "sequences is not an input of 4 columns"));
  TRY(Expect(cache.kind == BufferKind::kKv && cache.form == Form::kPages, "kv is not a KV cache"));
  return Expect(entries.kind == BufferKind::kInput && entries.dtype == DType::kI32 &&
                    entries.form == Form::kRows && entries.cols == 1 && entries.has_bound &&
                    entries.bound == cache.rows,
                "pages is not an input bounded by the KV cache's pages");
}

Result<void> CheckKvAppend(const Program& program, const Instruction& instruction) {
  const Operand& k = instruction.operand(kv_append::kK);
  const Operand& v = instruction.operand(kv_append::kV);
  const Operand& kv = instruction.operand(kv_append::kKv);
  TRY(CheckWorkList(program, instruction.operand(kv_append::kSequences),
                    instruction.operand(kv_append::kPages), kv));
  TRY(ExpectRows(program, instruction, kv_append::kK, DType::kF32));
  TRY(ExpectRows(program, instruction, kv_append::kV, DType::kF32));
  TRY(ExpectSameRows(program, instruction, kv_append::kK, kv_append::kV));
  const Buffer& cache = program.buffer(kv);
  return Expect(k.cols == cache.heads * cache.cols && v.cols == k.cols,
                "k and v are not as wide as the cache's heads");
}

Result<void> CheckAttention(const Program& program, const Instruction& instruction) {
  const Operand& q = instruction.operand(attention::kQ);
  const Operand& kv = instruction.operand(attention::kKv);
  const Operand& out = instruction.operand(attention::kOut);
  const int64_t heads = instruction.integer(attention::kHeads);
  TRY(CheckWorkList(program, instruction.operand(attention::kSequences),
                    instruction.operand(attention::kPages), kv));
  TRY(ExpectRows(program, instruction, attention::kQ, DType::kF32));
  TRY(ExpectRows(program, instruction, attention::kOut, DType::kF32));
  TRY(ExpectSameRows(program, instruction, attention::kQ, attention::kOut));
  const Buffer& cache = program.buffer(kv);
  TRY(Expect(heads >= 1 && heads <= q.cols && heads % cache.heads == 0,
             "heads are not a multiple of the cache's heads"));
  TRY(Expect(q.cols == heads * cache.cols && out.cols == q.cols,
             "q and out are not heads times head_dim wide"));
  TRY(Expect(q.buffer != out.buffer, "out overwrites q"));
  const int64_t window = instruction.integer(attention::kWindow);
  TRY(Expect(window >= 0 && window <= kMaxRows, "window is not in 0..2^31"));
  return Expect(IsFinite(instruction.real(attention::kScale)), "scale is not finite");
}

constexpr int64_t kMaxVocab = 1 << 24;

Result<void> CheckSample(const Program& program, const Instruction& instruction) {
  const Operand& tokens = instruction.operand(sample::kAdjustTokens);
  const Operand& adjustments = instruction.operand(sample::kAdjustments);
  TRY(ExpectRows(program, instruction, sample::kLogits, DType::kF32));
  TRY(ExpectRows(program, instruction, sample::kParams, DType::kI32));
  TRY(ExpectRows(program, instruction, sample::kAdjustTokens, DType::kI32));
  TRY(ExpectRows(program, instruction, sample::kAdjustments, DType::kI32));
  TRY(ExpectRows(program, instruction, sample::kRecord, DType::kI32));
  TRY(ExpectSameRows(program, instruction, sample::kLogits, sample::kParams));
  TRY(ExpectSameRows(program, instruction, sample::kLogits, sample::kRecord));
  TRY(ExpectSameRows(program, instruction, sample::kAdjustTokens, sample::kAdjustments));
  const int64_t vocab = instruction.operand(sample::kLogits).cols;
  TRY(Expect(vocab <= kMaxVocab, "logits are wider than 2^24"));
  TRY(Expect(instruction.operand(sample::kParams).cols == kSampleParamWords,
             "params are not one sampling record wide"));
  const Buffer& list = program.buffer(tokens);
  TRY(Expect(list.kind == BufferKind::kInput && list.cols == 1 && list.has_bound &&
                 program.Max(list.bound) <= vocab,
             "adjust_tokens is not an input of tokens below the vocabulary"));
  TRY(Expect(adjustments.cols == kSampleAdjustmentWords,
             "adjustments are not one adjustment wide"));
  return Expect(instruction.operand(sample::kRecord).cols == kSampleRecordWords,
                "record is not one result wide");
}

Result<void> CheckQuantise(const Program& program, const Instruction& instruction) {
  const Operand& x = instruction.operand(quantise::kX);
  const Operand& y = instruction.operand(quantise::kY);
  TRY(ExpectRows(program, instruction, quantise::kX, DType::kF32));
  TRY(ExpectSameRows(program, instruction, quantise::kX, quantise::kY));
  TRY(Expect(program.buffer(y).form == Form::kQuantised, "y is not quantised"));
  return Expect(x.cols == y.cols, "x and y differ in columns");
}

Result<void> CheckRoute(const Program& program, const Instruction& instruction) {
  const Buffer& list = program.buffer(instruction.operand(route::kList));
  const int64_t normalise = instruction.integer(route::kNormalise);
  TRY(ExpectRows(program, instruction, route::kLogits, DType::kF32));
  TRY(ExpectRows(program, instruction, route::kWeights, DType::kF32));
  TRY(ExpectSameRows(program, instruction, route::kLogits, route::kList));
  TRY(ExpectSameRows(program, instruction, route::kLogits, route::kWeights));
  TRY(Expect(list.form == Form::kExperts, "list is not an expert list"));
  TRY(Expect(
      instruction.operand(route::kLogits).buffer != instruction.operand(route::kWeights).buffer,
      "weights overwrite the logits"));
  TRY(Expect(instruction.operand(route::kLogits).cols == list.heads,
             "logits and list differ in experts"));
  TRY(Expect(instruction.operand(route::kWeights).cols == list.cols,
             "weights and list differ in choices"));
  return Expect(normalise == 0 || normalise == 1, "normalise is neither 0 nor 1");
}

Result<void> CheckExpertMatMul(const Program& program, const Instruction& instruction) {
  const Operand& x = instruction.operand(expert_matmul::kX);
  const Operand& y = instruction.operand(expert_matmul::kY);
  const Buffer& w = program.buffer(instruction.operand(expert_matmul::kW));
  const Buffer& list = program.buffer(instruction.operand(expert_matmul::kList));
  const auto epilogue = static_cast<Epilogue>(instruction.integer(expert_matmul::kEpilogue));
  TRY(Expect(w.form == Form::kPacked, "w is not a packed weight"));
  TRY(Expect(list.form == Form::kExperts, "list is not an expert list"));
  TRY(ExpectActivations(program, instruction, expert_matmul::kX, w.dtype));
  TRY(ExpectRows(program, instruction, expert_matmul::kY, DType::kF32));
  TRY(ExpectSameRows(program, instruction, expert_matmul::kX, expert_matmul::kList));
  TRY(ExpectSameRows(program, instruction, expert_matmul::kX, expert_matmul::kY));
  TRY(Expect(x.buffer != y.buffer, "y overwrites x"));
  const bool gate = epilogue == Epilogue::kSiluGate;
  TRY(Expect(gate || epilogue == Epilogue::kNone, "epilogue is neither none nor silu_gate"));
  TRY(Expect(w.rows.size % (list.heads * (gate ? 2 : 1) * kLanes) == 0,
             "w is not whole blocks of 16 channels for each expert"));
  const int64_t n = w.rows.size / list.heads / (gate ? 2 : 1);
  TRY(Expect(y.cols % list.cols == 0 && y.cols / list.cols <= n && y.cols / list.cols > n - kLanes,
             "y is not as wide as the channels of all choices"));
  const bool per_choice = x.cols != w.cols;
  TRY(Expect(!per_choice || (x.cols % list.cols == 0 && x.cols / list.cols == w.cols),
             "x is as wide neither as w nor as w for all choices"));
  const bool in_groups =
      program.buffer(x).form == Form::kQuantised && program.buffer(x).dtype == DType::kI8;
  return Expect(!per_choice || !in_groups || w.cols % kQuantGroup == 0,
                "the choices of a quantised x do not begin at whole groups");
}

Result<void> CheckCombine(const Program& program, const Instruction& instruction) {
  const Operand& x = instruction.operand(combine::kX);
  const Operand& weights = instruction.operand(combine::kWeights);
  const Operand& residual = instruction.operand(combine::kResidual);
  const Operand& y = instruction.operand(combine::kY);
  for (const int operand : {combine::kX, combine::kWeights, combine::kY}) {
    TRY(ExpectRows(program, instruction, operand, DType::kF32));
    TRY(ExpectSameRows(program, instruction, operand, combine::kY));
  }
  TRY(Expect(x.buffer != y.buffer && weights.buffer != y.buffer, "y overwrites x or weights"));
  TRY(Expect(
      weights.cols <= kMaxChoices && x.cols % weights.cols == 0 && x.cols / weights.cols == y.cols,
      "x is not as wide as y for all choices"));
  if (!residual.present()) return {};
  TRY(ExpectRows(program, instruction, combine::kResidual, DType::kF32));
  TRY(ExpectSameRows(program, instruction, combine::kResidual, combine::kY));
  TRY(Expect(residual.buffer != y.buffer || residual.begin == y.begin,
             "residual and y overlap in part"));
  return Expect(residual.cols == y.cols, "residual and y differ in columns");
}

Result<void> CheckCollective(const Program& program, const Instruction& instruction) {
  const Operand& x = instruction.operand(collective::kX);
  const Operand& residual = instruction.operand(collective::kResidual);
  const Operand& y = instruction.operand(collective::kY);
  const auto kind = static_cast<Collective>(instruction.integer(collective::kKind));
  TRY(ExpectRows(program, instruction, collective::kX, DType::kF32));
  TRY(ExpectRows(program, instruction, collective::kY, DType::kF32));
  TRY(ExpectSameRows(program, instruction, collective::kX, collective::kY));
  const bool sums = kind == Collective::kAllReduce || kind == Collective::kReduceScatter;
  const bool fits = kind == Collective::kAllReduce   ? x.cols == y.cols
                    : kind == Collective::kAllGather ? y.cols == x.cols * program.ranks
                    : kind == Collective::kReduceScatter
                        ? x.cols == y.cols * program.ranks
                        : x.cols == y.cols && x.cols % program.ranks == 0;
  TRY(Expect(fits, "x and y are not as wide as the kind has it"));
  TRY(Expect(AreApart(x, y) || (kind == Collective::kAllReduce && x == y), "y overwrites x"));
  if (!residual.present()) return {};
  TRY(Expect(sums, "only sums take a residual"));
  TRY(ExpectRows(program, instruction, collective::kResidual, DType::kF32));
  TRY(ExpectSameRows(program, instruction, collective::kResidual, collective::kY));
  return Expect(residual.cols == y.cols, "residual and y differ in columns");
}

using enum Access;
using enum AttributeType;

constexpr AttributeInfo kSyncAttributes[] = {{"semaphore", kInteger}, {"count", kInteger}};
constexpr OperandInfo kGatherOperands[] = {{"table", kRead}, {"index", kRead}, {"y", kWrite}};
constexpr OperandInfo kRmsNormOperands[] = {{"x", kRead}, {"weight", kRead}, {"y", kWrite}};
constexpr AttributeInfo kRmsNormAttributes[] = {{"group", kInteger}, {"epsilon", kReal}};
constexpr OperandInfo kMatMulOperands[] = {
    {"x", kRead}, {"w", kRead}, {"bias", kRead, true}, {"residual", kRead, true}, {"y", kWrite}};
constexpr AttributeInfo kMatMulAttributes[] = {{"epilogue", AttributeType::kEpilogue}};
constexpr OperandInfo kRopeTableOperands[] = {
    {"positions", kRead}, {"inv_freq", kRead}, {"table", kWrite}};
constexpr AttributeInfo kRopeTableAttributes[] = {{"scale", kReal}};
constexpr OperandInfo kRopeOperands[] = {{"x", kReadWrite}, {"table", kRead}};
constexpr AttributeInfo kRopeAttributes[] = {{"heads", kInteger}};
constexpr OperandInfo kKvAppendOperands[] = {
    {"k", kRead}, {"v", kRead}, {"sequences", kRead}, {"pages", kRead}, {"kv", kReadWrite}};
constexpr OperandInfo kAttentionOperands[] = {
    {"q", kRead}, {"sequences", kRead}, {"pages", kRead}, {"kv", kRead}, {"out", kWrite}};
constexpr AttributeInfo kAttentionAttributes[] = {
    {"heads", kInteger}, {"scale", kReal}, {"window", kInteger}};
constexpr OperandInfo kSampleOperands[] = {{"logits", kRead},
                                           {"params", kRead},
                                           {"adjust_tokens", kRead},
                                           {"adjustments", kRead},
                                           {"record", kWrite}};
constexpr OperandInfo kQuantiseOperands[] = {{"x", kRead}, {"y", kWrite}};
constexpr OperandInfo kRouteOperands[] = {{"logits", kRead}, {"list", kWrite}, {"weights", kWrite}};
constexpr AttributeInfo kRouteAttributes[] = {{"normalise", kInteger}};
constexpr OperandInfo kExpertMatMulOperands[] = {
    {"x", kRead}, {"w", kRead}, {"list", kRead}, {"y", kWrite}};
constexpr OperandInfo kCombineOperands[] = {
    {"x", kRead}, {"weights", kRead}, {"residual", kRead, true}, {"y", kWrite}};

constexpr OperandInfo kMapOperands[] = {
    {"x0", kRead, true}, {"x1", kRead, true}, {"x2", kRead, true},
    {"x3", kRead, true}, {"x4", kRead, true}, {"x5", kRead, true},
    {"x6", kRead, true}, {"x7", kRead, true}, {"y", kWrite}};
constexpr AttributeInfo kMapAttributes[] = {{"code", kCode}, {"sizes", kSizes}};
constexpr OperandInfo kUnaryOperands[] = {{"x", kRead}, {"y", kWrite}};
constexpr AttributeInfo kReduceAttributes[] = {{"kind", kInteger}, {"axes", kList}};
constexpr AttributeInfo kCopyAttributes[] = {{"perm", kList},    {"begin", kSizes}, {"step", kList},
                                             {"window", kSizes}, {"at", kSizes},    {"gap", kList}};
constexpr OperandInfo kContractOperands[] = {{"a", kRead}, {"b", kRead}, {"y", kWrite}};
constexpr AttributeInfo kContractAttributes[] = {{"transpose_a", kInteger},
                                                 {"transpose_b", kInteger}};
constexpr OperandInfo kConvOperands[] = {
    {"x", kRead}, {"w", kRead}, {"bias", kRead, true}, {"y", kWrite}};
constexpr AttributeInfo kConvAttributes[] = {{"strides", kList},
                                             {"pads_begin", kList},
                                             {"pads_end", kList},
                                             {"dilations", kList},
                                             {"groups", kInteger}};
constexpr AttributeInfo kPoolAttributes[] = {
    {"kind", kInteger},  {"kernel", kList},    {"strides", kList},         {"pads_begin", kList},
    {"pads_end", kList}, {"dilations", kList}, {"count_padding", kInteger}};
constexpr OperandInfo kTakeOperands[] = {{"x", kRead}, {"index", kRead}, {"y", kWrite}};
constexpr AttributeInfo kTakeAttributes[] = {{"axis", kInteger}, {"policy", kInteger}};
constexpr AttributeInfo kGatherNdAttributes[] = {{"batch_dims", kInteger}, {"policy", kInteger}};
constexpr OperandInfo kScatterOperands[] = {
    {"index", kRead}, {"updates", kRead}, {"y", kReadWrite}};
constexpr AttributeInfo kScatterAttributes[] = {
    {"mode", kInteger}, {"axis", kInteger}, {"reduction", kInteger}, {"policy", kInteger}};
constexpr OperandInfo kEmbeddingBagOperands[] = {{"table", kRead},
                                                 {"index", kRead},
                                                 {"offsets", kRead, true},
                                                 {"weights", kRead, true},
                                                 {"y", kWrite}};
constexpr AttributeInfo kEmbeddingBagAttributes[] = {{"mode", kInteger},
                                                     {"ends", kInteger},
                                                     {"policy", kInteger},
                                                     {"default_row", kInteger},
                                                     {"padding_row", kInteger}};
constexpr AttributeInfo kSoftmaxAttributes[] = {{"log", kInteger}};
constexpr OperandInfo kLayerNormOperands[] = {
    {"x", kRead}, {"weight", kRead, true}, {"bias", kRead, true}, {"y", kWrite}};
constexpr AttributeInfo kLayerNormAttributes[] = {{"epsilon", kReal}};
constexpr AttributeInfo kTopKAttributes[] = {{"largest", kInteger}};
constexpr AttributeInfo kCumulateAttributes[] = {
    {"kind", kInteger}, {"axis", kInteger}, {"exclusive", kInteger}, {"reverse", kInteger}};

constexpr OperandInfo kCollectiveOperands[] = {
    {"x", kRead}, {"residual", kRead, true}, {"y", kWrite}};
constexpr AttributeInfo kCollectiveAttributes[] = {{"kind", AttributeType::kCollective}};

constexpr std::array<OpInfo, kOpcodeCount> kTable = {{
    {Opcode::kEnd, "end", "ends a stream", {}, {}, CheckEnd},
    {Opcode::kWait,
     "wait",
     "takes counts from a semaphore once it has them",
     {},
     kSyncAttributes,
     CheckSync},
    {Opcode::kPost, "post", "adds counts to a semaphore", {}, kSyncAttributes, CheckSync},
    {Opcode::kGather,
     "gather",
     "copies the rows of a table that an index names",
     kGatherOperands,
     {},
     CheckGather},
    {Opcode::kRmsNorm, "rms_norm", "divides by the root mean square of each group of columns",
     kRmsNormOperands, kRmsNormAttributes, CheckRmsNorm},
    {Opcode::kMatMul, "matmul", "multiplies by a packed weight, with a fused epilogue",
     kMatMulOperands, kMatMulAttributes, CheckMatMul},
    {Opcode::kRopeTable, "rope_table", "cosines and sines of the rows' positions",
     kRopeTableOperands, kRopeTableAttributes, CheckRopeTable},
    {Opcode::kRope, "rope", "rotates heads by their row's position", kRopeOperands, kRopeAttributes,
     CheckRope},
    {Opcode::kKvAppend,
     "kv_append",
     "stores keys and values into KV pages",
     kKvAppendOperands,
     {},
     CheckKvAppend},
    {Opcode::kAttention, "attention", "causal attention over paged keys and values",
     kAttentionOperands, kAttentionAttributes, CheckAttention},
    {Opcode::kSample,
     "sample",
     "draws a token from each row of logits",
     kSampleOperands,
     {},
     CheckSample},
    {Opcode::kQuantise,
     "quantise",
     "rounds activations to 8 bits, with scales",
     kQuantiseOperands,
     {},
     CheckQuantise},
    {Opcode::kRoute, "route", "chooses experts for each row, and lists who works on what",
     kRouteOperands, kRouteAttributes, CheckRoute},
    {Opcode::kExpertMatMul, "expert_matmul", "multiplies each row by its experts' packed weights",
     kExpertMatMulOperands, kMatMulAttributes, CheckExpertMatMul},
    {Opcode::kCombine,
     "combine",
     "weighs and adds up what the experts made of each row",
     kCombineOperands,
     {},
     CheckCombine},
    {Opcode::kMap, "map", "computes each element by an expression", kMapOperands, kMapAttributes,
     nullptr, CheckMap},
    {Opcode::kReduce, "reduce", "reduces axes to one element", kUnaryOperands, kReduceAttributes,
     nullptr, CheckReduce},
    {Opcode::kCopy, "copy", "moves a strided, permuted window of elements", kUnaryOperands,
     kCopyAttributes, nullptr, CheckCopy},
    {Opcode::kContract, "contract", "multiplies stacks of matrices", kContractOperands,
     kContractAttributes, nullptr, CheckContract},
    {Opcode::kConv, "conv", "convolves images", kConvOperands, kConvAttributes, nullptr, CheckConv},
    {Opcode::kPool, "pool", "reduces windows of images", kUnaryOperands, kPoolAttributes, nullptr,
     CheckPool},
    {Opcode::kTake, "take", "takes the slices of an axis that an index names", kTakeOperands,
     kTakeAttributes, nullptr, CheckTake},
    {Opcode::kTakeAlong, "take_along", "takes one element of an axis for each index", kTakeOperands,
     kTakeAttributes, nullptr, CheckTakeAlong},
    {Opcode::kGatherNd, "gather_nd", "takes the slices that tuples of indices name", kTakeOperands,
     kGatherNdAttributes, nullptr, CheckGatherNd},
    {Opcode::kScatter, "scatter", "changes the elements that an index names", kScatterOperands,
     kScatterAttributes, nullptr, CheckScatter},
    {Opcode::kEmbeddingBag, "embedding_bag", "pools the rows of a table that each bag names",
     kEmbeddingBagOperands, kEmbeddingBagAttributes, nullptr, CheckEmbeddingBag},
    {Opcode::kSoftmax, "softmax", "softmax along the last axis", kUnaryOperands, kSoftmaxAttributes,
     nullptr, CheckSoftmax},
    {Opcode::kLayerNorm, "layer_norm", "normalises along the last axis", kLayerNormOperands,
     kLayerNormAttributes, nullptr, CheckLayerNorm},
    {Opcode::kTopK, "top_k", "finds the largest elements of the last axis", kUnaryOperands,
     kTopKAttributes, nullptr, CheckTopK},
    {Opcode::kCumulate, "cumulate", "running sums or products along an axis", kUnaryOperands,
     kCumulateAttributes, nullptr, CheckCumulate},
    {Opcode::kCollective, "collective", "exchanges rows with the other ranks", kCollectiveOperands,
     kCollectiveAttributes, CheckCollective},
}};

// The table stands in opcode order, and fits an Instruction.
static_assert([] {
  for (size_t i = 0; i < kTable.size(); ++i)
    if (static_cast<size_t>(kTable[i].op) != i || kTable[i].operands.size() > kMaxOperands ||
        kTable[i].attributes.size() > kMaxAttributes)
      return false;
  return true;
}());

}  // namespace

const OpInfo& Info(Opcode op) { return kTable[static_cast<size_t>(op)]; }

std::optional<Opcode> OpcodeFromName(std::string_view name) {
  for (const OpInfo& info : kTable)
    if (name == info.name) return info.op;
  return std::nullopt;
}

const char* Name(Stream stream) {
  switch (stream) {
    case Stream::kCompute:
      return "compute";
    case Stream::kTransfer:
      return "transfer";
    case Stream::kLink:
      return "link";
  }
  return "?";
}

const char* Name(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::kNone:
      return "none";
    case Epilogue::kAdd:
      return "add";
    case Epilogue::kSiluGate:
      return "silu_gate";
    case Epilogue::kSiluMul:
      return "silu_mul";
    case Epilogue::kRelu:
      return "relu";
  }
  return "?";
}

const char* Name(Collective kind) {
  switch (kind) {
    case Collective::kAllReduce:
      return "all_reduce";
    case Collective::kAllGather:
      return "all_gather";
    case Collective::kReduceScatter:
      return "reduce_scatter";
    case Collective::kAllToAll:
      return "all_to_all";
  }
  return "?";
}

}  // namespace millpower::isa
