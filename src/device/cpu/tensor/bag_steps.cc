// Pooled rows of embedding tables.
#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "device/cpu/tensor/places.h"
#include "device/cpu/tensor/tensor_steps.h"
#include "isa/layout.h"

namespace millpower::device::cpu {
namespace {

using isa::Instruction;

// Units are bags.
class EmbeddingBagStep final : public Step {
 public:
  EmbeddingBagStep(const StepContext& context, const Instruction& in)
      : kernels_(context.kernels),
        before_read_(context.before_read),
        index_(context, in.operand(isa::embedding_bag::kIndex)),
        offsets_(context, in.operand(isa::embedding_bag::kOffsets)),
        weights_(context, in.operand(isa::embedding_bag::kWeights)),
        y_(context, in.operand(isa::embedding_bag::kY)),
        rule_(context, in, isa::embedding_bag::kPolicy, in.operand(isa::embedding_bag::kTable)),
        mode_(static_cast<Bag>(in.integer(isa::embedding_bag::kMode))),
        ends_(in.integer(isa::embedding_bag::kEnds) != 0),
        default_row_(in.integer(isa::embedding_bag::kDefaultRow)),
        padding_row_(in.integer(isa::embedding_bag::kPaddingRow)) {
    const isa::Operand& operand = in.operand(isa::embedding_bag::kTable);
    const isa::Buffer& table = context.program.buffer(operand);
    table_ = context.buffers[static_cast<size_t>(operand.buffer)];
    type_ = table.dtype;
    rows_ = table.rows.size;
    cols_ = table.cols;
    row_bytes_ = table.form == isa::Form::kTable ? isa::TableRowBytes(cols_, type_)
                                                 : cols_ * SizeBytes(type_);
    zeros_.resize(static_cast<size_t>(isa::TableRowBytes(cols_, type_)), std::byte{0});
  }

  int64_t Units(const Frame& frame) const override { return Open(frame).bags; }
  int64_t Grain() const override { return 16; }
  int64_t UnitCost(const Frame& frame) const override {
    const Bags bags = Open(frame);
    // A row is a walk to memory, which costs as much as many floats at hand.
    return bags.bags == 0 ? 0 : (bags.items / bags.bags + 1) * (cols_ + 64);
  }

  void Run(const Frame& frame, int64_t begin, int64_t end, int) const override {
    const Bags bags = Open(frame);
    Batch batch;
    for (int64_t bag = begin; bag < end; ++bag) {
      const Range range = RangeOf(bags, bag);
      if (batch.bags == kBatchBags) Pool(bags, batch);
      if (batch.bags == 0) batch.first_bag = bag;
      for (int64_t item = range.begin; item < range.end; ++item) {
        if (batch.items == kBatchItems) {
          // This bag goes on in the next batch.
          Close(batch, /*ended=*/false);
          Pool(bags, batch);
          batch.first_bag = bag;
          batch.carry = batch.counted > 0;
        }
        Add(bags, item, batch);
      }
      Close(batch, /*ended=*/true);
    }
    if (batch.bags > 0) Pool(bags, batch);
  }

 private:
  // Rows to pool in one call of the kernel: enough to keep memory busy, few enough for the stack.
  static constexpr int64_t kBatchItems = 256, kBatchBags = 256;

  struct Batch {
    int64_t first_bag = 0;
    int64_t bags = 0, items = 0;
    int64_t counted = 0;  // items of the bag under way, those of batches before included
    bool carry = false;   // the first bag has items in the batch before
    std::array<const std::byte*, kBatchItems> rows;
    std::array<float, kBatchItems> weights;
    std::array<int32_t, kBatchBags> ends;
    std::array<int64_t, kBatchBags> counts;  // 0 for a bag that has not ended
  };

  // The operands of a launch.
  struct Bags {
    int64_t bags = 0, items = 0;
    int64_t length = 0;  // of each bag, without offsets
    int64_t offset_count = 0;
    std::optional<Places> index, offsets, weights, y;
    int64_t y_stride = 0;
  };
  struct Range {
    int64_t begin, end;
  };

  Bags Open(const Frame& frame) const {
    const TensorView index = index_.View(frame), y = y_.View(frame);
    Bags bags;
    bags.items = index.Elements();
    bags.index.emplace(index);
    bags.y.emplace(y);
    bags.y_stride = y.rank > 1 ? y.strides[static_cast<size_t>(y.rank - 2)] : cols_;
    if (weights_.present()) bags.weights.emplace(weights_.View(frame));
    if (offsets_.present()) {
      const TensorView offsets = offsets_.View(frame);
      bags.offsets.emplace(offsets);
      bags.offset_count = offsets.Elements();
      bags.bags = std::max<int64_t>(0, bags.offset_count - (ends_ ? 1 : 0));
    } else {
      bags.length = index.dims[static_cast<size_t>(index.rank - 1)];
      bags.bags = ElementsOf(index, 0, index.rank - 1);
    }
    return bags;
  }

  // The items of a bag; none where the offsets make no sense.
  Range RangeOf(const Bags& bags, int64_t bag) const {
    if (!bags.offsets) return {bag * bags.length, (bag + 1) * bags.length};
    const auto offset = [&](int64_t i) { return LoadIndex(bags.offsets->At(i), offsets_.dtype()); };
    const Range range = {offset(bag), bag + 1 < bags.offset_count ? offset(bag + 1) : bags.items};
    if (range.begin >= 0 && range.begin <= range.end && range.end <= bags.items) return range;
    rule_.Raise(range.begin < 0 || range.begin > bags.items ? range.begin : range.end,
                bags.items + 1);
    return {0, 0};
  }

  void Add(const Bags& bags, int64_t item, Batch& batch) const {
    int64_t row = rule_.Resolve(LoadIndex(bags.index->At(item), index_.dtype()), rows_);
    if (row < 0) row = default_row_;
    if (row >= 0 && row == padding_row_) return;
    const auto at = static_cast<size_t>(batch.items++);
    batch.rows[at] = row < 0 ? zeros_.data() : table_ + row * row_bytes_;
    if (bags.weights) batch.weights[at] = *reinterpret_cast<const float*>(bags.weights->At(item));
    ++batch.counted;
  }

  static void Close(Batch& batch, bool ended) {
    const auto at = static_cast<size_t>(batch.bags++);
    batch.ends[at] = static_cast<int32_t>(batch.items);
    batch.counts[at] = ended ? batch.counted : 0;
    if (ended) batch.counted = 0;
  }

  void Pool(const Bags& bags, Batch& batch) const {
    if (before_read_ != nullptr && *before_read_)
      (*before_read_)(std::span(batch.rows).first(static_cast<size_t>(batch.items)), row_bytes_);
    auto* y = reinterpret_cast<float*>(bags.y->At(batch.first_bag * cols_));
    kernels_.pool_rows({.rows = batch.rows.data(),
                        .weights = bags.weights ? batch.weights.data() : nullptr,
                        .ends = batch.ends.data(),
                        .y = y,
                        .bags = batch.bags,
                        .cols = cols_,
                        .y_stride = bags.y_stride,
                        .type = type_,
                        .max = mode_ == Bag::kMax,
                        .carry = batch.carry});
    if (mode_ == Bag::kMean) {
      for (int64_t bag = 0; bag < batch.bags; ++bag) {
        const int64_t count = batch.counts[static_cast<size_t>(bag)];
        if (count <= 1) continue;
        for (int64_t c = 0; c < cols_; ++c)
          y[bag * bags.y_stride + c] = y[bag * bags.y_stride + c] / static_cast<float>(count);
      }
    }
    batch.bags = batch.items = 0;
    batch.carry = false;
  }

  const kernels::KernelSet& kernels_;
  const std::function<void(std::span<const std::byte* const>, int64_t)>* before_read_;
  const TensorOperand index_, offsets_, weights_, y_;
  const IndexRule rule_;
  const Bag mode_;
  const bool ends_;
  const int64_t default_row_, padding_row_;  // -1: a row of zeros, none
  const std::byte* table_;
  DType type_;
  int64_t rows_, cols_, row_bytes_;
  std::vector<std::byte> zeros_;  // a row of the table
};

}  // namespace

std::unique_ptr<Step> MakeEmbeddingBagStep(const StepContext& context, const Instruction& in) {
  return std::make_unique<EmbeddingBagStep>(context, in);
}

}  // namespace millpower::device::cpu
