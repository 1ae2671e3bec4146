#include "device/cpu/steps.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "device/cpu/tensor/tensor_steps.h"
#include "isa/sampling.h"

namespace millpower::device::cpu {
namespace {

using isa::Instruction;
using kernels::KernelSet;

// A row-major operand: pointer to its first column, and the stride between rows, in elements.
template <typename T>
struct RowsOperand {
  T* data = nullptr;
  int64_t stride = 0;
  int64_t cols = 0;
  isa::Dim rows;
  T* Row(int64_t row) const { return data + row * stride; }
};

template <typename T>
RowsOperand<T> Open(const StepContext& context, const isa::Operand& operand) {
  if (!operand.present()) return {};
  const isa::Buffer& buffer = context.program.buffer(operand);
  auto* base = reinterpret_cast<T*>(context.buffers[static_cast<size_t>(operand.buffer)]);
  return {base + operand.begin, buffer.cols, operand.cols, buffer.rows};
}

std::byte* Whole(const StepContext& context, const isa::Operand& operand) {
  return context.buffers[static_cast<size_t>(operand.buffer)];
}

// Steps whose units are rows of an output.
class RowStep : public Step {
 public:
  explicit RowStep(isa::Dim rows, int64_t cols) : rows_(rows), cols_(cols) {}
  int64_t Units(const Frame& frame) const override { return frame.Rows(rows_); }
  int64_t UnitCost(const Frame&) const override { return cols_; }

 private:
  const isa::Dim rows_;
  const int64_t cols_;
};

class GatherStep final : public RowStep {
 public:
  GatherStep(const StepContext& context, const Instruction& in, RowsOperand<float> y)
      : RowStep(y.rows, y.cols),
        kernels_(context.kernels),
        table_(context.program.buffer(in.operand(isa::gather::kTable))),
        packed_(Whole(context, in.operand(isa::gather::kTable))),
        rows_(Open<float>(context, in.operand(isa::gather::kTable))),
        index_(Open<int32_t>(context, in.operand(isa::gather::kIndex))),
        y_(y) {}
  void Run(const Frame&, int64_t begin, int64_t end, int) const override {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t from = *index_.Row(row);
      if (table_.form == isa::Form::kPacked)
        kernels_.gather_packed(packed_, table_.dtype, table_.cols, from, y_.Row(row));
      else
        std::memcpy(y_.Row(row), rows_.Row(from), static_cast<size_t>(y_.cols) * sizeof(float));
    }
  }

 private:
  const KernelSet& kernels_;
  const isa::Buffer& table_;
  const std::byte* packed_;
  const RowsOperand<float> rows_;
  const RowsOperand<int32_t> index_;
  const RowsOperand<float> y_;
};

class RmsNormStep final : public RowStep {
 public:
  RmsNormStep(const StepContext& context, const Instruction& in, RowsOperand<float> y)
      : RowStep(y.rows, y.cols), kernels_(context.kernels) {
    const auto x = Open<float>(context, in.operand(isa::rms_norm::kX));
    args_ = {.x = x.data,
             .weight = Open<float>(context, in.operand(isa::rms_norm::kWeight)).data,
             .y = y.data,
             .cols = y.cols,
             .group = in.integer(isa::rms_norm::kGroup),
             .x_stride = x.stride,
             .y_stride = y.stride,
             .epsilon = static_cast<float>(in.real(isa::rms_norm::kEpsilon))};
  }
  void Run(const Frame&, int64_t begin, int64_t end, int) const override {
    kernels_.rms_norm(args_, begin, end);
  }

 private:
  const KernelSet& kernels_;
  kernels::RmsNormArgs args_;
};

// Points `args` to its x, of either form.
void OpenActivations(const StepContext& context, const isa::Operand& x, kernels::MatMulArgs& args) {
  if (context.program.buffer(x).form == isa::Form::kQuantised) {
    args.xq = Whole(context, x);
    args.xq_stride_bytes = isa::QuantisedRowBytes(x.cols, context.program.buffer(x).dtype);
    return;
  }
  const auto rows = Open<float>(context, x);
  args.x = rows.data;
  args.x_stride = rows.stride;
}

// A matmul's epilogue means the same to the instruction set and to the kernels.
static_assert(static_cast<int>(isa::Epilogue::kNone) == static_cast<int>(kernels::Epilogue::kNone));
static_assert(static_cast<int>(isa::Epilogue::kAdd) == static_cast<int>(kernels::Epilogue::kAdd));
static_assert(static_cast<int>(isa::Epilogue::kSiluGate) ==
              static_cast<int>(kernels::Epilogue::kSiluGate));
static_assert(static_cast<int>(isa::Epilogue::kSiluMul) ==
              static_cast<int>(kernels::Epilogue::kSiluMul));
static_assert(static_cast<int>(isa::Epilogue::kRelu) == static_cast<int>(kernels::Epilogue::kRelu));
static_assert(isa::kEpilogueCount == 5);

// Blocks of 16 channels that go to a thread at a time: of experts two panels.
constexpr int64_t kPanelBlocks = kPanelChannels / isa::kLanes;
constexpr int64_t kBlocksAtOnce = 2 * kPanelBlocks;

// Units are blocks of 16 output channels, in pairs for a gated weight, once for each of the parts
// of the rows (host_sharing.h).
class MatMulStep final : public Step {
 public:
  MatMulStep(const StepContext& context, const Instruction& in)
      : kernels_(context.kernels),
        threads_(context.threads),
        stay_cached_(context.weights_stay_cached) {
    const auto residual = Open<float>(context, in.operand(isa::matmul::kResidual));
    const auto y = Open<float>(context, in.operand(isa::matmul::kY));
    const isa::Buffer& w = context.program.buffer(in.operand(isa::matmul::kW));
    rows_ = y.rows;
    args_ = {.w = Whole(context, in.operand(isa::matmul::kW)),
             .bias = Open<float>(context, in.operand(isa::matmul::kBias)).data,
             .residual = residual.data,
             .y = y.data,
             .k = w.cols,
             .n = w.rows.size,
             .residual_stride = residual.stride,
             .y_stride = y.stride,
             .weight_type = w.dtype,
             .epilogue = static_cast<kernels::Epilogue>(in.integer(isa::matmul::kEpilogue))};
    OpenActivations(context, in.operand(isa::matmul::kX), args_);
    blocks_per_unit_ = args_.epilogue == kernels::Epilogue::kSiluGate ? 2 : 1;
  }
  int64_t Units(const Frame& frame) const override {
    return frame.Rows(rows_) == 0 ? 0 : Parts(frame) * UnitsOfPart();
  }
  int64_t Grain() const override { return kPanelBlocks / blocks_per_unit_; }
  int64_t UnitCost(const Frame& frame) const override {
    return args_.k * isa::kLanes * blocks_per_unit_ * frame.Rows(rows_) / Parts(frame);
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const int64_t rows = frame.Rows(rows_), parts = Parts(frame), units = UnitsOfPart();
    while (begin < end) {
      const int64_t part = begin / units, first = begin % units;
      const int64_t last = std::min(units, first + (end - begin));
      kernels::MatMulArgs args = args_;
      const int64_t row = rows * part / parts;
      args.rows = rows * (part + 1) / parts - row;
      if (args.x != nullptr) args.x += row * args.x_stride;
      if (args.xq != nullptr) args.xq += row * args.xq_stride_bytes;
      if (args.residual != nullptr) args.residual += row * args.residual_stride;
      args.y += row * args.y_stride;
      kernels_.matmul(args, first * blocks_per_unit_, last * blocks_per_unit_);
      begin += last - first;
    }
  }

 private:
  int64_t UnitsOfPart() const { return isa::PackedBlocks(args_.n) / blocks_per_unit_; }
  int64_t Parts(const Frame& frame) const {
    const int64_t panels = (UnitsOfPart() + Grain() - 1) / Grain();
    return ProductParts(threads_, frame.Rows(rows_), panels, stay_cached_);
  }

  const KernelSet& kernels_;
  const int threads_;
  const bool stay_cached_;
  kernels::MatMulArgs args_;
  isa::Dim rows_;
  int64_t blocks_per_unit_ = 1;
};

class QuantiseStep final : public RowStep {
 public:
  QuantiseStep(const StepContext& context, const Instruction& in, RowsOperand<float> x)
      : RowStep(x.rows, x.cols),
        kernels_(context.kernels),
        args_{.x = x.data,
              .y = Whole(context, in.operand(isa::quantise::kY)),
              .k = x.cols,
              .x_stride = x.stride,
              .type = context.program.buffer(in.operand(isa::quantise::kY)).dtype} {}
  void Run(const Frame&, int64_t begin, int64_t end, int) const override {
    kernels_.quantise(args_, begin, end);
  }

 private:
  const KernelSet& kernels_;
  const kernels::QuantiseArgs args_;
};

// One unit: the list is one for all rows.
class RouteStep final : public Step {
 public:
  RouteStep(const StepContext& context, const Instruction& in)
      : kernels_(context.kernels), counts_(context.expert_counts) {
    const auto logits = Open<float>(context, in.operand(isa::route::kLogits));
    const auto weights = Open<float>(context, in.operand(isa::route::kWeights));
    rows_ = logits.rows;
    args_ = {
        .logits = logits.data,
        .list = reinterpret_cast<int32_t*>(Whole(context, in.operand(isa::route::kList))),
        .weights = weights.data,
        .experts = logits.cols,
        .choices = weights.cols,
        .logits_stride = logits.stride,
        .weights_stride = weights.stride,
        .normalise = in.integer(isa::route::kNormalise) != 0,
    };
    if (counts_ != nullptr) layer_ = counts_->Declare(args_.experts);
  }
  int64_t Units(const Frame& frame) const override { return frame.Rows(rows_) == 0 ? 0 : 1; }
  int64_t UnitCost(const Frame& frame) const override { return frame.Rows(rows_) * args_.experts; }
  void Run(const Frame& frame, int64_t, int64_t, int) const override {
    kernels::RouteArgs args = args_;
    args.rows = frame.Rows(rows_);
    kernels_.route(args);
    if (counts_ != nullptr)
      counts_->Add(layer_, std::span(args.list + isa::ExpertListBegins(args.experts),
                                     static_cast<size_t>(args.experts) + 1));
  }

 private:
  const KernelSet& kernels_;
  ExpertCounts* const counts_;
  size_t layer_ = 0;  // of the counts
  kernels::RouteArgs args_;
  isa::Dim rows_;
};

// Units are groups of blocks of one expert each. How many experts have work is known only once
// `route` has run, in this launch; so there are units for as many as could have, and those that are
// left over do nothing.
class ExpertMatMulStep final : public Step {
 public:
  ExpertMatMulStep(const StepContext& context, const Instruction& in) : kernels_(context.kernels) {
    const auto y = Open<float>(context, in.operand(isa::expert_matmul::kY));
    const isa::Operand& x = in.operand(isa::expert_matmul::kX);
    const isa::Buffer& w = context.program.buffer(in.operand(isa::expert_matmul::kW));
    const isa::Buffer& list = context.program.buffer(in.operand(isa::expert_matmul::kList));
    list_ = reinterpret_cast<const int32_t*>(Whole(context, in.operand(isa::expert_matmul::kList)));
    rows_ = y.rows;
    experts_ = list.heads;
    args_ = {
        .w = Whole(context, in.operand(isa::expert_matmul::kW)),
        .y = y.data,
        .k = w.cols,
        .n = w.rows.size / list.heads,
        .y_stride = y.stride,
        .weight_type = w.dtype,
        .epilogue = static_cast<kernels::Epilogue>(in.integer(isa::expert_matmul::kEpilogue)),
        .entries = {
            .choices = list.cols, .width = y.cols / list.cols, .x_per_choice = x.cols != w.cols}};
    OpenActivations(context, x, args_);
    expert_bytes_ = isa::PackedBytes(args_.n, args_.k, w.dtype);
    blocks_ = isa::PackedBlocks(args_.n);
    units_per_expert_ = (blocks_ + kBlocksAtOnce - 1) / kBlocksAtOnce;
  }
  int64_t Units(const Frame& frame) const override {
    return std::min(experts_, frame.Rows(rows_) * args_.entries.choices) * units_per_expert_;
  }
  int64_t UnitCost(const Frame& frame) const override {
    const int64_t entries = frame.Rows(rows_) * args_.entries.choices;
    const int64_t rows = std::max<int64_t>(1, entries / experts_);  // of an expert, on average
    return args_.k * isa::kLanes * std::min(kBlocksAtOnce, blocks_) * rows;
  }
  int RangesPerThread() const override { return 16; }  // experts have rows of their own number
  void Run(const Frame&, int64_t begin, int64_t end, int) const override {
    kernels::MatMulArgs args = args_;
    const int32_t* begins = list_ + isa::ExpertListBegins(experts_);
    while (begin < end) {
      const int64_t place = begin / units_per_expert_;
      if (place >= list_[isa::kExpertListActive]) return;
      const int64_t expert = list_[isa::kExpertListExperts + place];
      const int64_t last = std::min(end, (place + 1) * units_per_expert_);
      args.w = args_.w + expert * expert_bytes_;
      args.rows = begins[expert + 1] - begins[expert];
      args.entries.entries = list_ + isa::ExpertListEntries(experts_) + begins[expert];
      const int64_t first_unit = place * units_per_expert_;
      kernels_.matmul(args, (begin - first_unit) * kBlocksAtOnce,
                      std::min(blocks_, (last - first_unit) * kBlocksAtOnce));
      begin = last;
    }
  }

 private:
  const KernelSet& kernels_;
  kernels::MatMulArgs args_;
  const int32_t* list_ = nullptr;
  isa::Dim rows_;
  int64_t experts_ = 0;
  int64_t expert_bytes_ = 0;
  int64_t blocks_ = 0;  // of one expert
  int64_t units_per_expert_ = 0;
};

class CombineStep final : public RowStep {
 public:
  CombineStep(const StepContext& context, const Instruction& in, RowsOperand<float> y)
      : RowStep(y.rows, in.operand(isa::combine::kX).cols), kernels_(context.kernels) {
    const auto x = Open<float>(context, in.operand(isa::combine::kX));
    const auto weights = Open<float>(context, in.operand(isa::combine::kWeights));
    const auto residual = Open<float>(context, in.operand(isa::combine::kResidual));
    args_ = {.x = x.data,
             .weights = weights.data,
             .residual = residual.data,
             .y = y.data,
             .cols = y.cols,
             .choices = weights.cols,
             .x_stride = x.stride,
             .weights_stride = weights.stride,
             .residual_stride = residual.stride,
             .y_stride = y.stride};
  }
  void Run(const Frame&, int64_t begin, int64_t end, int) const override {
    kernels_.combine(args_, begin, end);
  }

 private:
  const KernelSet& kernels_;
  kernels::CombineArgs args_;
};

class RopeTableStep final : public RowStep {
 public:
  RopeTableStep(const StepContext& context, const Instruction& in, RowsOperand<float> table)
      : RowStep(table.rows, table.cols * 16),  // a sine is dearer than a sum
        kernels_(context.kernels),
        args_{.positions = Open<int32_t>(context, in.operand(isa::rope_table::kPositions)).data,
              .inv_freq = Open<float>(context, in.operand(isa::rope_table::kInvFreq)).data,
              .table = table.data,
              .half = table.cols / 2,
              .scale = static_cast<float>(in.real(isa::rope_table::kScale))} {}
  void Run(const Frame&, int64_t begin, int64_t end, int) const override {
    kernels_.rope_table(args_, begin, end);
  }

 private:
  const KernelSet& kernels_;
  const kernels::RopeTableArgs args_;
};

class RopeStep final : public RowStep {
 public:
  RopeStep(const StepContext& context, const Instruction& in, RowsOperand<float> x)
      : RowStep(x.rows, x.cols),
        kernels_(context.kernels),
        args_{.x = x.data,
              .table = Open<float>(context, in.operand(isa::rope::kTable)).data,
              .heads = in.integer(isa::rope::kHeads),
              .half = in.operand(isa::rope::kTable).cols / 2,
              .x_stride = x.stride} {}
  void Run(const Frame&, int64_t begin, int64_t end, int) const override {
    kernels_.rope(args_, begin, end);
  }

 private:
  const KernelSet& kernels_;
  const kernels::RopeArgs args_;
};

// The place of an instruction's work list in Frame::work.
size_t FindWork(const StepContext& context, const isa::Operand& sequences,
                const isa::Operand& pages, const isa::Operand& rows) {
  const WorkList list{sequences.buffer, pages.buffer, context.program.buffer(rows).rows};
  const auto found = std::ranges::find(context.work_lists, list);
  CHECK(found != context.work_lists.end());
  return static_cast<size_t>(found - context.work_lists.begin());
}

// Units are the runs of the work list.
class KvAppendStep final : public Step {
 public:
  KvAppendStep(const StepContext& context, const Instruction& in)
      : kernels_(context.kernels),
        cache_(context.program.buffer(in.operand(isa::kv_append::kKv))),
        k_(Open<float>(context, in.operand(isa::kv_append::kK))),
        v_(Open<float>(context, in.operand(isa::kv_append::kV))),
        pool_(Whole(context, in.operand(isa::kv_append::kKv))),
        page_bytes_(isa::BufferBytes(cache_, 1)),
        work_(FindWork(context, in.operand(isa::kv_append::kSequences),
                       in.operand(isa::kv_append::kPages), in.operand(isa::kv_append::kK))) {}
  int64_t Units(const Frame& frame) const override {
    return static_cast<int64_t>(frame.work[work_].runs.size());
  }
  int64_t UnitCost(const Frame&) const override { return 2 * k_.cols * kRunRows; }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    kernels::KvAppendArgs args{
        .kv_heads = cache_.heads, .head_dim = cache_.cols, .kv_type = cache_.dtype};
    for (int64_t unit = begin; unit < end; ++unit) {
      const RowRun& run = frame.work[work_].runs[static_cast<size_t>(unit)];
      for (int64_t i = 0; i < run.count; ++i) {
        const int64_t position = run.first_position + i;
        args.k = k_.Row(run.row + i);
        args.v = v_.Row(run.row + i);
        args.page = pool_ + run.pages[position / isa::kPagePositions] * page_bytes_;
        args.slot = position % isa::kPagePositions;
        kernels_.kv_append(args);
      }
    }
  }

 private:
  const KernelSet& kernels_;
  const isa::Buffer& cache_;
  const RowsOperand<float> k_, v_;
  std::byte* const pool_;
  const int64_t page_bytes_;
  const size_t work_;
};

// Units are (run, KV head) pairs.
class AttentionStep final : public Step {
 public:
  AttentionStep(const StepContext& context, const Instruction& in)
      : kernels_(context.kernels),
        cache_(context.program.buffer(in.operand(isa::attention::kKv))),
        q_(Open<float>(context, in.operand(isa::attention::kQ))),
        out_(Open<float>(context, in.operand(isa::attention::kOut))),
        work_(FindWork(context, in.operand(isa::attention::kSequences),
                       in.operand(isa::attention::kPages), in.operand(isa::attention::kQ))) {
    args_ = {.kv = Whole(context, in.operand(isa::attention::kKv)),
             .page_bytes = isa::BufferBytes(cache_, 1),
             .q_stride = q_.stride,
             .out_stride = out_.stride,
             .group = in.integer(isa::attention::kHeads) / cache_.heads,
             .head_dim = cache_.cols,
             .window = in.integer(isa::attention::kWindow),
             .scale = static_cast<float>(in.real(isa::attention::kScale)),
             .kv_type = cache_.dtype};
  }
  int64_t Units(const Frame& frame) const override {
    return static_cast<int64_t>(frame.work[work_].runs.size()) * cache_.heads;
  }
  int64_t UnitCost(const Frame& frame) const override {
    int64_t positions = 0;  // the longest, as a guess at all
    for (const RowRun& run : frame.work[work_].runs)
      positions = std::max(positions, run.first_position + run.count);
    if (args_.window > 0) positions = std::min(positions, args_.window + kRunRows);
    return 2 * positions * args_.head_dim;
  }
  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    kernels::AttentionArgs args = args_;
    for (int64_t unit = begin; unit < end; ++unit) {
      const RowRun& run = frame.work[work_].runs[static_cast<size_t>(unit / cache_.heads)];
      const int64_t head = unit % cache_.heads;
      const int64_t column = head * args.group * args.head_dim;
      args.q = q_.Row(run.row) + column;
      args.out = out_.Row(run.row) + column;
      args.pages = run.pages;
      args.head_offset_bytes = head * isa::KvHeadBytes(args.head_dim, args.kv_type);
      args.query_rows = run.count;
      args.first_position = run.first_position;
      kernels_.attention(args);
    }
  }

 private:
  const KernelSet& kernels_;
  const isa::Buffer& cache_;
  const RowsOperand<float> q_, out_;
  kernels::AttentionArgs args_;
  const size_t work_;
};

class SampleStep final : public RowStep {
 public:
  SampleStep(const StepContext& context, const Instruction& in, RowsOperand<float> logits)
      : RowStep(logits.rows, logits.cols * 2),
        logits_(logits),
        params_(Open<int32_t>(context, in.operand(isa::sample::kParams))),
        tokens_(Open<int32_t>(context, in.operand(isa::sample::kAdjustTokens))),
        adjustments_(Open<int32_t>(context, in.operand(isa::sample::kAdjustments))),
        record_(Open<int32_t>(context, in.operand(isa::sample::kRecord))),
        samplers_(context.samplers) {}
  void Run(const Frame& frame, int64_t begin, int64_t end, int member) const override {
    const Adjustments adjustments{{tokens_.data, static_cast<size_t>(frame.Rows(tokens_.rows))},
                                  adjustments_.data,
                                  adjustments_.stride};
    for (int64_t row = begin; row < end; ++row)
      samplers_[static_cast<size_t>(member)]->Run(
          {logits_.Row(row), static_cast<size_t>(logits_.cols)}, params_.Row(row), adjustments,
          record_.Row(row));
  }

 private:
  const RowsOperand<float> logits_;
  const RowsOperand<int32_t> params_, tokens_, adjustments_, record_;
  const std::span<std::unique_ptr<Sampler>> samplers_;
};

// One unit: the ranks meet once.
class CollectiveStep final : public Step {
 public:
  CollectiveStep(const StepContext& context, const Instruction& in)
      : group_(*context.group), rank_(context.rank) {
    const auto x = Open<float>(context, in.operand(isa::collective::kX));
    const auto residual = Open<float>(context, in.operand(isa::collective::kResidual));
    const auto y = Open<float>(context, in.operand(isa::collective::kY));
    const auto kind = static_cast<isa::Collective>(in.integer(isa::collective::kKind));
    const bool to_all = kind == isa::Collective::kAllToAll;
    rows_ = y.rows;
    args_ = {.kind = kind,
             .x = x.data,
             .residual = residual.data,
             .y = y.data,
             .cols = to_all ? x.cols / context.program.ranks : std::min(x.cols, y.cols),
             .x_stride = x.stride,
             .residual_stride = residual.stride,
             .y_stride = y.stride};
    group_.Reserve(rank_, context.program.Max(rows_) * args_.cols);
  }
  int64_t Units(const Frame& frame) const override { return frame.Rows(rows_) == 0 ? 0 : 1; }
  int64_t UnitCost(const Frame& frame) const override { return frame.Rows(rows_) * args_.cols; }
  void Run(const Frame& frame, int64_t, int64_t, int) const override {
    CollectiveArgs args = args_;
    args.rows = frame.Rows(rows_);
    group_.Run(rank_, args);
  }

 private:
  Group& group_;
  const int rank_;
  CollectiveArgs args_;
  isa::Dim rows_;
};

}  // namespace

std::unique_ptr<Step> MakeStep(const StepContext& context, const Instruction& in) {
  using isa::Opcode;
  switch (in.op) {
    case Opcode::kGather:
      return std::make_unique<GatherStep>(context, in,
                                          Open<float>(context, in.operand(isa::gather::kY)));
    case Opcode::kRmsNorm:
      return std::make_unique<RmsNormStep>(context, in,
                                           Open<float>(context, in.operand(isa::rms_norm::kY)));
    case Opcode::kMatMul:
      return std::make_unique<MatMulStep>(context, in);
    case Opcode::kRopeTable:
      return std::make_unique<RopeTableStep>(
          context, in, Open<float>(context, in.operand(isa::rope_table::kTable)));
    case Opcode::kRope:
      return std::make_unique<RopeStep>(context, in,
                                        Open<float>(context, in.operand(isa::rope::kX)));
    case Opcode::kKvAppend:
      return std::make_unique<KvAppendStep>(context, in);
    case Opcode::kAttention:
      return std::make_unique<AttentionStep>(context, in);
    case Opcode::kSample:
      return std::make_unique<SampleStep>(context, in,
                                          Open<float>(context, in.operand(isa::sample::kLogits)));
    case Opcode::kQuantise:
      return std::make_unique<QuantiseStep>(context, in,
                                            Open<float>(context, in.operand(isa::quantise::kX)));
    case Opcode::kRoute:
      return std::make_unique<RouteStep>(context, in);
    case Opcode::kExpertMatMul:
      return std::make_unique<ExpertMatMulStep>(context, in);
    case Opcode::kCombine:
      return std::make_unique<CombineStep>(context, in,
                                           Open<float>(context, in.operand(isa::combine::kY)));
    case Opcode::kCollective:
      return std::make_unique<CollectiveStep>(context, in);
    case Opcode::kMap:
      return MakeMapStep(context, in);
    case Opcode::kReduce:
      return MakeReduceStep(context, in);
    case Opcode::kCopy:
      return MakeCopyStep(context, in);
    case Opcode::kContract:
      return MakeContractStep(context, in);
    case Opcode::kConv:
      return MakeConvStep(context, in);
    case Opcode::kPool:
      return MakePoolStep(context, in);
    case Opcode::kTake:
      return MakeTakeStep(context, in);
    case Opcode::kTakeAlong:
      return MakeTakeAlongStep(context, in);
    case Opcode::kGatherNd:
      return MakeGatherNdStep(context, in);
    case Opcode::kScatter:
      return MakeScatterStep(context, in);
    case Opcode::kEmbeddingBag:
      return MakeEmbeddingBagStep(context, in);
    case Opcode::kSoftmax:
      return MakeSoftmaxStep(context, in);
    case Opcode::kLayerNorm:
      return MakeLayerNormStep(context, in);
    case Opcode::kTopK:
      return MakeTopKStep(context, in);
    case Opcode::kCumulate:
      return MakeCumulateStep(context, in);
    case Opcode::kEnd:
    case Opcode::kWait:
    case Opcode::kPost:
      break;  // order is settled at load
  }
  CHECK(false) << "no step for " << isa::Info(in.op).name;
  return nullptr;
}

}  // namespace millpower::device::cpu
