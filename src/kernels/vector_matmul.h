// Matrix multiply, of rows and of entries: vector_kernels.h explains.
#pragma once

#include "kernels/vector_dot.h"
#include "kernels/vector_quantised.h"

namespace millpower::kernels {
namespace {

// The blocks [block, block + count) of one row of y from their dot products.
template <class V>
[[gnu::always_inline]] inline void FinishBlocks(const MatMulArgs& args, int64_t row, float* y,
                                                int64_t width, int64_t block, int64_t count,
                                                const float* acc) {
  if (args.epilogue == Epilogue::kSiluGate) {
    for (int64_t b = 0; b < count; b += 2) {
      const int64_t channel = (block + b) / 2 * kLanes;
      StoreFirst<V>(
          width - channel, y + channel,
          V::Mul(VectorSilu<V>(V::Load(acc + b * kLanes)), V::Load(acc + (b + 1) * kLanes)));
    }
    return;
  }
  for (int64_t b = 0; b < count; ++b) {
    const int64_t channel = (block + b) * kLanes;
    const int64_t lanes = width - channel;
    auto value = V::Load(acc + b * kLanes);
    if (args.bias != nullptr) value = V::Add(value, LoadFirst<V>(lanes, args.bias + channel));
    if (args.residual != nullptr) {
      const auto residual =
          LoadFirst<V>(lanes, args.residual + row * args.residual_stride + channel);
      value = args.epilogue == Epilogue::kSiluMul ? V::Mul(VectorSilu<V>(residual), value)
                                                  : V::Add(residual, value);
    }
    if (args.epilogue == Epilogue::kRelu) value = V::Max(V::Zero(), value);  // NaN and -0 stay
    StoreFirst<V>(lanes, y + channel, value);
  }
}

// Where one row of the product comes from and goes to.
struct RowPlace {
  int64_t row;      // of x and y
  int64_t x_begin;  // first column of x
  int64_t y_begin;
};

inline __attribute__((always_inline)) RowPlace PlaceOf(const MatMulArgs& args, int64_t row) {
  if (args.entries.entries == nullptr) return {row, 0, 0};
  const int64_t entry = args.entries.entries[row];
  const int64_t choice = entry % args.entries.choices;
  return {entry / args.entries.choices, args.entries.x_per_choice ? choice * args.k : 0,
          choice * args.entries.width};
}

// Output channels of y as far as the epilogue leaves them.
inline int64_t WidthOf(const MatMulArgs& args) {
  if (args.entries.entries != nullptr) return args.entries.width;
  return args.epilogue == Epilogue::kSiluGate ? args.n / 2 : args.n;
}

// Blocks that a tile of rows takes at a time, at most.
constexpr int64_t kPanel = 4;

// With few rows weights come from memory, and a tile takes all rows that it can, so that none comes
// twice. With many they come from the caches, and the squarest tile loads the least.
constexpr int64_t kManyRows = 32;

// Ahead by more than a memory access takes: with few rows 4 streams of 32 lines at a line in 6
// cycles are 768 cycles; with more, a tile has fewer streams.
inline int64_t AheadBytes(int64_t rows) { return rows <= 2 ? 2048 : 4096; }

// Blocks [block, block + count) of a packed weight, lines [first, first + lines) of each.
struct Piece {
  int64_t block, count;
  int64_t first, lines;
};

// The pieces of a product of float weights with many rows, in the order in which they are computed:
// a chunk of rows stays in the level 2 cache while all panels of blocks pass; so does a piece of a
// panel (4 blocks of 512 lines are 128 KB) while the chunk's tiles pass, each of which adds to its
// sums. Meanwhile the next piece comes from memory or wherever it is.
template <class V, DType kType>
class ChunkedProduct {
 public:
  ChunkedProduct(const MatMulArgs& args, int64_t block_begin, int64_t block_end)
      : args_(args),
        block_begin_(block_begin),
        block_end_(block_end),
        lines_(isa::PackedLines(args.k, kType)),
        pieces_((lines_ + kPieceLines - 1) / kPieceLines) {}

  void Run() {
    const int64_t x_bytes = args_.k * static_cast<int64_t>(sizeof(float));
    const int64_t most = Max(kLeastRows, Min(kMostRows, kChunkBytes / x_bytes));
    const int64_t chunks = (args_.rows + most - 1) / most;
    for (int64_t c = 0; c < chunks; ++c) {
      row_begin_ = TileBegin(args_.rows, chunks, c);
      row_end_ = TileBegin(args_.rows, chunks, c + 1);
      for (int64_t block = block_begin_; block < block_end_; block += kPanel)
        for (int64_t p = 0; p < pieces_; ++p) RunPiece(At(block, p), Next(block, p));
    }
  }

 private:
  static constexpr int64_t kPieceLines = 512;
  static constexpr int64_t kChunkBytes = int64_t{1} << 20;
  static constexpr int64_t kLeastRows = 48, kMostRows = 192;

  Piece At(int64_t block, int64_t p) const {
    const int64_t first = TileBegin(lines_, pieces_, p);
    return {block, Min(kPanel, block_end_ - block), first,
            TileBegin(lines_, pieces_, p + 1) - first};
  }
  // The piece after that; after the last one the first, which the next chunk begins with.
  Piece Next(int64_t block, int64_t p) const {
    if (p + 1 < pieces_) return At(block, p + 1);
    return At(block + kPanel < block_end_ ? block + kPanel : block_begin_, 0);
  }
  const std::byte* LinesOf(const Piece& piece) const {
    return args_.w + (piece.block * lines_ + piece.first) * isa::kLineBytes;
  }

  void RunPiece(const Piece& piece, const Piece& next) {
    constexpr int64_t kSteps = isa::StepsPerLine(kType);
    const bool is_first = piece.first == 0, is_last = piece.first + piece.lines == lines_;
    const int64_t step = piece.first * kSteps;
    const int64_t steps = is_last ? args_.k - step : piece.lines * kSteps;
    const int64_t rows = row_end_ - row_begin_;
    const int64_t tiles = (rows + V::kSquareRows - 1) / V::kSquareRows;
    const int64_t share_bytes = (next.lines * isa::kLineBytes + tiles - 1) / tiles;
    const int64_t block_bytes = lines_ * isa::kLineBytes;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = TileBegin(rows, tiles, t);
      const int64_t count = TileBegin(rows, tiles, t + 1) - first;
      float* sums = sums_ + (pieces_ == 1 ? 0 : first * kPanel * kLanes);
      const StridedRows x(args_.x + (row_begin_ + first) * args_.x_stride + step, args_.x_stride);
      // Each tile fetches its share of the next piece.
      const Ahead<StridedBlocks> ahead{{LinesOf(next) + t * share_bytes, block_bytes},
                                       (share_bytes + piece.lines - 1) / piece.lines};
      DotRows<V, kType>(count, x, steps, StridedBlocks(LinesOf(piece), block_bytes), ahead,
                        piece.count, sums, kPanel * kLanes, !is_first);
      for (int64_t r = 0; is_last && r < count; ++r) {
        const int64_t row = row_begin_ + first + r;
        FinishBlocks<V>(args_, row, args_.y + row * args_.y_stride, WidthOf(args_), piece.block,
                        piece.count, sums + r * kPanel * kLanes);
      }
    }
  }

  const MatMulArgs& args_;
  const int64_t block_begin_, block_end_;
  const int64_t lines_;  // of a block
  const int64_t pieces_;
  int64_t row_begin_ = 0, row_end_ = 0;  // of the chunk
  alignas(64) float sums_[kMostRows * kPanel * kLanes];
};

// A panel of a few blocks is read from memory by the first tile of rows and stays in the level 2
// cache while the other rows pass: 4 blocks of k = 3072 in bf16 are 4 * 3072 * 32 = 393 KB.
template <class V, DType kType>
void MatMulOf(const MatMulArgs& args, int64_t block_begin, int64_t block_end) {
  constexpr bool kQuantised = IsBlockType(kType);
  constexpr int64_t kTileRows = kQuantised ? V::kQuantisedRows : V::kTileRows;
  if constexpr (!kQuantised)
    if (args.rows > kTileRows && args.entries.entries == nullptr)
      return ChunkedProduct<V, kType>(args, block_begin, block_end).Run();
  const int64_t most_rows =
      kQuantised || args.rows < kManyRows ? kTileRows : Min(kTileRows, V::kSquareRows);
  const int64_t ahead_bytes = AheadBytes(args.rows);
  const int64_t tiles = (args.rows + most_rows - 1) / most_rows;
  const int64_t block_bytes = isa::PackedLines(args.k, kType) * isa::kLineBytes;
  const int64_t width = WidthOf(args);
  for (int64_t block = block_begin; block < block_end; block += kPanel) {
    const int64_t count = Min(kPanel, block_end - block);
    const std::byte* first_block = args.w + block * block_bytes;
    const StridedBlocks blocks(first_block, block_bytes);
    const Ahead<StridedBlocks> ahead{{first_block + ahead_bytes, block_bytes}};
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = TileBegin(args.rows, tiles, t);
      const int64_t rows = TileBegin(args.rows, tiles, t + 1) - first;
      alignas(64) float acc[kTileRows * kPanel * kLanes];
      RowPlace places[kTileRows];
      for (int64_t r = 0; r < rows; ++r) places[r] = PlaceOf(args, first + r);
      if constexpr (kQuantised) {
        const std::byte* x[kTileRows];
        for (int64_t r = 0; r < rows; ++r)
          x[r] = args.xq + places[r].row * args.xq_stride_bytes +
                 places[r].x_begin / isa::kQuantGroup * isa::kQuantGroupBytes;
        const std::byte* starts[kPanel];
        for (int64_t b = 0; b < count; ++b) starts[b] = first_block + b * block_bytes;
        QuantisedRows<V, kType>(rows, x, isa::QuantisedGroups(args.k), starts, ahead_bytes, count,
                                acc, kPanel * kLanes);
      } else if (args.entries.entries != nullptr) {
        ListedRows<kTileRows> x;
        for (int64_t r = 0; r < rows; ++r)
          x.x[r] = args.x + places[r].row * args.x_stride + places[r].x_begin;
        DotRows<V, kType>(rows, x, args.k, blocks, ahead, count, acc, kPanel * kLanes);
      } else {
        const StridedRows x(args.x + first * args.x_stride, args.x_stride);
        DotRows<V, kType>(rows, x, args.k, blocks, ahead, count, acc, kPanel * kLanes);
      }
      for (int64_t r = 0; r < rows; ++r)
        FinishBlocks<V>(args, first + r, args.y + places[r].row * args.y_stride + places[r].y_begin,
                        width, block, count, acc + r * kPanel * kLanes);
    }
  }
}

template <class V>
void MatMul(const MatMulArgs& args, int64_t block_begin, int64_t block_end) {
  if (args.weight_type == DType::kF8E4M3 || (IsBlockType(args.weight_type) && args.xq == nullptr))
    return ScalarMatMul(args, block_begin, block_end);
  switch (args.weight_type) {
    case DType::kF32:
      return MatMulOf<V, DType::kF32>(args, block_begin, block_end);
    case DType::kQ8_0:
      return MatMulOf<V, DType::kQ8_0>(args, block_begin, block_end);
    case DType::kQ4_0:
      return MatMulOf<V, DType::kQ4_0>(args, block_begin, block_end);
    case DType::kQ4_K:
      return MatMulOf<V, DType::kQ4_K>(args, block_begin, block_end);
    case DType::kQ6_K:
      return MatMulOf<V, DType::kQ6_K>(args, block_begin, block_end);
    default:
      return MatMulOf<V, DType::kBf16>(args, block_begin, block_end);
  }
}

}  // namespace
}  // namespace millpower::kernels
