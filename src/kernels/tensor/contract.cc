#include "kernels/tensor/contract.h"

#include <algorithm>
#include <cstring>

#include "isa/layout.h"
#include "kernels/tensor/element.h"

namespace millpower::kernels {
namespace {

struct Strides {
  int64_t row;
  int64_t column;
};

// Four floats, as every x86-64 and ARMv8 has them in a register.
using Four = float __attribute__((vector_size(16)));

Four LoadFour(const float* from) {
  Four four;
  std::memcpy(&four, from, sizeof four);
  return four;
}

// to[column][row] of 4 rows and columns: pairs of rows are interleaved twice.
void TransposeFour(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  const Four a = LoadFour(from), b = LoadFour(from + from_stride);
  const Four c = LoadFour(from + 2 * from_stride), d = LoadFour(from + 3 * from_stride);
  const Four ac_low = __builtin_shufflevector(a, c, 0, 4, 1, 5);
  const Four ac_high = __builtin_shufflevector(a, c, 2, 6, 3, 7);
  const Four bd_low = __builtin_shufflevector(b, d, 0, 4, 1, 5);
  const Four bd_high = __builtin_shufflevector(b, d, 2, 6, 3, 7);
  const Four columns[] = {__builtin_shufflevector(ac_low, bd_low, 0, 4, 1, 5),
                          __builtin_shufflevector(ac_low, bd_low, 2, 6, 3, 7),
                          __builtin_shufflevector(ac_high, bd_high, 0, 4, 1, 5),
                          __builtin_shufflevector(ac_high, bd_high, 2, 6, 3, 7)};
  for (int i = 0; i < 4; ++i) std::memcpy(to + i * to_stride, &columns[i], sizeof(Four));
}

// to[row][column] in f32, from a matrix of which rows are consecutive down the columns.
void PackTransposed(const float* from, int64_t column_stride, int64_t rows, int64_t columns,
                    float* to, int64_t to_stride) {
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t column = 0; column < whole_columns; column += 4)
    for (int64_t row = 0; row < whole_rows; row += 4)
      TransposeFour(from + column * column_stride + row, column_stride,
                    to + row * to_stride + column, to_stride);
  for (int64_t column = 0; column < columns; ++column)
    for (int64_t row = column < whole_columns ? whole_rows : 0; row < rows; ++row)
      to[row * to_stride + column] = from[column * column_stride + row];
}

// to[row][column] in f32, of rows `to_stride` apart.
template <DType kType>
void Pack(const std::byte* data, Strides strides, int64_t rows, int64_t columns, float* to,
          int64_t to_stride) {
  const auto* from = reinterpret_cast<const typename Element<kType>::Stored*>(data);
  if constexpr (kType == DType::kF32) {
    if (strides.row == 1 && strides.column != 1)
      return PackTransposed(from, strides.column, rows, columns, to, to_stride);
    if (strides.column == 1) {
      for (int64_t row = 0; row < rows; ++row)
        std::copy_n(from + row * strides.row, columns, to + row * to_stride);
      return;
    }
  }
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column)
      to[row * to_stride + column] =
          Element<kType>::Widen(from[row * strides.row + column * strides.column]);
}

// One panel of at most kProductColumns columns of an f32 product.
void FloatPanel(const KernelSet& set, const ProductArgs& args, float* y, int64_t y_stride,
                float* scratch) {
  ContractArgs panel{.a = reinterpret_cast<const float*>(args.a),
                     .b = reinterpret_cast<const float*>(args.b),
                     .y = y,
                     .m = args.m,
                     .k = args.k,
                     .n = args.n,
                     .a_row_stride = args.a_row_stride,
                     .a_step_stride = args.a_step_stride,
                     .b_stride = args.b_step_stride,
                     .y_stride = y_stride};
  // Read in place, each step of a wide b is another page of memory, for every tile of rows again.
  constexpr int64_t kNarrow = 256, kFewRows = 16;
  if (args.b_column_stride == 1 && (args.b_step_stride <= kNarrow || args.m <= kFewRows))
    return set.contract(panel);
  panel.b = scratch;
  panel.b_stride = kProductColumns;
  for (int64_t step = 0; step == 0 || step < args.k; step += kProductSteps) {
    panel.k = std::min(kProductSteps, args.k - step);
    panel.carry = step > 0;
    Pack<DType::kF32>(args.b + step * args.b_step_stride * SizeBytes(DType::kF32),
                      {args.b_step_stride, args.b_column_stride}, panel.k, args.n, scratch,
                      kProductColumns);
    set.contract(panel);
    panel.a += panel.k * args.a_step_stride;
  }
}

// The transposed product y' = b' a': lanes of vectors are columns, of which y' has more.
ProductArgs Transposed(const ProductArgs& args) {
  ProductArgs transposed = args;
  transposed.a = args.b;
  transposed.b = args.a;
  transposed.m = args.n;
  transposed.n = args.m;
  transposed.a_row_stride = args.b_column_stride;
  transposed.a_step_stride = args.b_step_stride;
  transposed.b_step_stride = args.a_step_stride;
  transposed.b_column_stride = args.a_row_stride;
  return transposed;
}

void FloatProduct(const KernelSet& set, const ProductArgs& args, float* scratch) {
  auto* y = reinterpret_cast<float*>(args.y);
  const bool narrow = args.n < isa::kLanes && args.m > 2 * args.n;
  ProductArgs panel = narrow ? Transposed(args) : args;
  const int64_t columns = panel.n;
  const std::byte* const b = panel.b;
  for (int64_t column = 0; column < columns; column += kProductColumns) {
    panel.b = b + column * panel.b_column_stride * SizeBytes(DType::kF32);
    panel.n = std::min(kProductColumns, columns - column);
    if (!narrow) {
      FloatPanel(set, panel, y + column, args.y_stride, scratch);
      continue;
    }
    float* const tile = scratch + kProductSteps * kProductColumns;
    FloatPanel(set, panel, tile, kProductColumns, scratch);
    for (int64_t row = 0; row < panel.n; ++row)
      for (int64_t n = 0; n < args.n; ++n)
        y[(column + row) * args.y_stride + n] = tile[n * kProductColumns + row];
  }
}

// Tiles of y in f32, from panels of both operands in f32.
template <DType kType>
void HalfProduct(const KernelSet& set, const ProductArgs& args, float* scratch) {
  float* const b = scratch;
  float* const a = b + kProductSteps * kProductColumns;
  float* const tile = a + kProductRows * kProductSteps;
  auto* y = reinterpret_cast<uint16_t*>(args.y);
  for (int64_t row = 0; row < args.m; row += kProductRows) {
    for (int64_t column = 0; column < args.n; column += kProductColumns) {
      ContractArgs part{.a = a,
                        .b = b,
                        .y = tile,
                        .m = std::min(kProductRows, args.m - row),
                        .n = std::min(kProductColumns, args.n - column),
                        .a_row_stride = kProductSteps,
                        .a_step_stride = 1,
                        .b_stride = kProductColumns,
                        .y_stride = kProductColumns};
      for (int64_t step = 0; step == 0 || step < args.k; step += kProductSteps) {
        part.k = std::min(kProductSteps, args.k - step);
        part.carry = step > 0;
        Pack<kType>(args.a + (row * args.a_row_stride + step * args.a_step_stride) * 2,
                    {args.a_row_stride, args.a_step_stride}, part.m, part.k, a, kProductSteps);
        Pack<kType>(args.b + (step * args.b_step_stride + column * args.b_column_stride) * 2,
                    {args.b_step_stride, args.b_column_stride}, part.k, part.n, b, kProductColumns);
        set.contract(part);
      }
      for (int64_t r = 0; r < part.m; ++r)
        for (int64_t c = 0; c < part.n; ++c)
          y[(row + r) * args.y_stride + column + c] =
              Element<kType>::Round(tile[r * kProductColumns + c]);
    }
  }
}

template <typename T>
void PlainProduct(const ProductArgs& args) {
  const auto* a = reinterpret_cast<const T*>(args.a);
  const auto* b = reinterpret_cast<const T*>(args.b);
  auto* y = reinterpret_cast<T*>(args.y);
  for (int64_t row = 0; row < args.m; ++row) {
    for (int64_t column = 0; column < args.n; column += kProductColumns) {
      const int64_t width = std::min(kProductColumns, args.n - column);
      Wrapping<T> sums[kProductColumns] = {};
      for (int64_t step = 0; step < args.k; ++step) {
        const auto value =
            static_cast<Wrapping<T>>(a[row * args.a_row_stride + step * args.a_step_stride]);
        const T* from = b + step * args.b_step_stride + column * args.b_column_stride;
        for (int64_t c = 0; c < width; ++c)
          sums[c] += value * static_cast<Wrapping<T>>(from[c * args.b_column_stride]);
      }
      for (int64_t c = 0; c < width; ++c)
        y[row * args.y_stride + column + c] = static_cast<T>(sums[c]);
    }
  }
}

}  // namespace

void Product(const KernelSet& set, const ProductArgs& args, float* scratch) {
  switch (args.type) {
    case DType::kF32:
      return FloatProduct(set, args, scratch);
    case DType::kF16:
      return HalfProduct<DType::kF16>(set, args, scratch);
    case DType::kBf16:
      return HalfProduct<DType::kBf16>(set, args, scratch);
    case DType::kF64:
      return PlainProduct<double>(args);
    default:
      break;
  }
  // Modulo 2^bits the sign of an integer does not matter.
  switch (SizeBytes(args.type)) {
    case 1:
      return PlainProduct<uint8_t>(args);
    case 2:
      return PlainProduct<uint16_t>(args);
    case 4:
      return PlainProduct<uint32_t>(args);
    default:
      return PlainProduct<uint64_t>(args);
  }
}

}  // namespace millpower::kernels
