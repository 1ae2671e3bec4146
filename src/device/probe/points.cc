#include "device/probe/points.h"

#include <fmt/format.h>

#include "isa/layout.h"

namespace millpower::device::probe {
namespace {

constexpr char kEnd[] = "  end\nstream transfer\n  end\nstream link\n  end\n";

std::string Repeat(const std::string& line, int64_t count) {
  std::string all;
  for (int64_t i = 0; i < count; ++i) all += line;
  return all;
}

// One instruction on x [rows, columns] to y likewise.
std::string RowsText(int64_t columns, int64_t count, const std::string& instruction) {
  return fmt::format(
             "program rows\nregister rows 4096\nsemaphores 0\n"
             "buffer x input f32 rows [rows, {0}]\nbuffer weight weight f32 rows [1, {0}]\n"
             "buffer y output f32 rows [rows, {0}]\nstream compute\n",
             columns) +
         Repeat("  " + instruction + "\n", count) + kEnd;
}

}  // namespace

std::string ProductText(const ProductSize& size, DType type) {
  const bool quantised = IsBlockType(type);
  std::string text = fmt::format(
      "program product\nregister rows 1024\nsemaphores 0\nbuffer x input f32 rows [rows, {}]\n",
      size.steps);
  const int64_t shapes = quantised || size.channels == size.steps ? 1 : 2;  // there, and back
  const int64_t weights = size.one_weight ? shapes : size.count;
  for (int64_t i = 0; i < weights; ++i) {
    const bool back = i % shapes == 1;
    text += fmt::format("buffer w{} weight {} packed [{}, {}]\n", i, Name(type),
                        back ? size.steps : size.channels, back ? size.channels : size.steps);
  }
  if (quantised)
    text += fmt::format("buffer xq scratch i8 quantised [rows, {}]\n", size.steps);
  else
    text += fmt::format(
        "buffer there scratch f32 rows [rows, {}]\nbuffer back scratch f32 rows [rows, {}]\n",
        size.channels, size.steps);
  const bool ends_back = !quantised && size.count % 2 == 0;
  text += fmt::format("buffer y output f32 rows [rows, {}]\nstream compute\n",
                      ends_back ? size.steps : size.channels);
  if (quantised) text += "  quantise x=x y=xq\n";
  std::string from = quantised ? "xq" : "x";
  for (int64_t i = 0; i < size.count; ++i) {
    const std::string to = quantised || i + 1 == size.count ? "y" : i % 2 == 0 ? "there" : "back";
    text += fmt::format("  matmul x={} w=w{} y={} epilogue=none\n", from, i % weights, to);
    if (!quantised) from = to;
  }
  return text + kEnd;
}

std::string AttentionText(bool attends) {
  return std::string(
             "program attention\nregister rows 1024\nregister seqs 1024\n"
             "register page_entries 65536\nregister pages 65536 at_load\nsemaphores 0\n"
             "buffer q input f32 rows [rows, 2048]\nbuffer k input f32 rows [rows, 1024]\n"
             "buffer v input f32 rows [rows, 1024]\nbuffer sequences input i32 rows [seqs, 4]\n"
             "buffer pages input i32 rows [page_entries, 1] below pages\n"
             "buffer kv kv bf16 pages [pages, 8 x 128]\n"
             "buffer out output f32 rows [rows, 2048]\nstream compute\n"
             "  kv_append k=k v=v sequences=sequences pages=pages kv=kv\n") +
         (attends ? "  attention q=q sequences=sequences pages=pages kv=kv out=out heads=16 "
                    "scale=0.1 window=0\n"
                  : "") +
         kEnd;
}

std::string NormText(int64_t columns, int64_t count) {
  return RowsText(columns, count,
                  fmt::format("rms_norm x=x weight=weight y=y group={} epsilon=1e-06", columns));
}

std::string CopyText(int64_t columns, int64_t count) {
  return RowsText(columns, count,
                  fmt::format("copy x=x y=y perm=[0,1] begin=[0,0] step=[1,1] window=[rows,{}] "
                              "at=[0,0] gap=[1,1]",
                              columns));
}

std::string SoftmaxText(int64_t columns, int64_t count) {
  return RowsText(columns, count,
                  fmt::format("softmax x=x:[rows,{0}] y=y:[rows,{0}] log=0", columns));
}

std::string InteractionText(int64_t vectors, int64_t columns, bool picks) {
  const int64_t pairs = vectors * (vectors - 1) / 2;
  std::string text = fmt::format(
      "program interaction\nregister batch 4096\nsemaphores 0\n"
      "buffer a input f32 rows [batch, {0}]\nbuffer index input i32 rows [{1}, 1]\n"
      "buffer products scratch f32 rows [batch, {2}]\nbuffer y output f32 rows [batch, {1}]\n"
      "stream compute\n",
      vectors * columns, pairs, vectors * vectors);
  text += fmt::format(
      "  contract a=a:[batch,{0},{1}] b=a:[batch,{0},{1}] y=products:[batch,{0},{0}] "
      "transpose_a=0 transpose_b=1\n",
      vectors, columns);
  for (int64_t i = 0; i < (picks ? 4 : 1); ++i)
    text += fmt::format(
        "  take x=products:[batch,{0}] index=index:[{1}] y=y:[batch,{1}] axis=1 "
        "policy=1\n",
        vectors * vectors, pairs);
  return text + kEnd;
}

std::string BagText(int64_t tables, int64_t rows, int64_t columns, int64_t items) {
  std::string text = "program bags\nregister batch 4096\nsemaphores 0\n";
  for (int64_t i = 0; i < tables; ++i)
    text += fmt::format(
        "buffer ids{} input i64 rows [batch, {}]\nbuffer t{} weight f32 table [{}, {}]\n", i, items,
        i, rows, columns);
  text += fmt::format("buffer y output f32 rows [batch, {}]\nstream compute\n", tables * columns);
  for (int64_t i = 0; i < tables; ++i)
    text += fmt::format(
        "  embedding_bag table=t{0} index=ids{0}:[batch,{1}] y=y[{2}:{3}] mode=0 ends=0 policy=1 "
        "default_row=-1 padding_row=-1\n",
        i, items, i * columns, (i + 1) * columns);
  return text + kEnd;
}

void SetSequences(SmallProgram& program, int64_t sequences, int64_t rows, int64_t first,
                  int64_t first_page, int64_t pages) {
  const int64_t each = (first + rows + isa::kPagePositions - 1) / isa::kPagePositions;
  program.Set("rows", sequences * rows);
  program.Set("seqs", sequences);
  program.Set("page_entries", sequences * each);
  auto& work = program.Input("sequences");
  auto& list = program.Input("pages");
  work.clear();
  list.clear();
  for (int64_t i = 0; i < sequences; ++i) {
    for (const int64_t word : {i * rows, rows, first, i * each})
      work.push_back(static_cast<int32_t>(word));
    for (int64_t page = 0; page < each; ++page)
      list.push_back(static_cast<int32_t>((first_page + i * each + page) % pages));
  }
}

void SetIds(SmallProgram& program, int64_t tables, int64_t batch, int64_t items, int64_t rows,
            Rng& rng) {
  program.Set("batch", batch);
  for (int64_t table = 0; table < tables; ++table) {
    auto& ids = program.Input(fmt::format("ids{}", table));
    ids.clear();
    for (int64_t i = 0; i < batch * items; ++i) {
      ids.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(rows))));
      ids.push_back(0);  // the upper half
    }
  }
}

}  // namespace millpower::device::probe
