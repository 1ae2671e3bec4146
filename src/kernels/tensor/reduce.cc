#include "kernels/tensor/reduce.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace millpower::kernels {
namespace {

bool IsHalf(DType type) { return type == DType::kF16 || type == DType::kBf16; }

// y[i] = x[i * stride].
template <typename T>
void CopyAs(const std::byte* x, int64_t x_stride, std::byte* y, int64_t y_stride, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    reinterpret_cast<T*>(y)[i * y_stride] = reinterpret_cast<const T*>(x)[i * x_stride];
}

void Copy(int size_bytes, const std::byte* x, int64_t x_stride, std::byte* y, int64_t y_stride,
          int64_t count) {
  if (x_stride == 1 && y_stride == 1) {
    std::memcpy(y, x, static_cast<size_t>(count * size_bytes));
    return;
  }
  switch (size_bytes) {
    case 1:
      return CopyAs<uint8_t>(x, x_stride, y, y_stride, count);
    case 2:
      return CopyAs<uint16_t>(x, x_stride, y, y_stride, count);
    case 4:
      return CopyAs<uint32_t>(x, x_stride, y, y_stride, count);
    default:
      return CopyAs<uint64_t>(x, x_stride, y, y_stride, count);
  }
}

// Elements brought together, and widened: at most kBlock.
constexpr int64_t kBlock = 1024;
static_assert(kBlock % kReductionLanes == 0 && kBlock >= kReductionCols);
struct Block {
  alignas(64) std::byte elements[kBlock * 8];
  alignas(64) uint16_t halves[kBlock];
};

// Puts `count` elements behind the first `at` of the block, in the compute type.
void Fetch(const ElementKernels& set, DType type, const std::byte* x, int64_t stride, int64_t count,
           Block& block, int64_t at) {
  const int size_bytes = SizeBytes(type);
  if (!IsHalf(type)) return Copy(size_bytes, x, stride, block.elements + at * size_bytes, 1, count);
  Copy(size_bytes, x, stride, reinterpret_cast<std::byte*>(block.halves), 1, count);
  const WidenFunction widen = type == DType::kF16 ? set.widen_f16 : set.widen_bf16;
  widen(block.halves, reinterpret_cast<float*>(block.elements) + at, count);
}

bool IsPlace(Reduction kind) {
  return kind >= Reduction::kArgMax && kind <= Reduction::kLastArgMin;
}

}  // namespace

// ---- Reductions ----

// Lists that lie side by side are reduced side by side, the others one by one. The arithmetic is
// the same.
struct ReduceKernel::Plan {
  Plan(const AxisTensors& tensors, uint32_t axes)
      : kept(MakeNest(tensors.rank, tensors.dims, std::array{tensors.x_strides, tensors.y_strides},
                      ~axes)),
        reduced(MakeNest(tensors.rank, tensors.dims, std::span(&tensors.x_strides, 1), axes)),
        total(reduced.Elements()),
        by_cols(kept.inner() > 1 && (total <= 1 || kept.inner_stride(0) < reduced.inner_stride(0))),
        blocks((kept.inner() + kReductionCols - 1) / kReductionCols) {}
  Nest kept;     // of x, y
  Nest reduced;  // of x
  int64_t total;
  bool by_cols;
  int64_t blocks;  // of columns, in a row of the kept nest
};

ReduceKernel::ReduceKernel(const ElementKernels& set, Reduction kind, DType type, uint32_t axes)
    : set_(set),
      functions_(set.find_reduction(kind, ComputeType(type))),
      type_(type),
      result_type_(IsPlace(kind) ? DType::kI64 : type),
      axes_(axes) {
  CHECK(functions_ != nullptr) << Name(type);
}

int64_t ReduceKernel::Units(const AxisTensors& tensors) const {
  const Plan plan(tensors, axes_);
  const int64_t lists = plan.kept.Elements();
  return plan.by_cols ? lists / plan.kept.inner() * plan.blocks : lists;
}

int64_t ReduceKernel::UnitCost(const AxisTensors& tensors) const {
  const Plan plan(tensors, axes_);
  // What starting and finishing a list costs is that of some 16 elements.
  const int64_t cols = plan.by_cols ? std::min(kReductionCols, plan.kept.inner()) : 1;
  return cols * plan.total + 16;
}

void ReduceKernel::Run(const AxisTensors& tensors, int64_t begin, int64_t end) const {
  const Plan plan(tensors, axes_);
  const bool is_list = plan.reduced.rank == 1 && !IsHalf(type_) && !IsHalf(result_type_) &&
                       (plan.reduced.inner_stride(0) == 1 || plan.total == 1);
  for (int64_t unit = begin; unit < end;) {
    if (!plan.by_cols && is_list) {
      unit += ReduceLists(plan, tensors, unit, end - unit);
      continue;
    }
    if (plan.by_cols)
      ReduceCols(plan, tensors, unit);
    else
      ReduceList(plan, tensors, unit);
    ++unit;
  }
}

// Lists without gaps that lie evenly spaced, at most `units`. Returns how many that was.
int64_t ReduceKernel::ReduceLists(const Plan& plan, const AxisTensors& tensors, int64_t unit,
                                  int64_t units) const {
  const Place place(plan.kept, unit);
  const int64_t lists = std::min(units, plan.kept.inner() - place.inner());
  functions_->lists(
      tensors.x + place.Offset(0) * SizeBytes(type_), plan.total, lists, plan.kept.inner_stride(0),
      tensors.y + place.Offset(1) * SizeBytes(result_type_), plan.kept.inner_stride(1));
  return lists;
}

// Any list: its elements are brought together first.
void ReduceKernel::ReduceList(const Plan& plan, const AxisTensors& tensors, int64_t unit) const {
  const Place place(plan.kept, unit);
  const int size_bytes = SizeBytes(type_);
  const std::byte* x = tensors.x + place.Offset(0) * size_bytes;
  const int64_t stride = plan.reduced.inner_stride(0);
  ReductionState state;
  functions_->start(state);
  Block block;
  int64_t held = 0, added = 0;
  const auto flush = [&] {
    functions_->add(state, block.elements, held, added);
    added += held;
    held = 0;
  };
  ForRuns(plan.reduced, 0, Place(plan.reduced, 0), plan.total,
          [&](int64_t offset, int64_t, int64_t length) {
            for (int64_t done = 0; done < length;) {
              const int64_t count = std::min(length - done, kBlock - held);
              Fetch(set_, type_, x + (offset + done * stride) * size_bytes, stride, count, block,
                    held);
              held += count;
              done += count;
              if (held == kBlock) flush();
            }
          });
  if (held > 0) flush();
  alignas(8) std::byte result[8];
  functions_->finish(state, plan.total, result);
  StoreResults(result, 1, tensors.y + place.Offset(1) * SizeBytes(result_type_), 1);
}

void ReduceKernel::ReduceCols(const Plan& plan, const AxisTensors& tensors, int64_t unit) const {
  const int64_t first_col = unit % plan.blocks * kReductionCols;
  const int64_t cols = std::min(kReductionCols, plan.kept.inner() - first_col);
  const Place place(plan.kept, unit / plan.blocks * plan.kept.inner() + first_col);
  const int size_bytes = SizeBytes(type_);
  const std::byte* x = tensors.x + place.Offset(0) * size_bytes;
  const int64_t col_stride = plan.kept.inner_stride(0);
  const int64_t row_stride = plan.reduced.inner_stride(0);
  ReductionState state;
  functions_->start_cols(state, cols);
  ForRuns(plan.reduced, 0, Place(plan.reduced, 0), plan.total,
          [&](int64_t offset, int64_t done, int64_t rows) {
            const std::byte* run = x + offset * size_bytes;
            if (col_stride == 1 && !IsHalf(type_))
              return functions_->add_rows(state, run, cols, rows, row_stride, done);
            Block block;
            for (int64_t row = 0; row < rows; ++row) {
              Fetch(set_, type_, run + row * row_stride * size_bytes, col_stride, cols, block, 0);
              functions_->add_rows(state, block.elements, cols, 1, 0, done + row);
            }
          });
  alignas(64) std::byte results[kReductionCols * 8];
  functions_->finish_cols(state, cols, plan.total, results);
  StoreResults(results, cols, tensors.y + place.Offset(1) * SizeBytes(result_type_),
               plan.kept.inner_stride(1));
}

void ReduceKernel::StoreResults(const std::byte* results, int64_t count, std::byte* y,
                                int64_t stride) const {
  uint16_t halves[kReductionCols];
  if (IsHalf(result_type_)) {
    const NarrowFunction narrow = result_type_ == DType::kF16 ? set_.narrow_f16 : set_.narrow_bf16;
    narrow(reinterpret_cast<const float*>(results), halves, count);
    results = reinterpret_cast<const std::byte*>(halves);
  }
  Copy(SizeBytes(result_type_), results, 1, y, stride, count);
}

// ---- Running sums ----

namespace {

// How an element of a type is stored, and what it accumulates in.
template <typename T>
struct Number {
  using Stored = T;
  using Acc = std::conditional_t<std::is_floating_point_v<T>, double, uint64_t>;
  static Acc Load(T x) { return static_cast<Acc>(x); }
  static T Round(Acc x) { return static_cast<T>(x); }
};
struct HalfF16 {
  using Stored = uint16_t;
  using Acc = double;
  static double Load(uint16_t x) { return F16ToF32(x); }
  static uint16_t Round(double x) { return F32ToF16(RoundToOdd(x)); }
};
struct HalfBf16 {
  using Stored = uint16_t;
  using Acc = double;
  static double Load(uint16_t x) { return Bf16ToF32(x); }
  static uint16_t Round(double x) { return F32ToBf16(RoundToOdd(x)); }
};

// `cols` lists of n elements side by side.
struct Lists {
  const std::byte* x;
  std::byte* y;
  int64_t n, cols;
  int64_t x_stride, y_stride;          // along the axis
  int64_t x_col_stride, y_col_stride;  // between lists
  bool is_product, exclusive;
};

template <class Type, int64_t kCols>
void Cumulate(const Lists& lists) {
  using Stored = typename Type::Stored;
  using Acc = typename Type::Acc;
  Acc acc[kCols];
  std::fill_n(acc, lists.cols, static_cast<Acc>(lists.is_product ? 1 : 0));
  const auto* x = reinterpret_cast<const Stored*>(lists.x);
  auto* y = reinterpret_cast<Stored*>(lists.y);
  for (int64_t i = 0; i < lists.n; ++i, x += lists.x_stride, y += lists.y_stride)
    for (int64_t c = 0; c < lists.cols; ++c) {
      const Acc value = Type::Load(x[c * lists.x_col_stride]);
      const Acc next = lists.is_product ? acc[c] * value : acc[c] + value;
      y[c * lists.y_col_stride] = Type::Round(lists.exclusive ? acc[c] : next);
      acc[c] = next;
    }
}

}  // namespace

struct CumulateKernel::Plan {
  Plan(const AxisTensors& tensors, int axis)
      : kept(MakeNest(tensors.rank, tensors.dims, std::array{tensors.x_strides, tensors.y_strides},
                      ~(1u << axis))),
        n(tensors.dims[static_cast<size_t>(axis)]),
        x_stride(tensors.x_strides[static_cast<size_t>(axis)]),
        y_stride(tensors.y_strides[static_cast<size_t>(axis)]),
        cols(kept.inner_stride(0) < x_stride ? std::min(kCols, kept.inner()) : 1),
        blocks((kept.inner() + cols - 1) / cols) {}
  Nest kept;  // of x, y
  int64_t n, x_stride, y_stride;
  int64_t cols;    // lists that a unit takes
  int64_t blocks;  // of them, in a row of the nest
};

CumulateKernel::CumulateKernel(Reduction kind, DType type, int axis, bool exclusive, bool reverse)
    : type_(type),
      axis_(axis),
      is_product_(kind == Reduction::kProduct),
      exclusive_(exclusive),
      reverse_(reverse) {}

int64_t CumulateKernel::Units(const AxisTensors& tensors) const {
  const int64_t lists =
      MakeNest(tensors.rank, tensors.dims, std::span(&tensors.x_strides, 1), ~(1u << axis_))
          .Elements();
  if (lists == 0 || tensors.dims[static_cast<size_t>(axis_)] == 0) return 0;
  const Plan plan(tensors, axis_);
  return lists / plan.kept.inner() * plan.blocks;
}

int64_t CumulateKernel::UnitCost(const AxisTensors& tensors) const {
  const Plan plan(tensors, axis_);
  return 4 * plan.n * plan.cols;
}

void CumulateKernel::Run(const AxisTensors& tensors, int64_t begin, int64_t end) const {
  const Plan plan(tensors, axis_);
  const int size_bytes = SizeBytes(type_);
  const int64_t from = reverse_ ? plan.n - 1 : 0;  // the element that comes first
  const int64_t sign = reverse_ ? -1 : 1;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t first = unit % plan.blocks * plan.cols;
    const Place place(plan.kept, unit / plan.blocks * plan.kept.inner() + first);
    const Lists lists{.x = tensors.x + (place.Offset(0) + from * plan.x_stride) * size_bytes,
                      .y = tensors.y + (place.Offset(1) + from * plan.y_stride) * size_bytes,
                      .n = plan.n,
                      .cols = std::min(plan.cols, plan.kept.inner() - first),
                      .x_stride = sign * plan.x_stride,
                      .y_stride = sign * plan.y_stride,
                      .x_col_stride = plan.kept.inner_stride(0),
                      .y_col_stride = plan.kept.inner_stride(1),
                      .is_product = is_product_,
                      .exclusive = exclusive_};
    switch (type_) {
      case DType::kF32:
        Cumulate<Number<float>, kCols>(lists);
        break;
      case DType::kF64:
        Cumulate<Number<double>, kCols>(lists);
        break;
      case DType::kF16:
        Cumulate<HalfF16, kCols>(lists);
        break;
      case DType::kBf16:
        Cumulate<HalfBf16, kCols>(lists);
        break;
      // Sums and products wrap alike, whether signed or not.
      case DType::kI8:
      case DType::kU8:
        Cumulate<Number<uint8_t>, kCols>(lists);
        break;
      case DType::kI16:
      case DType::kU16:
        Cumulate<Number<uint16_t>, kCols>(lists);
        break;
      case DType::kI32:
      case DType::kU32:
        Cumulate<Number<uint32_t>, kCols>(lists);
        break;
      default:
        Cumulate<Number<uint64_t>, kCols>(lists);
    }
  }
}

}  // namespace millpower::kernels
