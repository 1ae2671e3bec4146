#include "compile/pack.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/blocks.h"
#include "base/check.h"
#include "base/page_memory.h"
#include "compile/repack.h"
#include "isa/layout.h"

namespace millpower::compile {
namespace {

std::unexpected<Error> Misfit(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

// Holds numbers that can be widened to f32.
bool IsReal(DType type) {
  return IsBlockType(type) || type == DType::kF32 || type == DType::kBf16 || type == DType::kF16;
}

const std::string& NameOf(const PackRule& rule) {
  static const std::string constant = "(a constant)";
  return rule.slices.empty() ? constant : rule.slices.front().tensor;
}

// The tensors that a rule names, one slice each.
struct SourceTensor {
  ir::TensorView view;
  ir::TensorSlice slice;
};

Result<std::vector<SourceTensor>> FindTensors(const std::vector<ir::TensorSlice>& slices,
                                              const PackRule& rule,
                                              const ir::WeightSource& source) {
  const PackRule::Literal& literal = rule.literal;
  if (!literal.bytes.empty())
    return std::vector{
        SourceTensor{{literal.dtype, literal.shape, literal.bytes}, {NameOf(rule), 0, 0}}};
  std::vector<SourceTensor> found;
  for (const ir::TensorSlice& slice : slices) {
    TRY_ASSIGN(ir::TensorView view, source.Find(slice.tensor));
    found.push_back({std::move(view), slice});
  }
  return found;
}

// One row of a source tensor; no bytes: a row of zeros that fills up a block.
struct SourceRow {
  const std::byte* bytes = nullptr;
  DType dtype = DType::kF32;
};

// Rows of tensors as one list, checked.
class SourceRows {
 public:
  static Result<SourceRows> Open(const std::vector<ir::TensorSlice>& slices, const PackRule& rule,
                                 const ir::WeightSource& source) {
    SourceRows opened;
    opened.is_literal_ = !rule.literal.bytes.empty();
    const int64_t cols = rule.cols;
    TRY_ASSIGN(const std::vector<SourceTensor> tensors, FindTensors(slices, rule, source));
    for (const auto& [tensor, slice] : tensors) {
      if (!IsReal(tensor.dtype) || tensor.shape.size() < 2 || !FitsColumns(tensor, slice, cols))
        return Misfit("tensor '" + slice.tensor + "' is not a float tensor of " +
                      std::to_string(slice.cols == 0 ? cols : slice.first_col + cols) + " columns" +
                      (slice.cols == 0 ? "" : " or more, cut between its blocks"));
      const int64_t block = BlockSize(tensor.dtype);
      const int64_t row_bytes = tensor.shape.back() / block * BlockBytes(tensor.dtype);
      const auto rows = static_cast<int64_t>(tensor.bytes.size()) / row_bytes;
      const int64_t taken = slice.rows == 0 ? rows : slice.rows;
      if (slice.first_row < 0 || taken < 1 || slice.first_row > rows ||
          taken > rows - slice.first_row)
        return Misfit("tensor '" + slice.tensor + "' has " + std::to_string(rows) +
                      " rows, where rows " + std::to_string(slice.first_row) + " to " +
                      std::to_string(slice.first_row + taken - 1) + " are wanted");
      opened.begins_.push_back(opened.count_);
      opened.parts_.push_back(
          {tensor.bytes.subspan(static_cast<size_t>(slice.first_row * row_bytes),
                                static_cast<size_t>(taken * row_bytes)),
           tensor.dtype, row_bytes, slice.first_col / block * BlockBytes(tensor.dtype)});
      opened.count_ += taken;
    }
    return opened;
  }

  int64_t count() const { return count_; }
  bool has_blocks() const {
    return std::ranges::any_of(parts_, [](const Part& part) { return IsBlockType(part.dtype); });
  }

  SourceRow Row(int64_t row) const {
    const size_t at = PartOf(row);
    const Part& part = parts_[at];
    return {part.bytes.data() + (row - begins_[at]) * part.row_bytes + part.first_byte, part.dtype};
  }

  // Rows [begin, end) have been packed.
  void Release(int64_t begin, int64_t end, const ir::WeightSource& source) const {
    if (is_literal_) return;
    while (begin < end) {
      const size_t at = PartOf(begin);
      const Part& part = parts_[at];
      const int64_t first = begin - begins_[at];
      const int64_t rows = std::min(end - begin, std::ssize(part.bytes) / part.row_bytes - first);
      source.Release(part.bytes.subspan(static_cast<size_t>(first * part.row_bytes),
                                        static_cast<size_t>(rows * part.row_bytes)));
      begin += rows;
    }
  }

 private:
  struct Part {
    std::span<const std::byte> bytes;
    DType dtype = DType::kF32;
    int64_t row_bytes = 0;
    int64_t first_byte = 0;  // of the columns taken, in a row
  };
  // Whether `cols` columns, or the slice's, are there and begin and end with blocks.
  static bool FitsColumns(const ir::TensorView& tensor, const ir::TensorSlice& slice,
                          int64_t cols) {
    const int64_t block = BlockSize(tensor.dtype), all = tensor.shape.back();
    if (all < 1 || all % block != 0 || cols % block != 0) return false;
    if (slice.cols == 0) return all == cols;
    return slice.cols == cols && slice.first_col >= 0 && slice.first_col % block == 0 &&
           slice.first_col <= all - cols;
  }
  size_t PartOf(int64_t row) const {
    return static_cast<size_t>(std::ranges::upper_bound(begins_, row) - begins_.begin()) - 1;
  }

  std::vector<Part> parts_;
  std::vector<int64_t> begins_;  // of each part: rows before it
  int64_t count_ = 0;
  bool is_literal_ = false;
};

// Which source row each channel of a packed weight is.
class ChannelMap {
 public:
  static Result<ChannelMap> Open(const isa::Buffer& buffer, const PackRule& rule,
                                 const ir::WeightSource& source) {
    ChannelMap map;
    const bool interleave = rule.kind == PackRule::Kind::kInterleave;
    TRY_ASSIGN(SourceRows first, SourceRows::Open(rule.slices, rule, source));
    map.lists_.push_back(std::move(first));
    if (interleave) {
      TRY_ASSIGN(SourceRows second, SourceRows::Open(rule.others, rule, source));
      map.lists_.push_back(std::move(second));
    }
    const int64_t rows = map.lists_[0].count();
    const auto lists = static_cast<int64_t>(map.lists_.size());
    const int64_t experts = std::max<int64_t>(rule.experts, 1);
    CHECK(buffer.rows.size % experts == 0) << buffer.name;
    map.channels_ = buffer.rows.size / experts;
    map.rows_ = rows / experts;
    const bool filled_up = interleave || rule.experts > 0;
    const int64_t expected =
        filled_up ? lists * isa::PackedBlocks(map.rows_) * isa::kLanes : map.rows_;
    // More than whole blocks: a gate's channels are filled up as its readers want their steps.
    const bool fits =
        filled_up ? expected <= map.channels_ && map.channels_ < expected + lists * isa::kQuantGroup
                  : expected == map.channels_;
    if (rows % experts != 0 || map.lists_.back().count() != rows || !fits)
      return Misfit("tensor '" + NameOf(rule) + "' has " + std::to_string(rows) +
                    (interleave ? " and '" + rule.others.front().tensor + "' has " +
                                      std::to_string(map.lists_.back().count())
                                : "") +
                    " rows where the Program declares " + std::to_string(buffer.rows.size));
    return map;
  }

  SourceRow Row(int64_t channel) const {
    const int64_t expert = channel / channels_;
    int64_t row = channel % channels_;
    size_t list = 0;
    if (lists_.size() == 2) {
      list = static_cast<size_t>(row / isa::kLanes % 2);
      row = row / (2 * isa::kLanes) * isa::kLanes + row % isa::kLanes;
    }
    if (row >= rows_) return {};
    return lists_[list].Row(expert * rows_ + row);
  }

  // Channels [begin, end) have been packed.
  void Release(int64_t begin, int64_t end, const ir::WeightSource& source) const {
    for (const SourceRows& list : lists_) list.Release(RowsBefore(begin), RowsBefore(end), source);
  }
  void ReleaseAll(const ir::WeightSource& source) const {
    for (const SourceRows& list : lists_) list.Release(0, list.count(), source);
  }

 private:
  // Rows of each list that the channels before `channel` take, at least.
  int64_t RowsBefore(int64_t channel) const {
    const int64_t within = channel % channels_;
    const int64_t row = lists_.size() == 2 ? within / (2 * isa::kLanes) * isa::kLanes : within;
    return channel / channels_ * rows_ + std::min(row, rows_);
  }

  std::vector<SourceRows> lists_;  // two when they alternate
  int64_t channels_ = 0;           // of one expert
  int64_t rows_ = 0;               // of one expert in each list
};

// What values are to be divided by so that the largest becomes `limit`, as kernels/kernels.h has it
// for activations: a = max |x|; scale = a / limit, inverse = limit / a. Zeros with a scale of 0
// when a is 0 or limit / a overflows; with a scale that is NaN where one is a NaN or an infinity.
struct RowScale {
  float scale = 0;
  float inverse = 0;
  bool is_zero = false;  // all values are to become 0
};
RowScale ScaleOf(const float* values, int64_t count, float limit) {
  float largest = 0;
  bool is_finite = true;
  for (int64_t i = 0; i < count; ++i) {
    is_finite = is_finite && std::isfinite(values[i]);
    largest = std::max(largest, std::abs(values[i]));
  }
  const float inverse = limit / largest;
  const bool is_zero = !is_finite || largest == 0 || !std::isfinite(inverse);
  const float scale = !is_finite ? std::numeric_limits<float>::quiet_NaN()
                      : is_zero  ? 0
                                 : largest / limit;
  return {scale, inverse, is_zero};
}

// Packs blocks of 16 channels of one weight, of `cols` steps each. One per thread: keeps rows it
// converts.
class BlockPacker {
 public:
  using Rows = std::array<SourceRow, isa::kLanes>;

  BlockPacker(const isa::Buffer& buffer, int64_t cols) : buffer_(buffer), cols_(cols) {
    floats_.resize(
        static_cast<size_t>((cols + 31) / 32 * 32));  // a multiple of any quantised block
    if (IsBlockType(buffer.dtype)) {
      row_bytes_ =
          (cols + BlockSize(buffer.dtype) - 1) / BlockSize(buffer.dtype) * BlockBytes(buffer.dtype);
      converted_.resize(static_cast<size_t>(isa::kLanes * row_bytes_));
    }
  }

  // `rows` are the block's channels; those that are not there are empty.
  void Pack(const Rows& rows, int64_t block, std::byte* out) {
    const int64_t bytes = isa::PackedLines(buffer_.cols, buffer_.dtype) * isa::kLineBytes;
    std::byte* lines = out + block * bytes;
    if (!IsBlockType(buffer_.dtype)) {
      std::memset(lines, 0, static_cast<size_t>(bytes));
      for (int64_t lane = 0; lane < isa::kLanes; ++lane)
        PackSingly(rows[static_cast<size_t>(lane)], lines + lane * isa::kLaneBytes);
      return;
    }
    LaneBlocks lanes{};
    for (size_t lane = 0; lane < rows.size(); ++lane) lanes[lane] = InBlocks(rows[lane], lane);
    Repack(buffer_.dtype, lanes, (cols_ + BlockSize(buffer_.dtype) - 1) / BlockSize(buffer_.dtype),
           buffer_.cols, lines);
  }

 private:
  // One channel of a weight whose values lie singly; `lane` is its place in the first line.
  void PackSingly(const SourceRow& row, std::byte* lane) {
    if (row.bytes == nullptr) return;
    if (buffer_.dtype == DType::kBf16 && row.dtype == DType::kBf16) {  // two at a time, as they lie
      for (int64_t step = 0; step < cols_; step += 2)
        std::memcpy(lane + step / 2 * isa::kLineBytes, row.bytes + step * 2,
                    static_cast<size_t>(std::min<int64_t>(2, cols_ - step) * 2));
      return;
    }
    Dequantise(row.dtype, row.bytes, cols_, floats_.data());
    if (buffer_.dtype == DType::kF32) {
      for (int64_t step = 0; step < cols_; ++step)
        std::memcpy(lane + step * isa::kLineBytes, &floats_[static_cast<size_t>(step)],
                    sizeof(float));
      return;
    }
    if (buffer_.dtype == DType::kF8E4M3) {
      PutF8(floats_.data(), lane);
      return;
    }
    for (int64_t step = 0; step < cols_; ++step) {
      const Bf16 bits = F32ToBf16(floats_[static_cast<size_t>(step)]);
      std::memcpy(lane + step / 2 * isa::kLineBytes + step % 2 * 2, &bits, sizeof bits);
    }
  }

  // With a scale for the channel, in the first line.
  void PutF8(const float* values, std::byte* lane) const {
    const RowScale scale = ScaleOf(values, cols_, kF8E4M3Max);
    std::memcpy(lane, &scale.scale, sizeof scale.scale);
    lane += isa::BlockScaleLines(DType::kF8E4M3) * isa::kLineBytes;
    for (int64_t step = 0; step < cols_; ++step)
      lane[step / 4 * isa::kLineBytes + step % 4] =
          std::byte{F32ToF8E4M3(scale.is_zero ? 0.0f : values[step] * scale.inverse)};
  }

  // A row as blocks of the buffer's type: the file's own, or made from its values.
  const std::byte* InBlocks(const SourceRow& row, size_t lane) {
    if (row.bytes == nullptr || row.dtype == buffer_.dtype) return row.bytes;
    std::ranges::fill(floats_, 0.0f);
    Dequantise(row.dtype, row.bytes, cols_, floats_.data());
    std::byte* blocks = converted_.data() + lane * static_cast<size_t>(row_bytes_);
    CHECK(buffer_.dtype == DType::kQ8_0 || buffer_.dtype == DType::kQ4_0) << buffer_.name;
    if (buffer_.dtype == DType::kQ8_0)
      QuantiseQ8_0(floats_.data(), std::ssize(floats_), blocks);
    else
      QuantiseQ4_0(floats_.data(), std::ssize(floats_), blocks);
    return blocks;
  }

  const isa::Buffer& buffer_;
  const int64_t cols_;
  int64_t row_bytes_ = 0;
  std::vector<float> floats_;
  std::vector<std::byte> converted_;
};

int64_t ChannelsOf(const isa::Buffer& buffer, int64_t block) {
  return std::min(isa::kLanes, buffer.rows.size - block * isa::kLanes);
}

// A weight whose tensor has the reduction down its rows: 16 of its columns become rows of floats,
// which are packed like any.
class TransposedBlocks {
 public:
  TransposedBlocks(const isa::Buffer& buffer, const SourceRows& source)
      : buffer_(buffer), source_(source), packer_(buffer, buffer.cols) {
    columns_.resize(static_cast<size_t>(isa::kLanes * buffer.cols));
  }

  void Pack(int64_t block, std::byte* out) {
    const int64_t channels = ChannelsOf(buffer_, block);
    std::array<float, isa::kLanes> values{};
    for (int64_t step = 0; step < buffer_.cols; ++step) {
      const SourceRow row = source_.Row(step);
      Dequantise(row.dtype, row.bytes + block * isa::kLanes * SizeBytes(row.dtype), channels,
                 values.data());
      for (int64_t lane = 0; lane < channels; ++lane)
        columns_[static_cast<size_t>(lane * buffer_.cols + step)] =
            values[static_cast<size_t>(lane)];
    }
    BlockPacker::Rows rows{};
    for (int64_t lane = 0; lane < channels; ++lane)
      rows[static_cast<size_t>(lane)] = {
          reinterpret_cast<const std::byte*>(columns_.data() + lane * buffer_.cols), DType::kF32};
    packer_.Pack(rows, block, out);
  }

 private:
  const isa::Buffer& buffer_;
  const SourceRows& source_;
  BlockPacker packer_;
  std::vector<float> columns_;  // [lane][step]
};

// Shares blocks of 16 channels out over the team: pack(begin, end) on each thread.
template <typename Pack>
void PackBlocks(const isa::Buffer& buffer, ThreadTeam& team, Pack pack) {
  const int64_t blocks = isa::PackedBlocks(buffer.rows.size);
  team.Run([&](int member) {
    const int64_t begin = blocks * member / team.count();
    const int64_t end = blocks * (member + 1) / team.count();
    pack(begin, end);
  });
}

Result<void> PackTransposed(const isa::Buffer& buffer, const PackRule& rule,
                            const ir::WeightSource& source, ThreadTeam& team,
                            std::span<std::byte> out) {
  TRY_ASSIGN(const SourceRows rows, SourceRows::Open(rule.slices, rule, source));
  if (rows.count() != buffer.cols || rule.cols != buffer.rows.size || rows.has_blocks())
    return Misfit("tensor '" + NameOf(rule) + "' is not " + std::to_string(buffer.cols) +
                  " rows of " + std::to_string(buffer.rows.size) + " floats");
  PackBlocks(buffer, team, [&](int64_t begin, int64_t end) {
    TransposedBlocks packer(buffer, rows);
    for (int64_t block = begin; block < end; ++block) packer.Pack(block, out.data());
  });
  rows.Release(0, rows.count(), source);
  return {};
}

// ---- Embedding tables ----

// One row of floats in a table's form of integers (isa/layout.h): q = x * inverse, rounded to
// nearest even.
void PutScaledRow(const float* values, int64_t cols, DType type, std::byte* out) {
  const bool nibbles = type == DType::kI4;
  const RowScale scale = ScaleOf(values, cols, nibbles ? 7 : 127);
  std::memcpy(out, &scale.scale, sizeof scale.scale);
  out += sizeof scale.scale;
  for (int64_t i = 0; i < cols; ++i) {
    const int q = scale.is_zero ? 0 : static_cast<int>(std::nearbyint(values[i] * scale.inverse));
    if (!nibbles)
      out[i] = static_cast<std::byte>(static_cast<int8_t>(q));
    else
      out[i / 2] |= static_cast<std::byte>((q + 8) << (i % 2 * 4));
  }
}

// A table's rows, one thread's part of them. Keeps a row it converts.
class TableRows {
 public:
  explicit TableRows(const isa::Buffer& buffer)
      : buffer_(buffer),
        row_bytes_(isa::TableRowBytes(buffer.cols, buffer.dtype)),
        floats_(static_cast<size_t>(buffer.cols)) {}

  void Put(const SourceRow& row, std::byte* out) {
    std::memset(out, 0, static_cast<size_t>(row_bytes_));
    if (row.dtype == buffer_.dtype) {
      std::memcpy(out, row.bytes, static_cast<size_t>(buffer_.cols * SizeBytes(row.dtype)));
      return;
    }
    Dequantise(row.dtype, row.bytes, buffer_.cols, floats_.data());
    switch (buffer_.dtype) {
      case DType::kF32:
        std::memcpy(out, floats_.data(), floats_.size() * sizeof(float));
        return;
      case DType::kBf16:
      case DType::kF16:
        for (const float value : floats_) {
          const uint16_t half = buffer_.dtype == DType::kF16 ? F32ToF16(value) : F32ToBf16(value);
          std::memcpy(out, &half, sizeof half);
          out += sizeof half;
        }
        return;
      default:
        PutScaledRow(floats_.data(), buffer_.cols, buffer_.dtype, out);
    }
  }

 private:
  const isa::Buffer& buffer_;
  const int64_t row_bytes_;
  std::vector<float> floats_;
};

// Packed bytes after which a thread lets go of the source pages behind it.
constexpr int64_t kReleaseBytes = 4 << 20;

Result<void> PackTable(const isa::Buffer& buffer, const PackRule& rule,
                       const ir::WeightSource& source, ThreadTeam& team, std::span<std::byte> out) {
  TRY_ASSIGN(const SourceRows rows, SourceRows::Open(rule.slices, rule, source));
  if (rows.count() != buffer.rows.size)
    return Misfit("tensor '" + NameOf(rule) + "' has " + std::to_string(rows.count()) +
                  " rows where the Program declares " + std::to_string(buffer.rows.size));
  const int64_t row_bytes = isa::TableRowBytes(buffer.cols, buffer.dtype);
  const int64_t release = std::max<int64_t>(1, kReleaseBytes / row_bytes);
  team.Run([&](int member) {
    TableRows packer(buffer);
    const int64_t begin = rows.count() * member / team.count();
    const int64_t end = rows.count() * (member + 1) / team.count();
    for (int64_t first = begin; first < end; first += release) {
      const int64_t last = std::min(end, first + release);
      for (int64_t row = first; row < last; ++row)
        packer.Put(rows.Row(row), out.data() + row * row_bytes);
      rows.Release(first, last, source);
    }
  });
  rows.Release(0, rows.count(), source);  // the pages that two ranges share
  return {};
}

// The bytes as they are.
Result<void> PackRaw(const isa::Buffer& buffer, const PackRule& rule,
                     const ir::WeightSource& source, std::span<std::byte> out) {
  size_t at = 0;
  TRY_ASSIGN(const std::vector<SourceTensor> tensors, FindTensors(rule.slices, rule, source));
  for (const auto& [tensor, slice] : tensors) {
    const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
    std::span<const std::byte> bytes = tensor.bytes;
    if (tensor.dtype != buffer.dtype || cols < 1)
      return Misfit("tensor '" + slice.tensor + "' does not hold " + Name(buffer.dtype));
    if (slice.rows > 0) {
      const int64_t row_bytes = cols * SizeBytes(tensor.dtype);
      const auto rows = static_cast<int64_t>(bytes.size()) / row_bytes;
      if (slice.first_row < 0 || slice.first_row > rows || slice.rows > rows - slice.first_row)
        return Misfit("tensor '" + slice.tensor + "' has only " + std::to_string(rows) + " rows");
      bytes = bytes.subspan(static_cast<size_t>(slice.first_row * row_bytes),
                            static_cast<size_t>(slice.rows * row_bytes));
    }
    if (bytes.size() > out.size() - at) {
      at = out.size() + 1;
      break;
    }
    std::memcpy(out.data() + at, bytes.data(), bytes.size());
    at += bytes.size();
    if (rule.literal.bytes.empty()) source.Release(tensor.bytes);
  }
  if (at == out.size()) return {};
  return Misfit("tensor '" + NameOf(rule) + "' does not have the " + std::to_string(out.size()) +
                " bytes that the Program declares");
}

// Tensors of one dimension, or rows of others, one after the other.
Result<void> PackVector(const isa::Buffer& buffer, const PackRule& rule,
                        const ir::WeightSource& source, std::span<std::byte> out) {
  std::vector<float> values;
  for (const ir::TensorSlice& slice : rule.slices) {
    TRY_ASSIGN(const ir::TensorView tensor, source.Find(slice.tensor));
    const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (!IsReal(tensor.dtype) || cols < 1 || cols % BlockSize(tensor.dtype) != 0 ||
        (slice.rows == 0 && tensor.shape.size() != 1))
      return Misfit("tensor '" + slice.tensor + "' is not a list of floats");
    const int64_t row_bytes = cols / BlockSize(tensor.dtype) * BlockBytes(tensor.dtype);
    const auto rows = static_cast<int64_t>(tensor.bytes.size()) / row_bytes;
    const int64_t taken = slice.rows == 0 ? rows : slice.rows;
    if (slice.first_row < 0 || slice.first_row > rows || taken > rows - slice.first_row ||
        (slice.cols != 0 &&
         (taken != 1 || slice.first_col < 0 || slice.cols > cols ||
          slice.first_col > cols - slice.cols || BlockSize(tensor.dtype) != 1)) ||
        taken * (slice.cols == 0 ? cols : slice.cols) > buffer.cols - std::ssize(values))
      return Misfit("tensor '" + slice.tensor + "' has " + std::to_string(rows) + " rows of " +
                    std::to_string(cols) + " values where the Program declares " +
                    std::to_string(buffer.cols) + " in all");
    const int64_t count = taken * (slice.cols == 0 ? cols : slice.cols);
    values.resize(values.size() + static_cast<size_t>(count));
    Dequantise(tensor.dtype,
               tensor.bytes.data() + slice.first_row * row_bytes +
                   slice.first_col * BlockBytes(tensor.dtype),
               count, values.data() + std::ssize(values) - count);
    source.Release(tensor.bytes);
  }
  if (std::ssize(values) != buffer.cols)
    return Misfit("tensor '" + rule.slices.front().tensor + "' has " +
                  std::to_string(values.size()) + " values where the Program declares " +
                  std::to_string(buffer.cols));
  std::memcpy(out.data(), values.data(), out.size());
  return {};
}

}  // namespace

Result<void> PackWeight(const isa::Buffer& buffer, const PackRule& rule,
                        const ir::WeightSource& source, ThreadTeam& team,
                        std::span<std::byte> out) {
  CHECK(static_cast<int64_t>(out.size()) == isa::BufferBytes(buffer, buffer.rows.size))
      << buffer.name;
  if (rule.kind == PackRule::Kind::kValues) {
    CHECK(rule.values.size() * 4 == out.size()) << buffer.name;
    std::memcpy(out.data(), rule.values.data(), out.size());
    return {};
  }
  if (rule.kind == PackRule::Kind::kRaw) return PackRaw(buffer, rule, source, out);
  if (buffer.form == isa::Form::kTable) return PackTable(buffer, rule, source, team, out);
  if (buffer.form == isa::Form::kRows) return PackVector(buffer, rule, source, out);
  if (rule.transposed) return PackTransposed(buffer, rule, source, team, out);
  CHECK(rule.cols <= buffer.cols) << buffer.name;
  TRY_ASSIGN(const ChannelMap map, ChannelMap::Open(buffer, rule, source));
  const int64_t block_bytes = isa::PackedLines(buffer.cols, buffer.dtype) * isa::kLineBytes;
  const int64_t release = std::max<int64_t>(1, kReleaseBytes / block_bytes);
  PackBlocks(buffer, team, [&](int64_t begin, int64_t end) {
    BlockPacker packer(buffer, rule.cols);
    for (int64_t first = begin; first < end; first += release) {
      const int64_t last = std::min(end, first + release);
      for (int64_t block = first; block < last; ++block) {
        BlockPacker::Rows rows{};
        for (int64_t lane = 0; lane < ChannelsOf(buffer, block); ++lane)
          rows[static_cast<size_t>(lane)] = map.Row(block * isa::kLanes + lane);
        packer.Pack(rows, block, out.data());
      }
      map.Release(first * isa::kLanes, std::min(last * isa::kLanes, buffer.rows.size), source);
    }
  });
  map.ReleaseAll(source);  // the pages that two ranges share
  return {};
}

namespace {

// The source's own memory for a table, if it has just the bytes of it and shares them.
Result<std::optional<ir::WeightSource::Shared>> ShareTable(const isa::Buffer& buffer,
                                                           const PackRule& rule,
                                                           const ir::WeightSource& source) {
  if (rule.slices.size() != 1) return std::nullopt;
  const ir::TensorSlice& slice = rule.slices[0];
  TRY_ASSIGN(const ir::TensorView tensor, source.Find(slice.tensor));
  const int64_t row_bytes = isa::TableRowBytes(buffer.cols, buffer.dtype);
  const bool same = tensor.dtype == buffer.dtype && IsReal(tensor.dtype) &&
                    row_bytes == buffer.cols * SizeBytes(buffer.dtype) &&
                    tensor.shape.size() == 2 && tensor.shape[1] == buffer.cols &&
                    reinterpret_cast<uintptr_t>(tensor.bytes.data()) % 4 == 0;
  const auto rows = static_cast<int64_t>(tensor.bytes.size()) / row_bytes;
  const int64_t wanted = slice.rows == 0 ? rows : slice.rows;
  if (!same || wanted != buffer.rows.size || slice.first_row < 0 || slice.first_row > rows - wanted)
    return std::nullopt;  // PackTable says what is wrong, if anything is
  return source.Share(tensor.bytes.subspan(static_cast<size_t>(slice.first_row * row_bytes),
                                           static_cast<size_t>(wanted * row_bytes)));
}

// What bound weights keep alive.
struct WeightMemory {
  explicit WeightMemory(size_t size_bytes) : pages(size_bytes) {}
  PageMemory pages;
  std::vector<std::shared_ptr<const void>> shared;
};

}  // namespace

Result<isa::BoundWeights> PackAll(const isa::Program& program, const PackPlan& plan,
                                  const ir::WeightSource& source, ThreadTeam& team,
                                  const isa::Progress& progress, const PackOptions& options) {
  isa::BoundWeights bound;
  bound.by_buffer.resize(program.buffers.size());
  std::vector<std::shared_ptr<const void>> shared;
  std::vector<size_t> offsets(program.buffers.size(), 0);
  size_t total = 0;
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const isa::Buffer& buffer = program.buffers[i];
    if (buffer.kind != isa::BufferKind::kWeight) continue;
    if (options.share_tables && buffer.form == isa::Form::kTable) {
      TRY_ASSIGN(auto table, ShareTable(buffer, plan.at(buffer.name), source));
      if (table) {
        bound.by_buffer[i] = table->bytes;
        bound.mapped_tables.push_back(table->bytes);
        shared.push_back(std::move(table->owner));
        continue;
      }
    }
    offsets[i] = total;
    const auto size = static_cast<size_t>(isa::BufferBytes(buffer, buffer.rows.size));
    total += (size + isa::kLineBytes - 1) / isa::kLineBytes * isa::kLineBytes;
  }
  const auto memory = std::make_shared<WeightMemory>(std::max<size_t>(total, 1));
  if (!memory->pages.ok())
    return Fail(ErrorCode::kNoCapacity,
                "no memory for " + std::to_string(total) + " bytes of packed weights");
  memory->shared = std::move(shared);
  bound.owner = memory;
  bound.tables_are_writable = true;
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const isa::Buffer& buffer = program.buffers[i];
    if (buffer.kind != isa::BufferKind::kWeight || !bound.by_buffer[i].empty()) continue;
    const std::span<std::byte> out(memory->pages.data() + offsets[i],
                                   static_cast<size_t>(isa::BufferBytes(buffer, buffer.rows.size)));
    TRY(PackWeight(buffer, plan.at(buffer.name), source, team, out));
    bound.by_buffer[i] = out;
    if (progress)
      progress(static_cast<int64_t>(offsets[i] + out.size()), static_cast<int64_t>(total));
  }
  return bound;
}

}  // namespace millpower::compile
