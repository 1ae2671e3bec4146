// Strided, permuted copies of elements of any size.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace millpower::kernels {

// How a copy of up to kMaxAxes axes is carried out: prepared from sizes and strides, then run in
// any number of pieces. Axes of one element are dropped, and those that follow each other on both
// sides become one. What is left are rows of the last axis, of which there are rows().
class CopyPlan {
 public:
  static constexpr int kMaxAxes = 8;
  static constexpr int64_t kBlock = 16;  // rows that are best done together, when transposing
  using Sizes = std::array<int64_t, kMaxAxes>;

  // Element (i0, i1, ...) goes from sum(i * from_strides) to sum(i * to_strides), in elements of
  // `element_bytes` (1, 2, 4, 8). No two places of the target are the same.
  CopyPlan(int64_t element_bytes, int axes, const Sizes& sizes, const Sizes& from_strides,
           const Sizes& to_strides);

  int64_t rows() const { return rows_; }  // independent pieces of work; 0 when there is none
  int64_t row_elements() const { return row_elements_; }

  // Rows [begin, end), 0 <= begin <= end <= rows().
  void Run(const std::byte* from, std::byte* to, int64_t begin, int64_t end) const;

 private:
  enum class Kind : uint8_t {
    kRuns,       // the last axis is consecutive on both sides
    kTranspose,  // the last but one is consecutive in the source, the last in the target
    kStrided,
  };
  static constexpr int64_t kPieceBytes = 32768;  // of a single run

  struct Axis {
    int64_t size = 1;
    int64_t from = 0, to = 0;  // strides in bytes
  };
  void Collapse();
  void Choose();
  void RunRows(const std::byte* from, std::byte* to, int64_t rows) const;

  std::array<Axis, kMaxAxes> axes_{};  // the last two are rows and their elements
  int axes_count_ = 0;
  int64_t element_bytes_ = 1;
  int64_t rows_ = 0;
  int64_t row_elements_ = 0;
  int64_t last_elements_ = 0;  // of the last row, where one run was cut into pieces
  Kind kind_ = Kind::kStrided;
};

}  // namespace millpower::kernels
