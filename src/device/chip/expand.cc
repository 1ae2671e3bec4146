#include "device/chip/expand.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string>

#include "base/check.h"
#include "device/chip/cost_collective.h"
#include "device/chip/cost_experts.h"
#include "device/chip/cost_matmul.h"
#include "device/chip/cost_rows.h"
#include "device/host_sharing.h"
#include "isa/layout.h"
#include "isa/opcodes.h"

namespace millpower::device::chip {
namespace {

using isa::Instruction;
using isa::Opcode;
using isa::Operand;

// What an expansion works with.
struct Case {
  const Chip& chip;
  const ExpandOptions& options;
  const isa::Program& program;
  const Instruction& in;
  const LaunchView& launch;
  bool joins = false;

  const Operand& operand(int i) const { return in.operand(i); }
  const isa::Buffer& buffer(int i) const { return program.buffer(in.operand(i)); }
  int64_t Rows(int i) const { return launch.Rows(buffer(i).rows); }

  // Elements of an operand in this launch.
  double Elements(int i) const {
    const Operand& o = operand(i);
    if (o.shape < 0) return static_cast<double>(Rows(i)) * static_cast<double>(o.cols);
    double elements = 1;
    for (const isa::Dim& dim : program.shapes[static_cast<size_t>(o.shape)])
      elements *= static_cast<double>(launch.Rows(dim));
    return elements;
  }
  // Of an operand's shape: dimension `axis`, from the end when negative; columns without a shape.
  double Dimension(int i, int axis) const {
    const Operand& o = operand(i);
    if (o.shape < 0) return static_cast<double>(o.cols);
    const auto& shape = program.shapes[static_cast<size_t>(o.shape)];
    const int at = axis < 0 ? axis + static_cast<int>(shape.size()) : axis;
    return at < 0 || at >= std::ssize(shape)
               ? 1
               : static_cast<double>(launch.Rows(shape[static_cast<size_t>(at)]));
  }
  // Chips keep computed f32 values in their own type.
  double ElementBytes(int i) const {
    const isa::Buffer& b = buffer(i);
    const DType type = b.dtype == DType::kF32 && b.kind != isa::BufferKind::kWeight
                           ? chip.activation_type
                           : b.dtype;
    return SizeBytes(type);
  }
  double Bytes(int i) const {
    const isa::Buffer& b = buffer(i);
    if (b.form == isa::Form::kQuantised)
      return Elements(i) * (1 + 4.0 / static_cast<double>(isa::kQuantGroup));
    return Elements(i) * ElementBytes(i);
  }
};

// What every instruction on rows and tensors moves: each operand once.
RowTraffic Once(const Case& c) {
  RowTraffic traffic;
  traffic.on_tensors = c.in.op >= Opcode::kMap;
  const isa::OpInfo& info = isa::Info(c.in.op);
  for (int i = 0; i < std::ssize(info.operands); ++i) {
    if (!c.operand(i).present()) continue;
    const isa::Access access = info.operands[static_cast<size_t>(i)].access;
    const double bytes = c.Bytes(i);
    if (c.buffer(i).kind == isa::BufferKind::kWeight)
      traffic.constants += bytes;
    else if (access != isa::Access::kWrite)
      traffic.read += bytes;
    if (access != isa::Access::kRead) traffic.written += bytes;
  }
  return traffic;
}

int LastOperand(const Case& c) { return static_cast<int>(isa::Info(c.in.op).operands.size()) - 1; }

// `ops` and `special` operations for each element of operand `by`, in independent `rows`.
Work Elementwise(const Case& c, int by, double ops, double special, double rows) {
  RowTraffic traffic = Once(c);
  traffic.vector_ops = ops * c.Elements(by);
  traffic.special_ops = special * c.Elements(by);
  traffic.rows = rows;
  return RowWork(c.chip, traffic, c.joins);
}

Work OfRmsNorm(const Case& c) {
  const double groups =
      c.Elements(isa::rms_norm::kX) / static_cast<double>(c.in.integer(isa::rms_norm::kGroup));
  return Elementwise(c, isa::rms_norm::kX, 4, 0, groups);
}

Work OfRope(const Case& c) {
  return Elementwise(c, isa::rope::kX, 3, 0, c.Elements(isa::rope::kX) / 64);
}

Work OfRopeTable(const Case& c) {
  return Elementwise(c, isa::rope_table::kTable, 1, 1, c.Elements(isa::rope_table::kTable) / 64);
}

// Whether a quantise's rows go to experts: their constants were fitted with its time as row work.
// `instruction` is the Program's.
bool QuantisesForExperts(const isa::Program& program, const Instruction& instruction) {
  const int32_t rows = instruction.operand(isa::quantise::kY).buffer;
  for (const auto& stream : program.streams) {
    if (stream.empty() || std::less<>()(&instruction, stream.data()) ||
        !std::less<>()(&instruction, stream.data() + stream.size()))
      continue;
    for (const Instruction* next = &instruction + 1; next < stream.data() + stream.size(); ++next) {
      if (next->op == Opcode::kMatMul && next->operand(isa::matmul::kX).buffer == rows)
        return false;
      if (next->op == Opcode::kExpertMatMul && next->operand(isa::expert_matmul::kX).buffer == rows)
        return true;
    }
  }
  return false;
}

Work OfQuantise(const Case& c) {
  if (!c.joins && !QuantisesForExperts(c.program, c.in)) {
    const std::optional<Work> kernel =
        QuantiseWork(c.chip, c.Rows(isa::quantise::kX), c.operand(isa::quantise::kX).cols,
                     c.buffer(isa::quantise::kY).dtype);
    if (kernel) return *kernel;
  }
  return Elementwise(c, isa::quantise::kX, 3, 0, static_cast<double>(c.Rows(isa::quantise::kX)));
}

// Rows of a table, in order within a row.
Work OfGather(const Case& c) {
  RowTraffic traffic;
  const isa::Buffer& table = c.buffer(isa::gather::kTable);
  const double row_bytes = static_cast<double>(isa::BufferBytes(table, 16)) / 16 *
                           static_cast<double>(c.operand(isa::gather::kTable).cols) /
                           static_cast<double>(table.cols);
  const bool computed = table.kind != isa::BufferKind::kWeight;
  const double rows = static_cast<double>(c.Rows(isa::gather::kY));
  if (computed)
    traffic.read = c.Bytes(isa::gather::kY);
  else
    traffic.random_reads = rows, traffic.random_bytes = row_bytes;
  traffic.written = c.Bytes(isa::gather::kY);
  traffic.rows = rows;
  return RowWork(c.chip, traffic, c.joins);
}

AttentionShape ShapeOfPages(const isa::Buffer& kv) {
  AttentionShape shape;
  shape.kv_heads = kv.heads;
  shape.head_dim = kv.cols;
  shape.kv = kv.dtype;
  return shape;
}

Work OfKvAppend(const Case& c) {
  return KvAppendWork(c.chip, ShapeOfPages(c.buffer(isa::kv_append::kKv)),
                      c.Rows(isa::kv_append::kK), c.Rows(isa::kv_append::kSequences));
}

// Logits are read once for the maximum and the sum, and once to draw.
Work OfSample(const Case& c) {
  RowTraffic traffic = Once(c);
  traffic.read += c.Bytes(isa::sample::kLogits);
  traffic.vector_ops = 4 * c.Elements(isa::sample::kLogits);
  traffic.special_ops = c.Elements(isa::sample::kLogits);
  traffic.rows = static_cast<double>(c.Rows(isa::sample::kLogits));
  return RowWork(c.chip, traffic, c.joins);
}

Work OfMap(const Case& c) {
  const auto& code = c.program.lists[static_cast<size_t>(c.in.integer(isa::map::kCode))];
  return Elementwise(c, isa::map::kY, static_cast<double>(code.size()), 0,
                     c.Elements(isa::map::kY) / 64);
}

Work OfElements(const Case& c) {
  return Elementwise(c, LastOperand(c), 2, 0, c.Elements(LastOperand(c)) / 64);
}

Work OfReduce(const Case& c) {
  return Elementwise(c, isa::reduce::kX, 1, 0, c.Elements(isa::reduce::kY));
}

Work OfRowsOfLastAxis(const Case& c) {
  const double rows = c.Elements(0) / std::max(c.Dimension(0, -1), 1.0);
  const bool exponents = c.in.op == Opcode::kSoftmax;
  const double passes = c.in.op == Opcode::kTopK ? 8 : 4;
  return Elementwise(c, 0, passes, exponents ? 1 : 0, rows);
}

Work OfContract(const Case& c) {
  RowTraffic traffic = Once(c);
  const bool transposed = c.in.integer(isa::contract::kTransposeA) != 0;
  traffic.matrix_ops =
      2 * c.Elements(isa::contract::kY) * c.Dimension(isa::contract::kA, transposed ? -2 : -1);
  traffic.matrix_type = c.chip.activation_type;
  traffic.rows = c.Elements(isa::contract::kY) / std::max(c.Dimension(isa::contract::kY, -1), 1.0);
  return RowWork(c.chip, traffic, false);
}

Work OfConv(const Case& c) {
  RowTraffic traffic = Once(c);
  // Each output is a sum over the weight's elements of its channel.
  traffic.matrix_ops = 2 * c.Elements(isa::conv::kY) * c.Elements(isa::conv::kW) /
                       std::max(c.Dimension(isa::conv::kW, 0), 1.0);
  traffic.matrix_type = c.chip.activation_type;
  traffic.rows = c.Elements(isa::conv::kY) / 64;
  return RowWork(c.chip, traffic, false);
}

Work OfPool(const Case& c) {
  double window = 1;
  for (const int64_t size : c.program.lists[static_cast<size_t>(c.in.integer(isa::pool::kKernel))])
    window *= static_cast<double>(size);
  return Elementwise(c, isa::pool::kY, window, 0, c.Elements(isa::pool::kY) / 64);
}

// Slices of an axis: read where an index says.
Work OfTake(const Case& c) {
  RowTraffic traffic;
  traffic.on_tensors = true;
  const double wanted = c.Elements(isa::take::kY);
  const double reads = c.Elements(isa::take::kIndex);
  traffic.read = c.Bytes(isa::take::kIndex);
  if (c.buffer(isa::take::kX).kind == isa::BufferKind::kWeight) {
    traffic.random_reads = reads;
    traffic.random_bytes = wanted / std::max(reads, 1.0) * c.ElementBytes(isa::take::kX);
  } else {
    traffic.read += wanted * c.ElementBytes(isa::take::kX);
  }
  traffic.written = c.Bytes(isa::take::kY);
  const auto axis = static_cast<int>(c.in.integer(isa::take::kAxis));
  double run = 1;
  for (int i = axis + 1; i < isa::kMaxTensorRank; ++i) run *= c.Dimension(isa::take::kX, i);
  traffic.gathered = wanted / run;
  traffic.rows = reads;
  return RowWork(c.chip, traffic, false);
}

// What a table has of a cache that the rows of all tables share, each table being asked as often:
// small ones are there as a whole, the others have equal parts of the rest.
double PartOfCache(const isa::Program& program, double cache_bytes, double table_bytes) {
  std::vector<double> sizes;
  for (const isa::Buffer& buffer : program.buffers)
    if (buffer.kind == isa::BufferKind::kWeight && buffer.form == isa::Form::kTable)
      sizes.push_back(static_cast<double>(isa::BufferBytes(buffer, buffer.rows.size)));
  std::ranges::sort(sizes);
  double part = cache_bytes;
  for (size_t i = 0; i < sizes.size(); ++i) {
    part = cache_bytes / static_cast<double>(sizes.size() - i);
    if (sizes[i] > part) break;
    cache_bytes -= sizes[i];
  }
  return std::min(part, table_bytes);
}

Work OfEmbeddingBag(const Case& c) {
  const isa::Buffer& table = c.buffer(isa::embedding_bag::kTable);
  RowTraffic traffic;
  traffic.on_tensors = true;
  const double items = c.Elements(isa::embedding_bag::kIndex);
  const double row_bytes = static_cast<double>(isa::BufferBytes(table, 1));
  traffic.random_reads = items;
  traffic.random_bytes = row_bytes;
  const auto rows = static_cast<double>(table.rows.size);
  const auto share = [&](double cache_bytes) {
    const double part = PartOfCache(c.program, cache_bytes / 2, rows * row_bytes);
    return ShareOfMostPopular(c.options.routing.id_exponent, part / row_bytes, rows);
  };
  traffic.cached_share = share(c.chip.cache.bytes.value);
  traffic.near_share = std::min(traffic.cached_share, share(c.chip.scratchpad.bytes.value));
  for (const int i :
       {isa::embedding_bag::kIndex, isa::embedding_bag::kOffsets, isa::embedding_bag::kWeights})
    if (c.operand(i).present()) traffic.read += c.Bytes(i);
  traffic.written = c.Bytes(isa::embedding_bag::kY);
  traffic.vector_ops = 2 * items * static_cast<double>(table.cols);
  traffic.rows = c.Elements(isa::embedding_bag::kY) / static_cast<double>(table.cols);
  return RowWork(c.chip, traffic, false);
}

Result<Work> OfMatMul(const Case& c) {
  const isa::Buffer& w = c.buffer(isa::matmul::kW);
  MatMulShape shape;
  shape.rows = c.Rows(isa::matmul::kY);
  shape.channels = w.rows.size;
  shape.steps = w.cols;
  shape.weights = w.dtype;
  shape.quantised = c.buffer(isa::matmul::kX).form == isa::Form::kQuantised;
  shape.gated =
      static_cast<isa::Epilogue>(c.in.integer(isa::matmul::kEpilogue)) == isa::Epilogue::kSiluGate;
  shape.residual = c.operand(isa::matmul::kResidual).present();
  shape.program_weight_bytes = MatMulWeightBytes(c.program) + c.options.other_weight_bytes;
  return MatMulWork(c.chip, shape);
}

Work OfAttention(const Case& c) {
  AttentionShape shape = ShapeOfPages(c.buffer(isa::attention::kKv));
  shape.heads = c.in.integer(isa::attention::kHeads);
  shape.window = c.in.integer(isa::attention::kWindow);
  const WorkList list{c.operand(isa::attention::kSequences).buffer,
                      c.operand(isa::attention::kPages).buffer, c.buffer(isa::attention::kQ).rows};
  return AttentionWork(c.chip, shape, c.launch.RunsOf(list));
}

ExpertShape ShapeOfExperts(const Case& c, int list_operand) {
  const isa::Buffer& list = c.buffer(list_operand);
  ExpertShape shape;
  shape.rows = c.launch.Rows(list.rows);
  shape.choices = list.cols;
  shape.experts = list.heads;
  return shape;
}

Work OfRoute(const Case& c) { return RouteWork(c.chip, ShapeOfExperts(c, isa::route::kList)); }

Result<Work> OfExpertMatMul(const Case& c) {
  ExpertShape shape = ShapeOfExperts(c, isa::expert_matmul::kList);
  const isa::Buffer& w = c.buffer(isa::expert_matmul::kW);
  shape.channels = w.rows.size / shape.experts;
  shape.steps = w.cols;
  shape.weights = w.dtype;
  shape.gated =
      static_cast<isa::Epilogue>(c.in.integer(isa::matmul::kEpilogue)) == isa::Epilogue::kSiluGate;
  shape.quantised = c.buffer(isa::expert_matmul::kX).form == isa::Form::kQuantised;
  shape.own_columns = shape.choices > 1 && c.operand(isa::expert_matmul::kX).cols != w.cols;
  const RoutingModel& routing = c.options.routing;
  const auto rows = RowsOfExperts(routing, shape.rows, shape.choices, shape.experts);
  // The first of the chips that share the experts out.
  const auto mine =
      std::span(rows).first(static_cast<size_t>(shape.experts / routing.expert_ranks));
  for (const int64_t away : std::span(rows).subspan(mine.size()))
    shape.away += static_cast<double>(away);
  return ExpertMatMulWork(c.chip, shape, mine);
}

// What rows chose is not at hand here: as if it were spread evenly over the chips.
Work OfCombine(const Case& c) {
  ExpertShape shape;
  shape.rows = c.Rows(isa::combine::kY);
  shape.choices = c.operand(isa::combine::kWeights).cols;
  shape.channels = c.operand(isa::combine::kY).cols;
  shape.away = static_cast<double>(shape.rows * shape.choices) *
               (1 - 1 / static_cast<double>(c.options.routing.expert_ranks));
  return CombineWork(c.chip, shape);
}

// What is exchanged has the chip's activation type.
Work OfCollective(const Case& c) {
  constexpr std::array<CollectiveKind, isa::kCollectiveCount> kKinds = {
      CollectiveKind::kAllReduce, CollectiveKind::kAllGather, CollectiveKind::kReduceScatter,
      CollectiveKind::kAllToAll};
  CollectiveShape shape;
  shape.kind = kKinds[static_cast<size_t>(c.in.integer(isa::collective::kKind))];
  shape.ranks = c.program.ranks;
  shape.type = c.options.collective_type.value_or(c.chip.activation_type);
  shape.bytes = std::max(c.Bytes(isa::collective::kX), c.Bytes(isa::collective::kY));
  return CollectiveWork(c.chip, shape);
}

using Expansion = Result<Work> (*)(const Case&);

template <Work (*F)(const Case&)>
Result<Work> Always(const Case& c) {
  return F(c);
}

struct Entry {
  Opcode op;
  Expansion expand;       // null: takes no time (wait, post, end)
  bool row_work = false;  // see IsRowWork
  bool on_work = false;   // depends on work lists
};

constexpr std::array<Entry, isa::kOpcodeCount> kTable = {{
    {Opcode::kEnd, nullptr},
    {Opcode::kWait, nullptr},
    {Opcode::kPost, nullptr},
    {Opcode::kGather, Always<OfGather>},
    {Opcode::kRmsNorm, Always<OfRmsNorm>, true},
    {Opcode::kMatMul, OfMatMul},
    {Opcode::kRopeTable, Always<OfRopeTable>, true},
    {Opcode::kRope, Always<OfRope>, true},
    {Opcode::kKvAppend, Always<OfKvAppend>},
    {Opcode::kAttention, Always<OfAttention>, false, true},
    {Opcode::kSample, Always<OfSample>},
    {Opcode::kQuantise, Always<OfQuantise>, true},
    {Opcode::kRoute, Always<OfRoute>},
    {Opcode::kExpertMatMul, OfExpertMatMul},
    {Opcode::kCombine, Always<OfCombine>},
    {Opcode::kMap, Always<OfMap>, true},
    {Opcode::kReduce, Always<OfReduce>},
    {Opcode::kCopy, Always<OfElements>, true},
    {Opcode::kContract, Always<OfContract>},
    {Opcode::kConv, Always<OfConv>},
    {Opcode::kPool, Always<OfPool>},
    {Opcode::kTake, Always<OfTake>},
    {Opcode::kTakeAlong, Always<OfElements>},
    {Opcode::kGatherNd, Always<OfElements>},
    {Opcode::kScatter, Always<OfElements>},
    {Opcode::kEmbeddingBag, Always<OfEmbeddingBag>},
    {Opcode::kSoftmax, Always<OfRowsOfLastAxis>, true},
    {Opcode::kLayerNorm, Always<OfRowsOfLastAxis>, true},
    {Opcode::kTopK, Always<OfRowsOfLastAxis>},
    {Opcode::kCumulate, Always<OfElements>},
    {Opcode::kCollective, Always<OfCollective>},
}};

// In opcode order, and complete.
static_assert([] {
  for (size_t i = 0; i < kTable.size(); ++i)
    if (static_cast<size_t>(kTable[i].op) != i) return false;
  return true;
}());

const Entry& EntryOf(Opcode op) { return kTable[static_cast<size_t>(op)]; }

void AddDim(const isa::Dim& dim, std::vector<int64_t>& key) {
  key.push_back(dim.reg);
  key.push_back(dim.size);
}

void AddRegister(const isa::Dim& dim, std::vector<int32_t>& registers) {
  if (dim.reg >= 0) registers.push_back(dim.reg);
}

}  // namespace

std::span<const QueryRun> LaunchView::RunsOf(const WorkList& list) const {
  const auto found = std::ranges::find(lists, list);
  CHECK(found != lists.end()) << "a work list that the Program does not have";
  return runs[static_cast<size_t>(found - lists.begin())];
}

bool IsRowWork(Opcode op) { return EntryOf(op).row_work; }

std::vector<int64_t> ExpansionKey(const isa::Program& program, const Instruction& instruction) {
  const isa::OpInfo& info = isa::Info(instruction.op);
  std::vector<int64_t> key{static_cast<int64_t>(instruction.op)};
  for (size_t i = 0; i < info.operands.size(); ++i) {
    const Operand& operand = instruction.operands[i];
    key.push_back(operand.present());
    if (!operand.present()) continue;
    const isa::Buffer& buffer = program.buffer(operand);
    key.insert(key.end(), {static_cast<int64_t>(buffer.kind), static_cast<int64_t>(buffer.form),
                           static_cast<int64_t>(buffer.dtype), buffer.cols, buffer.heads,
                           operand.cols, operand.shape});
    AddDim(buffer.rows, key);
  }
  for (size_t i = 0; i < info.attributes.size(); ++i) key.push_back(instruction.attributes[i]);
  if (instruction.op == Opcode::kQuantise) key.push_back(QuantisesForExperts(program, instruction));
  if (EntryOf(instruction.op).on_work) {
    key.push_back(instruction.operand(isa::attention::kSequences).buffer);
    key.push_back(instruction.operand(isa::attention::kPages).buffer);
  }
  return key;
}

Dependence DependenceOf(const isa::Program& program, const Instruction& instruction) {
  Dependence dependence;
  for (const Operand& operand : instruction.operands) {
    if (!operand.present()) continue;
    AddRegister(program.buffer(operand).rows, dependence.registers);
    if (operand.shape >= 0)
      for (const isa::Dim& dim : program.shapes[static_cast<size_t>(operand.shape)])
        AddRegister(dim, dependence.registers);
  }
  std::ranges::sort(dependence.registers);
  const auto twice = std::ranges::unique(dependence.registers);
  dependence.registers.erase(twice.begin(), twice.end());
  dependence.on_work = EntryOf(instruction.op).on_work;
  return dependence;
}

Result<Work> Expand(const Chip& chip, const ExpandOptions& options, const isa::Program& program,
                    const Instruction& instruction, const LaunchView& launch, bool joins) {
  const Entry& entry = EntryOf(instruction.op);
  CHECK(entry.expand != nullptr) << isa::Info(instruction.op).name << " takes no time";
  return entry.expand({chip, options, program, instruction, launch, joins});
}

}  // namespace millpower::device::chip
