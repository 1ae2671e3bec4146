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

std::string PerceptronText(std::span<const int64_t> widths) {
  std::string text = fmt::format(
      "program perceptron\nregister rows 1024\nsemaphores 0\nbuffer x0 input f32 rows [rows, {}]\n",
      widths.front());
  for (size_t i = 1; i < widths.size(); ++i)
    text += fmt::format(
        "buffer w{0} weight f32 packed [{1}, {2}]\nbuffer x{0} {3} f32 rows [rows, {1}]\n", i,
        widths[i], widths[i - 1], i + 1 < widths.size() ? "scratch" : "output");
  text += "stream compute\n";
  for (size_t i = 1; i < widths.size(); ++i)
    text += fmt::format("  matmul x=x{0} w=w{1} y=x{1} epilogue=relu\n", i - 1, i);
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

std::string RecommenderText(std::span<const int64_t> rows) {
  constexpr int64_t kColumns = 16;
  const auto tables = std::ssize(rows);
  const int64_t vectors = tables + 1, pairs = vectors * (vectors - 1) / 2;
  std::string text =
      "program recommender\nregister batch 4096\nsemaphores 0\n"
      "buffer dense input f32 rows [batch, 24]\n";
  std::string work = "stream compute\n";
  for (int64_t i = 0; i < tables; ++i) {
    text += fmt::format(
        "buffer ids{0} input i64 rows [batch, 1]\nbuffer t{0} weight f32 table [{1}, {2}]\n", i,
        rows[static_cast<size_t>(i)], kColumns);
    work += fmt::format(
        "  embedding_bag table=t{0} index=ids{0}:[batch,1] y=vectors[{1}:{2}] mode=0 ends=0 "
        "policy=1 default_row=-1 padding_row=-1\n",
        i, (i + 1) * kColumns, (i + 2) * kColumns);
  }
  text += fmt::format(
      "buffer index input i32 rows [{0}, 1]\nbuffer vectors scratch f32 rows [batch, {1}]\n"
      "buffer products scratch f32 rows [batch, {2}]\nbuffer picked scratch f32 rows [batch, "
      "{3}]\n",
      pairs, vectors * kColumns, vectors * vectors, kColumns + pairs);
  const auto product = [&](const std::string& x, int64_t steps, const std::string& y,
                           int64_t channels) {
    text += fmt::format("buffer w_{} weight f32 packed [{}, {}]\n", y, channels, steps);
    if (y != "vectors")
      text += fmt::format("buffer {} {} f32 rows [batch, {}]\n", y,
                          y == "out" ? "output" : "scratch", channels);
    work += fmt::format("  matmul x={0} w=w_{1} y={1}{2} epilogue=relu\n", x, y,
                        y == "vectors" ? fmt::format("[0:{}]", channels) : "");
  };
  product("dense", 24, "wide", 256);
  product("wide", 256, "narrow", 64);
  product("narrow", 64, "vectors", kColumns);
  work += fmt::format(
      "  contract a=vectors:[batch,{0},{1}] b=vectors:[batch,{0},{1}] y=products:[batch,{0},{0}] "
      "transpose_a=0 transpose_b=1\n"
      "  copy x=vectors[0:{1}] y=picked[0:{1}] perm=[0,1] begin=[0,0] step=[1,1] "
      "window=[batch,{1}] at=[0,0] gap=[1,1]\n"
      "  take x=products:[batch,{2}] index=index:[{3}] y=picked[{1}:{4}] axis=1 policy=1\n",
      vectors, kColumns, vectors * vectors, pairs, kColumns + pairs);
  product("picked", kColumns + pairs, "top", 512);
  product("top", 512, "last", 256);
  product("last", 256, "out", kColumns);
  return text + work + kEnd;
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

void SetIds(SmallProgram& program, std::span<const int64_t> rows, int64_t batch, int64_t items,
            Rng& rng) {
  program.Set("batch", batch);
  for (size_t table = 0; table < rows.size(); ++table) {
    auto& ids = program.Input(fmt::format("ids{}", table));
    ids.clear();
    for (int64_t i = 0; i < batch * items; ++i) {
      ids.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(rows[table]))));
      ids.push_back(0);  // the upper half
    }
  }
}

}  // namespace millpower::device::probe
