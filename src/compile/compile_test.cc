#include "compile/compile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>
#include <functional>

#include "compile/test_graph.h"
#include "isa/encoding.h"
#include "isa/verify.h"

namespace millpower::compile {
namespace {

using testing::HasSubstr;

Compiled CompileOrDie(const ir::Graph& graph, const Options& options = {}) {
  auto compiled = Compile(graph, options);
  CHECK(compiled) << compiled.error().message;
  return std::move(*compiled);
}

// Instructions by opcode, of all streams.
std::array<int, isa::kOpcodeCount> Count(const isa::Program& program) {
  std::array<int, isa::kOpcodeCount> counts{};
  for (const auto& stream : program.streams)
    for (const isa::Instruction& in : stream) ++counts[static_cast<size_t>(in.op)];
  return counts;
}

const isa::Buffer& BufferOf(const isa::Program& program, const std::string& name) {
  const int32_t id = program.FindBuffer(name);
  CHECK(id >= 0) << name;
  return program.buffers[static_cast<size_t>(id)];
}

TEST(Compile, FusesALayerIntoTwelveInstructions) {
  for (const int64_t layers : {1, 2, 5}) {
    const Compiled compiled = CompileOrDie(Builder({.layers = layers}).Model());
    const auto counts = Count(compiled.program);
    auto count = [&](isa::Opcode op) { return counts[static_cast<size_t>(op)]; };
    EXPECT_EQ(count(isa::Opcode::kRmsNorm), 4 * layers + 1);
    EXPECT_EQ(count(isa::Opcode::kMatMul), 4 * layers + 1);  // qkv, o, gate and up, down
    EXPECT_EQ(count(isa::Opcode::kRope), 2 * layers);
    EXPECT_EQ(count(isa::Opcode::kKvAppend), layers);
    EXPECT_EQ(count(isa::Opcode::kAttention), layers);
    EXPECT_EQ(count(isa::Opcode::kRopeTable), 1);
    EXPECT_EQ(count(isa::Opcode::kGather), 2);
    EXPECT_EQ(count(isa::Opcode::kSample), 1);
    EXPECT_EQ(count(isa::Opcode::kEnd), isa::kStreamCount);
    EXPECT_EQ(count(isa::Opcode::kWait), count(isa::Opcode::kPost));
    EXPECT_LE(count(isa::Opcode::kWait), 2 * layers + 3);
    int adds = 0, gates = 0;
    for (const isa::Instruction& in : compiled.program.streams[0]) {
      if (in.op != isa::Opcode::kMatMul) continue;
      const auto epilogue = static_cast<isa::Epilogue>(in.integer(isa::matmul::kEpilogue));
      adds += epilogue == isa::Epilogue::kAdd ? 1 : 0;
      gates += epilogue == isa::Epilogue::kSiluGate ? 1 : 0;
    }
    EXPECT_EQ(adds, 2 * layers);
    EXPECT_EQ(gates, layers);
  }
}

TEST(Compile, ScratchDoesNotGrowWithLayers) {
  auto scratch = [](int64_t layers) {
    int count = 0;
    for (const isa::Buffer& buffer :
         CompileOrDie(Builder({.layers = layers}).Model()).program.buffers)
      count += buffer.kind == isa::BufferKind::kScratch ? 1 : 0;
    return count;
  };
  EXPECT_EQ(scratch(2), scratch(6));
}

TEST(Compile, DeclaresWeightsAsTheyArePacked) {
  const Compiled compiled = CompileOrDie(Builder({.bias = true}).Model());
  auto expect = [&](const std::string& name, isa::Form form, int64_t rows, int64_t cols) {
    const isa::Buffer& buffer = BufferOf(compiled.program, name);
    EXPECT_EQ(buffer.kind, isa::BufferKind::kWeight) << name;
    EXPECT_EQ(buffer.form, form) << name;
    EXPECT_EQ(buffer.rows, (isa::Dim{-1, rows})) << name;
    EXPECT_EQ(buffer.cols, cols) << name;
    EXPECT_TRUE(compiled.packing.contains(name)) << name;
  };
  expect("embed", isa::Form::kPacked, 37, 21);
  expect("head", isa::Form::kPacked, 37, 21);
  expect("0.q.weight.merged", isa::Form::kPacked, 18 + 6 + 6, 21);
  expect("0.q.weight.merged.bias", isa::Form::kRows, 1, 18 + 6 + 6);
  expect("1.o.weight", isa::Form::kPacked, 21, 18);
  expect("1.gate.weight.gated", isa::Form::kPacked, 2 * 32, 21);
  expect("1.down.weight", isa::Form::kPacked, 21, 27);
  expect("inv_freq", isa::Form::kRows, 1, 3);
  expect("norm.weight", isa::Form::kRows, 1, 21);
  size_t weights = 0;
  for (const isa::Buffer& buffer : compiled.program.buffers)
    weights += buffer.kind == isa::BufferKind::kWeight ? 1 : 0;
  EXPECT_EQ(weights, compiled.packing.size());
  EXPECT_EQ(compiled.packing.at("0.q.weight.merged").slices,
            (std::vector<ir::TensorSlice>{
                {"0.q.weight", 0, 0}, {"0.k.weight", 0, 0}, {"0.v.weight", 0, 0}}));
}

TEST(Compile, StoresATiedEmbeddingOnce) {
  const Compiled compiled = CompileOrDie(Builder({.tied = true}).Model());
  const int32_t embed = compiled.program.FindBuffer("embed");
  EXPECT_LT(compiled.program.FindBuffer("head"), 0);
  int uses = 0;
  for (const auto& stream : compiled.program.streams)
    for (const isa::Instruction& in : stream)
      for (const isa::Operand& operand : in.operands) uses += operand.buffer == embed ? 1 : 0;
  EXPECT_EQ(uses, 2);
}

TEST(Compile, TakesTheTypesAskedFor) {
  auto types = [](DType file, const Options& options) {
    const Compiled compiled = CompileOrDie(Builder({.dtype = file}).Model(), options);
    for (const isa::Buffer& buffer : compiled.program.buffers) {
      if (buffer.kind != isa::BufferKind::kWeight || buffer.form != isa::Form::kRows) continue;
      EXPECT_EQ(buffer.dtype, DType::kF32) << buffer.name;
    }
    return std::pair(BufferOf(compiled.program, "1.gate.weight.gated").dtype,
                     BufferOf(compiled.program, "kv.1").dtype);
  };
  using Pair = std::pair<DType, DType>;
  EXPECT_EQ(types(DType::kF32, {}), Pair(DType::kF32, DType::kBf16));
  EXPECT_EQ(types(DType::kF16, {}), Pair(DType::kF32, DType::kBf16));
  EXPECT_EQ(types(DType::kBf16, {}), Pair(DType::kBf16, DType::kBf16));
  EXPECT_EQ(types(DType::kBf16, {.weight_type = DType::kF32, .kv_type = DType::kF32}),
            Pair(DType::kF32, DType::kF32));
  EXPECT_EQ(types(DType::kF32, {.weight_type = DType::kBf16, .kv_type = {}}),
            Pair(DType::kBf16, DType::kBf16));
}

TEST(Compile, EveryWaitIsNeeded) {
  for (const Sizes& sizes :
       {Sizes{}, Sizes{.heads = 4, .kv_heads = 2, .tied = true, .bias = true}}) {
    const isa::Program program = CompileOrDie(Builder(sizes).Model()).program;
    int waits = 0;
    for (size_t s = 0; s < program.streams.size(); ++s) {
      for (size_t i = 0; i < program.streams[s].size(); ++i) {
        const isa::Instruction& wait = program.streams[s][i];
        if (wait.op != isa::Opcode::kWait) continue;
        ++waits;
        isa::Program broken = program;
        broken.streams[s].erase(broken.streams[s].begin() + static_cast<int64_t>(i));
        EXPECT_FALSE(isa::Verify(broken)) << "wait " << i << " of stream " << s;
        // And with any one of its posts, so that the counts agree: all that is left is the race.
        for (size_t t = 0; t < program.streams.size(); ++t) {
          for (size_t j = 0; j < program.streams[t].size(); ++j) {
            const isa::Instruction& post = program.streams[t][j];
            if (post.op != isa::Opcode::kPost || post.attributes != wait.attributes) continue;
            isa::Program racing = broken;
            racing.streams[t].erase(racing.streams[t].begin() + static_cast<int64_t>(j));
            EXPECT_FALSE(isa::Verify(racing)) << "wait " << i << " and post " << j;
          }
        }
      }
    }
    EXPECT_GT(waits, 4);
  }
}

TEST(Compile, TextAndBytesHoldTheWholeProgram) {
  const isa::Program program = CompileOrDie(Builder({.bias = true}).Model()).program;
  const auto decoded = isa::Decode(isa::Encode(program));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(*decoded, program);
  const auto parsed = isa::Parse(isa::Print(program));
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(*parsed, program);
}

TEST(Compile, LinearsOfUnlikeKindAreNotMerged) {
  Builder builder({});
  const ValueId h =
      builder.Add(Op::kEmbedding, "h", {builder.Weight("embed", {37, 21}), builder.tokens});
  const ValueId a = builder.Linear("a", h, 10, 21, true);
  const ValueId b = builder.Linear("b", h, 10, 21, false);
  builder.graph().AddOutput(builder.Add(Op::kAdd, "sum", {a, b}));
  const isa::Program program = CompileOrDie(builder.graph()).program;
  // b is computed first and a's residual is its result, or the other way round.
  EXPECT_EQ(Count(program)[static_cast<size_t>(isa::Opcode::kMatMul)], 2);
  EXPECT_GE(program.FindBuffer("sum"), 0);
}

// Every output of the graph is one of the Program, whatever was fused on the way.
TEST(Compile, KeepsEveryOutput) {
  Builder builder({});
  const ValueId h =
      builder.Add(Op::kEmbedding, "h", {builder.Weight("embed", {37, 21}), builder.tokens});
  for (const char* name : {"a", "b"}) builder.graph().AddOutput(builder.Linear(name, h, 10, 21));
  builder.graph().AddOutput(builder.Norm("c", h, 21));
  builder.graph().AddOutput(h);
  const auto compiled = Compile(builder.graph(), {});
  ASSERT_TRUE(compiled) << compiled.error().message;
  for (const char* name : {"a", "b", "c", "h"}) {
    const int32_t id = compiled->program.FindBuffer(name);
    ASSERT_GE(id, 0) << name;
    EXPECT_EQ(compiled->program.buffers[static_cast<size_t>(id)].kind, isa::BufferKind::kOutput);
  }
}

TEST(Compile, RefusesWhatNoInstructionCarriesOut) {
  auto error_of = [](const std::function<ValueId(Builder&, ValueId)>& last) {
    Builder builder({});
    const ValueId h =
        builder.Add(Op::kEmbedding, "h", {builder.Weight("embed", {37, 21}), builder.tokens});
    builder.graph().AddOutput(last(builder, h));
    const auto compiled = Compile(builder.graph(), {});
    EXPECT_FALSE(compiled);
    if (compiled) return std::string();
    EXPECT_EQ(compiled.error().code, ErrorCode::kUnsupported) << compiled.error().message;
    return compiled.error().message;
  };
  EXPECT_EQ(error_of([](Builder& b, ValueId h) { return b.Add(Op::kSilu, "lone", {h}); }),
            "no instruction carries out silu (for 'lone')");
  EXPECT_THAT(error_of([](Builder& b, ValueId h) { return b.Add(Op::kMul, "product", {h, h}); }),
              HasSubstr("mul (for 'product')"));
  EXPECT_THAT(error_of([](Builder& b, ValueId h) { return b.Add(Op::kAdd, "sum", {h, h}); }),
              HasSubstr("add (for 'sum')"));
  EXPECT_THAT(error_of([](Builder& b, ValueId h) { return b.Add(Op::kConcat, "both", {h, h}); }),
              HasSubstr("concat (for 'both')"));
  EXPECT_THAT(error_of([](Builder& b, ValueId h) {
                return b.Add(Op::kSlice, "part", {h},
                             {{"begin", int64_t{1}}, {"size", int64_t{4}}});
              }),
              HasSubstr("'part'"));
  EXPECT_THAT(error_of([](Builder& b, ValueId) { return b.tokens; }),
              HasSubstr("'tokens' is not computed"));
}

// A graph that breaks its own rules is refused before any pass sees it.
TEST(Compile, VerifiesTheGraphFirst) {
  ir::Graph graph = Builder({}).Model();
  std::vector<ir::Node> nodes = graph.nodes();
  std::swap(nodes.front(), nodes.back());
  graph.ReplaceNodes(nodes);
  EXPECT_FALSE(Compile(graph, {}));
}

// --- packing ---

float PackedAt(const isa::Buffer& buffer, std::span<const std::byte> bytes, int64_t channel,
               int64_t step) {
  const auto offset =
      static_cast<size_t>(isa::PackedOffset(channel, step, buffer.cols, buffer.dtype));
  float value;
  Bf16 half;
  if (buffer.dtype == DType::kF32) return std::memcpy(&value, &bytes[offset], 4), value;
  return std::memcpy(&half, &bytes[offset], 2), Bf16ToF32(half);
}

// What the packed element must be: the tensor's, rounded to the buffer's type.
float Rounded(float value, DType type) {
  return type == DType::kF32 ? value : Bf16ToF32(F32ToBf16(value));
}

// Every channel of a packed buffer comes from a row of a tensor, or is zeros; so is what fills up
// blocks and lines.
void ExpectPacked(const isa::Buffer& buffer, std::span<const std::byte> bytes,
                  const Tensors& tensors,
                  const std::function<std::pair<std::string, int64_t>(int64_t)>& source) {
  const int64_t channels = isa::PackedBlocks(buffer.rows.size) * isa::kLanes;
  const int64_t steps =
      isa::PackedLines(buffer.cols, buffer.dtype) * isa::StepsPerLine(buffer.dtype);
  for (int64_t channel = 0; channel < channels; ++channel) {
    const auto [name, row] =
        channel < buffer.rows.size ? source(channel) : std::pair<std::string, int64_t>();
    for (int64_t step = 0; step < steps; ++step) {
      const bool filled = !name.empty() && step < buffer.cols;
      ASSERT_EQ(PackedAt(buffer, bytes, channel, step),
                filled ? Rounded(tensors.At(name, row, step), buffer.dtype) : 0.0f)
          << buffer.name << "[" << channel << ", " << step << "]";
    }
  }
}

TEST(Pack, PutsEveryElementInItsPlace) {
  for (const DType file : {DType::kF32, DType::kBf16, DType::kF16}) {
    for (const std::optional<DType> asked :
         {std::optional<DType>(), std::optional(DType::kF32), std::optional(DType::kBf16)}) {
      for (const int threads : {1, 3}) {
        const ir::Graph graph = Builder({.bias = true, .dtype = file}).Model();
        const Compiled compiled = CompileOrDie(graph, {.weight_type = asked, .kv_type = {}});
        Tensors tensors;
        tensors.AddAllOf(graph);
        ThreadTeam team(threads);
        int64_t done = 0, total = 0;
        const auto bound = PackAll(compiled.program, compiled.packing, tensors, team,
                                   [&](int64_t now, int64_t all) {
                                     EXPECT_GE(now, done);
                                     done = now;
                                     total = all;
                                   });
        ASSERT_TRUE(bound) << bound.error().message;
        EXPECT_LE(done, total);
        auto packed = [&](const std::string& name) {
          const int32_t id = compiled.program.FindBuffer(name);
          return bound->by_buffer[static_cast<size_t>(id)];
        };
        auto expect = [&](const std::string& name, const auto& source) {
          ExpectPacked(BufferOf(compiled.program, name), packed(name), tensors, source);
        };
        using Source = std::pair<std::string, int64_t>;
        expect("embed", [](int64_t row) { return Source("embed", row); });
        expect("1.down.weight", [](int64_t row) { return Source("1.down.weight", row); });
        expect("0.q.weight.merged", [](int64_t row) {
          if (row < 18) return Source("0.q.weight", row);
          return row < 24 ? Source("0.k.weight", row - 18) : Source("0.v.weight", row - 24);
        });
        expect("0.gate.weight.gated", [](int64_t channel) {
          const int64_t row = channel / 32 * 16 + channel % 16;
          if (row >= 27) return Source();
          return Source(channel / 16 % 2 == 0 ? "0.gate.weight" : "0.up.weight", row);
        });
        for (size_t i = 0; i < compiled.program.buffers.size(); ++i) {
          const isa::Buffer& buffer = compiled.program.buffers[i];
          const bool weight = buffer.kind == isa::BufferKind::kWeight;
          ASSERT_EQ(static_cast<int64_t>(bound->by_buffer[i].size()),
                    weight ? isa::BufferBytes(buffer, buffer.rows.size) : 0);
          EXPECT_EQ(reinterpret_cast<uintptr_t>(bound->by_buffer[i].data()) % isa::kLineBytes, 0u);
        }
        // Vectors become f32, merged ones one after the other; values are copied.
        float bias[30], frequencies[3];
        std::memcpy(bias, packed("1.q.weight.merged.bias").data(), sizeof bias);
        EXPECT_EQ(bias[0], tensors.At("1.q.bias", 0, 0));
        EXPECT_EQ(bias[23], tensors.At("1.k.bias", 5, 0));
        EXPECT_EQ(bias[24], tensors.At("1.v.bias", 0, 0));
        std::memcpy(frequencies, packed("inv_freq").data(), sizeof frequencies);
        EXPECT_EQ(frequencies[2], 0.01f);
      }
    }
  }
}

TEST(Pack, NamesATensorOfAnotherShape) {
  const ir::Graph graph = Builder({.bias = true}).Model();
  const Compiled compiled = CompileOrDie(graph);
  ThreadTeam team(1);
  auto error_with = [&](const std::string& name, DType dtype, std::vector<int64_t> shape) {
    Tensors tensors;
    tensors.AddAllOf(graph);
    tensors.Add(name, dtype, std::move(shape));
    const auto bound = PackAll(compiled.program, compiled.packing, tensors, team, {});
    EXPECT_FALSE(bound) << name;
    if (bound) return std::string();
    EXPECT_EQ(bound.error().code, ErrorCode::kInvalidArgument);
    return bound.error().message;
  };
  EXPECT_EQ(error_with("embed", DType::kF32, {37, 22}),
            "tensor 'embed' is not a float tensor of 21 columns");
  EXPECT_EQ(error_with("embed", DType::kF32, {36, 21}),
            "tensor 'embed' has 36 rows where the Program declares 37");
  EXPECT_THAT(error_with("0.k.weight", DType::kF32, {7, 21}), HasSubstr("has 31 rows"));
  EXPECT_THAT(error_with("0.v.bias", DType::kF32, {6, 2}), HasSubstr("'0.v.bias'"));
  EXPECT_THAT(error_with("norm.weight", DType::kF32, {20}), HasSubstr("'norm.weight'"));
  EXPECT_THAT(error_with("1.up.weight", DType::kF32, {26, 21}), HasSubstr("'1.gate.weight'"));
  EXPECT_THAT(error_with("1.up.weight", DType::kI32, {27, 21}), HasSubstr("'1.up.weight'"));

  Tensors none;
  const auto missing = PackAll(compiled.program, compiled.packing, none, team, {});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace millpower::compile
