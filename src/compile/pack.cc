#include "compile/pack.h"

#include <sys/mman.h>

#include <cstring>

#include "base/check.h"
#include "isa/layout.h"

namespace millpower::compile {
namespace {

float ReadElement(const std::byte* bytes, DType type, int64_t index) {
  if (type == DType::kF32) {
    float value;
    std::memcpy(&value, bytes + index * 4, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes + index * 2, sizeof bits);
  return type == DType::kBf16 ? Bf16ToF32(bits) : F16ToF32(bits);
}

// One row of a source tensor; no bytes: a row of zeros that fills up a block.
struct SourceRow {
  const std::byte* bytes = nullptr;
  DType dtype = DType::kF32;
};

// The sources of a rule, checked, as one list of rows; a vector is a row per value.
class Rows {
 public:
  static Result<Rows> Open(const PackRule& rule, const ir::WeightSource& source, int64_t rows,
                           int64_t cols) {
    Rows opened;
    opened.interleave_ = rule.kind == PackRule::Kind::kInterleave;
    int64_t total = 0;
    for (const std::string& name : rule.sources) {
      TRY_ASSIGN(ir::TensorView tensor, source.Find(name));
      const size_t rank = tensor.shape.size();
      const bool fits = rank == 2 ? tensor.shape[1] == cols : rank == 1 && cols == 1;
      if (!fits || tensor.dtype == DType::kI32)
        return Fail(ErrorCode::kInvalidArgument, "tensor '" + name + "' is not a float tensor of " +
                                                     std::to_string(cols) + " columns");
      opened.begins_.push_back(total);
      total += tensor.shape[0];
      opened.tensors_.push_back(std::move(tensor));
    }
    const int64_t filled =
        opened.interleave_ ? 2 * isa::PackedBlocks(total / 2) * isa::kLanes : total;
    if (filled != rows || (opened.interleave_ && opened.begins_.back() * 2 != total))
      return Fail(ErrorCode::kInvalidArgument,
                  "tensor '" + rule.sources.front() + "' has " + std::to_string(total) +
                      " rows where the Program declares " + std::to_string(rows));
    opened.cols_ = cols;
    return opened;
  }

  SourceRow Row(int64_t row) const {
    size_t part = 0;
    if (interleave_) {
      part = static_cast<size_t>(row / isa::kLanes % 2);
      row = row / (2 * isa::kLanes) * isa::kLanes + row % isa::kLanes;
    } else {
      while (part + 1 < begins_.size() && row >= begins_[part + 1]) ++part;
      row -= begins_[part];
    }
    const ir::TensorView& tensor = tensors_[part];
    if (row >= tensor.shape[0]) return {};
    return {tensor.bytes.data() + row * cols_ * SizeBytes(tensor.dtype), tensor.dtype};
  }

  void Release(const ir::WeightSource& source) const {
    for (const ir::TensorView& tensor : tensors_) source.Release(tensor.bytes);
  }

 private:
  std::vector<ir::TensorView> tensors_;
  std::vector<int64_t> begins_;
  int64_t cols_ = 0;
  bool interleave_ = false;
};

// One block of 16 channels: lines of 16 lanes (isa/layout.h).
void PackBlock(const isa::Buffer& buffer, const Rows& rows, int64_t block, std::byte* out) {
  const DType type = buffer.dtype;
  const int64_t k = buffer.cols;
  std::byte* lines = out + block * isa::PackedLines(k, type) * isa::kLineBytes;
  std::memset(lines, 0, static_cast<size_t>(isa::PackedLines(k, type) * isa::kLineBytes));
  const int64_t channels = std::min(isa::kLanes, buffer.rows.size - block * isa::kLanes);
  for (int64_t lane = 0; lane < channels; ++lane) {
    const SourceRow row = rows.Row(block * isa::kLanes + lane);
    if (row.bytes == nullptr) continue;
    if (type == DType::kBf16 && row.dtype == DType::kBf16) {  // two at a time, as they lie
      for (int64_t step = 0; step < k; step += 2)
        std::memcpy(lines + isa::PackedOffset(lane, step, k, type), row.bytes + step * 2,
                    static_cast<size_t>(std::min<int64_t>(2, k - step) * 2));
      continue;
    }
    for (int64_t step = 0; step < k; ++step) {
      const float value = ReadElement(row.bytes, row.dtype, step);
      std::byte* to = lines + isa::PackedOffset(lane, step, k, type);
      if (type == DType::kF32) {
        std::memcpy(to, &value, sizeof value);
      } else {
        const Bf16 bits = F32ToBf16(value);
        std::memcpy(to, &bits, sizeof bits);
      }
    }
  }
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
  if (buffer.form == isa::Form::kRows) {
    TRY_ASSIGN(const Rows rows, Rows::Open(rule, source, buffer.cols, 1));
    for (int64_t i = 0; i < buffer.cols; ++i) {
      const SourceRow row = rows.Row(i);
      const float value = ReadElement(row.bytes, row.dtype, 0);
      std::memcpy(out.data() + i * 4, &value, sizeof value);
    }
    return {};
  }
  TRY_ASSIGN(const Rows rows, Rows::Open(rule, source, buffer.rows.size, buffer.cols));
  const int64_t blocks = isa::PackedBlocks(buffer.rows.size);
  team.Run([&](int member) {
    const int64_t begin = blocks * member / team.count();
    const int64_t end = blocks * (member + 1) / team.count();
    for (int64_t block = begin; block < end; ++block) PackBlock(buffer, rows, block, out.data());
  });
  rows.Release(source);
  return {};
}

namespace {

// Anonymous memory, in huge pages where the system gives them: weights are read end to end.
class Pages {
 public:
  explicit Pages(size_t size_bytes) : size_bytes_(size_bytes) {
    data_ = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ != MAP_FAILED) ::madvise(data_, size_bytes, MADV_HUGEPAGE);
  }
  ~Pages() {
    if (data_ != MAP_FAILED) ::munmap(data_, size_bytes_);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  bool ok() const { return data_ != MAP_FAILED; }
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace

Result<isa::BoundWeights> PackAll(const isa::Program& program, const PackPlan& plan,
                                  const ir::WeightSource& source, ThreadTeam& team,
                                  const isa::Progress& progress) {
  std::vector<size_t> offsets(program.buffers.size(), 0);
  size_t total = 0;
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const isa::Buffer& buffer = program.buffers[i];
    if (buffer.kind != isa::BufferKind::kWeight) continue;
    offsets[i] = total;
    const auto size = static_cast<size_t>(isa::BufferBytes(buffer, buffer.rows.size));
    total += (size + isa::kLineBytes - 1) / isa::kLineBytes * isa::kLineBytes;
  }
  const auto pages = std::make_shared<Pages>(std::max<size_t>(total, 1));
  if (!pages->ok())
    return Fail(ErrorCode::kNoCapacity,
                "no memory for " + std::to_string(total) + " bytes of packed weights");
  isa::BoundWeights bound;
  bound.owner = pages;
  bound.by_buffer.resize(program.buffers.size());
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const isa::Buffer& buffer = program.buffers[i];
    if (buffer.kind != isa::BufferKind::kWeight) continue;
    const std::span<std::byte> out(pages->data() + offsets[i],
                                   static_cast<size_t>(isa::BufferBytes(buffer, buffer.rows.size)));
    TRY(PackWeight(buffer, plan.at(buffer.name), source, team, out));
    bound.by_buffer[i] = out;
    if (progress)
      progress(static_cast<int64_t>(offsets[i] + out.size()), static_cast<int64_t>(total));
  }
  return bound;
}

}  // namespace millpower::compile
