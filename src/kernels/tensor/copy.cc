#include "kernels/tensor/copy.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace millpower::kernels {
namespace {

// work(T{}) with an unsigned T of that size.
template <typename Work>
void WithSize(int64_t element_bytes, const Work& work) {
  switch (element_bytes) {
    case 1:
      return work(uint8_t{});
    case 2:
      return work(uint16_t{});
    case 4:
      return work(uint32_t{});
    default:
      return work(uint64_t{});
  }
}

template <int64_t kBytes>
void CopyRuns(const std::byte* from, std::byte* to, int64_t rows, int64_t from_stride,
              int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row)
    std::memcpy(to + row * to_stride, from + row * from_stride, kBytes);
}

}  // namespace

CopyPlan::CopyPlan(int64_t element_bytes, int axes, const Sizes& sizes, const Sizes& from_strides,
                   const Sizes& to_strides)
    : element_bytes_(element_bytes) {
  for (int d = 0; d < axes; ++d) {
    const auto axis = static_cast<size_t>(d);
    if (sizes[axis] <= 0) return;  // nothing to copy: no rows
    if (sizes[axis] == 1) continue;
    axes_[static_cast<size_t>(axes_count_++)] = {sizes[axis], from_strides[axis] * element_bytes,
                                                 to_strides[axis] * element_bytes};
  }
  Collapse();
  Choose();
}

void CopyPlan::Collapse() {
  int kept = 0;
  for (int d = 0; d < axes_count_; ++d) {
    const Axis axis = axes_[static_cast<size_t>(d)];
    if (kept > 0) {
      Axis& before = axes_[static_cast<size_t>(kept - 1)];
      if (before.from == axis.from * axis.size && before.to == axis.to * axis.size) {
        before = {before.size * axis.size, axis.from, axis.to};
        continue;
      }
    }
    axes_[static_cast<size_t>(kept++)] = axis;
  }
  axes_count_ = kept;
}

void CopyPlan::Choose() {
  const auto consecutive = [this](int64_t stride) { return stride == element_bytes_; };
  if (axes_count_ == 0)
    axes_[static_cast<size_t>(axes_count_++)] = {1, element_bytes_, element_bytes_};
  Axis& last = axes_[static_cast<size_t>(axes_count_ - 1)];
  kind_ = consecutive(last.from) && consecutive(last.to) ? Kind::kRuns : Kind::kStrided;
  last_elements_ = last.size;
  if (kind_ == Kind::kRuns && axes_count_ == 1) {
    // One run: rows are pieces of it, of which the last may be shorter.
    const int64_t piece = std::min(last.size, kPieceBytes / element_bytes_);
    const int64_t pieces = (last.size + piece - 1) / piece;
    last_elements_ = last.size - (pieces - 1) * piece;
    last.size = piece;
    axes_[1] = last;
    axes_[0] = {pieces, piece * element_bytes_, piece * element_bytes_};
    axes_count_ = 2;
  } else if (axes_count_ == 1) {
    axes_[1] = axes_[0];
    axes_[0] = {1, 0, 0};
    axes_count_ = 2;
  } else if (kind_ == Kind::kStrided && consecutive(last.to)) {
    // The axis that is consecutive in the source, if there is one, moves beside the last.
    for (int d = 0; d + 1 < axes_count_; ++d) {
      const auto axis = axes_.begin() + d;
      if (!consecutive(axis->from)) continue;
      std::rotate(axis, axis + 1, axes_.begin() + axes_count_ - 1);
      kind_ = Kind::kTranspose;
      break;
    }
  }
  rows_ = 1;
  for (int d = 0; d + 1 < axes_count_; ++d) rows_ *= axes_[static_cast<size_t>(d)].size;
  row_elements_ = axes_[static_cast<size_t>(axes_count_ - 1)].size;
}

void CopyPlan::RunRows(const std::byte* from, std::byte* to, int64_t rows) const {
  const Axis& row = axes_[static_cast<size_t>(axes_count_ - 2)];
  const Axis& element = axes_[static_cast<size_t>(axes_count_ - 1)];
  if (kind_ == Kind::kRuns) {
    const int64_t bytes = element.size * element_bytes_;
    switch (bytes) {  // short runs without a call
      case 4:
        return CopyRuns<4>(from, to, rows, row.from, row.to);
      case 8:
        return CopyRuns<8>(from, to, rows, row.from, row.to);
      case 16:
        return CopyRuns<16>(from, to, rows, row.from, row.to);
      case 32:
        return CopyRuns<32>(from, to, rows, row.from, row.to);
      case 64:
        return CopyRuns<64>(from, to, rows, row.from, row.to);
      default:
        for (int64_t r = 0; r < rows; ++r)
          std::memcpy(to + r * row.to, from + r * row.from, static_cast<size_t>(bytes));
        return;
    }
  }
  WithSize(element_bytes_, [&]<typename T>(T) {
    const auto move = [&](int64_t r, int64_t begin, int64_t end) {
      const std::byte* source = from + r * row.from + begin * element.from;
      std::byte* target = to + r * row.to + begin * element.to;
      for (int64_t i = begin; i < end; ++i, source += element.from, target += element.to)
        std::memcpy(target, source, sizeof(T));
    };
    if (kind_ == Kind::kStrided) {
      for (int64_t r = 0; r < rows; ++r) move(r, 0, element.size);
      return;
    }
    // Blocks whose lines, on either side, stay in the caches until they are done with.
    for (int64_t first = 0; first < rows; first += kBlock)
      for (int64_t begin = 0; begin < element.size; begin += kBlock)
        for (int64_t r = first; r < std::min(rows, first + kBlock); ++r)
          move(r, begin, std::min(element.size, begin + kBlock));
  });
}

void CopyPlan::Run(const std::byte* from, std::byte* to, int64_t begin, int64_t end) const {
  CHECK(begin >= 0 && end <= rows_) << begin << " " << end << " of " << rows_;
  const int outer = axes_count_ - 2;
  const int64_t inner_rows = axes_[static_cast<size_t>(outer)].size;
  if (end == rows_ && begin < end && last_elements_ != row_elements_) {
    const Axis& row = axes_[0];  // a run in pieces
    --end;
    std::memcpy(to + end * row.to, from + end * row.from,
                static_cast<size_t>(last_elements_ * element_bytes_));
  }
  while (begin < end) {
    int64_t index = begin / inner_rows;
    const int64_t first = begin % inner_rows;
    const int64_t count = std::min(inner_rows - first, end - begin);
    const Axis& row = axes_[static_cast<size_t>(outer)];
    const std::byte* source = from + first * row.from;
    std::byte* target = to + first * row.to;
    for (int d = outer - 1; d >= 0; --d) {
      const Axis& axis = axes_[static_cast<size_t>(d)];
      source += index % axis.size * axis.from;
      target += index % axis.size * axis.to;
      index /= axis.size;
    }
    RunRows(source, target, count);
    begin += count;
  }
}

}  // namespace millpower::kernels
