#include "compile/compile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>

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
  EXPECT_EQ(types(DType::kBf16, {.weight_type = DType::kF8E4M3, .kv_type = {}}),
            Pair(DType::kF8E4M3, DType::kBf16));
}

// What is asked for goes into instructions: rows quantised to the weights' type, or none at all.
TEST(Compile, QuantisesRowsForTheWeights) {
  auto quantised = [](DType weights, bool weight_only) {
    const Compiled compiled =
        CompileOrDie(Builder({.experts = 4}).Model(),
                     {.weight_type = weights, .kv_type = {}, .weight_only = weight_only});
    std::set<DType> types;
    for (const isa::Buffer& buffer : compiled.program.buffers)
      if (buffer.form == isa::Form::kQuantised) types.insert(buffer.dtype);
    EXPECT_EQ(Count(compiled.program)[static_cast<size_t>(isa::Opcode::kQuantise)] > 0,
              !types.empty());
    return types;
  };
  EXPECT_EQ(quantised(DType::kF8E4M3, false), std::set{DType::kF8E4M3});
  EXPECT_EQ(quantised(DType::kQ8_0, false), std::set{DType::kI8});
  EXPECT_TRUE(quantised(DType::kF8E4M3, true).empty());
  EXPECT_TRUE(quantised(DType::kQ4_0, true).empty());
}

TEST(Compile, KeepsTheWindowOfAttention) {
  const Compiled compiled = CompileOrDie(Builder({.window = 11}).Model());
  int seen = 0;
  for (const isa::Instruction& in : compiled.program.streams[0])
    if (in.op == isa::Opcode::kAttention) {
      EXPECT_EQ(in.integer(isa::attention::kWindow), 11);
      ++seen;
    }
  EXPECT_EQ(seen, 2);
}

TEST(Compile, EveryWaitIsNeeded) {
  for (const Sizes& sizes : {Sizes{}, Sizes{.heads = 4, .kv_heads = 2, .tied = true, .bias = true},
                             Sizes{.experts = 3, .first_expert_layer = 1}}) {
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

// The value of an element of a weight in blocks, as docs/isa/layout.md lays it out.
float InBlocks(const isa::Buffer& buffer, std::span<const std::byte> bytes, int64_t channel,
               int64_t step) {
  const int64_t steps = buffer.dtype == DType::kQ8_0 || buffer.dtype == DType::kQ4_0 ? 64 : 256;
  const int64_t lines = buffer.dtype == DType::kQ8_0   ? 17
                        : buffer.dtype == DType::kQ4_0 ? 9
                        : buffer.dtype == DType::kQ4_K ? 37
                                                       : 69;
  const int64_t chunks = (buffer.cols + steps - 1) / steps;
  const std::byte* chunk = bytes.data() + (channel / 16 * chunks + step / steps) * lines * 64;
  const int64_t lane = channel % 16, at = step % steps;
  auto half = [&](int64_t index) {
    uint16_t bits;
    std::memcpy(&bits, chunk + index * 2, 2);
    return F16ToF32(bits);
  };
  auto whole = [&](const std::byte* values) {  // 4 steps a lane
    return static_cast<float>(static_cast<uint8_t>(values[at / 4 * 64 + lane * 4 + at % 4]));
  };
  auto nibble = [&](const std::byte* values) {  // 8 steps a lane
    const int byte = static_cast<uint8_t>(values[at / 8 * 64 + lane * 4 + at % 4]);
    return static_cast<float>(at % 8 < 4 ? byte & 15 : byte >> 4);
  };
  switch (buffer.dtype) {
    case DType::kQ8_0:
      return half(at / 32 * 16 + lane) * (whole(chunk + 64) - 128);
    case DType::kQ4_0:
      return half(at / 32 * 16 + lane) * (nibble(chunk + 64) - 8);
    case DType::kQ4_K: {
      const auto scale = static_cast<float>(static_cast<uint8_t>(chunk[64 + at / 32 * 16 + lane]));
      const auto min = static_cast<float>(static_cast<uint8_t>(chunk[192 + at / 32 * 16 + lane]));
      return half(lane) * scale * nibble(chunk + 5 * 64) - half(16 + lane) * min;
    }
    default: {
      const auto scale = static_cast<float>(static_cast<int8_t>(chunk[64 + at / 16 * 16 + lane]));
      return half(lane) * scale * (whole(chunk + 5 * 64) - 32);
    }
  }
}

float PackedAt(const isa::Buffer& buffer, std::span<const std::byte> bytes, int64_t channel,
               int64_t step) {
  if (IsBlockType(buffer.dtype)) return InBlocks(buffer, bytes, channel, step);
  const auto offset =
      static_cast<size_t>(isa::PackedOffset(channel, step, buffer.cols, buffer.dtype));
  float value;
  Bf16 half;
  if (buffer.dtype == DType::kF8E4M3) {
    const auto scale = static_cast<size_t>(isa::ChannelScaleOffset(channel, buffer.cols));
    std::memcpy(&value, &bytes[scale], 4);
    return F8E4M3ToF32(static_cast<uint8_t>(bytes[offset])) * value;
  }
  if (buffer.dtype == DType::kF32) return std::memcpy(&value, &bytes[offset], 4), value;
  return std::memcpy(&half, &bytes[offset], 2), Bf16ToF32(half);
}

// What a packed row must be: the tensor's, rounded to the buffer's type unless it has it.
std::vector<float> Rounded(std::vector<float> row, DType file, DType type) {
  if (type == file || type == DType::kF32) return row;
  if (type == DType::kBf16) {
    for (float& value : row) value = Bf16ToF32(F32ToBf16(value));
    return row;
  }
  if (type == DType::kF8E4M3) {
    float largest = 0;
    for (const float value : row) largest = std::max(largest, std::abs(value));
    for (float& value : row)
      value = F8E4M3ToF32(F32ToF8E4M3(value * (448 / largest))) * (largest / 448);
    return row;
  }
  const size_t size = row.size();
  row.resize((size + 31) / 32 * 32, 0.0f);
  std::vector<std::byte> blocks(row.size() / 32 * static_cast<size_t>(BlockBytes(type)));
  const auto quantise = type == DType::kQ8_0 ? QuantiseQ8_0 : QuantiseQ4_0;
  quantise(row.data(), std::ssize(row), blocks.data());
  Dequantise(type, blocks.data(), std::ssize(row), row.data());
  row.resize(size);
  return row;
}

// Every channel of a packed buffer comes from a row of a tensor, or is zeros; so is what fills up
// blocks and lines.
void ExpectPacked(const isa::Buffer& buffer, std::span<const std::byte> bytes,
                  const Tensors& tensors,
                  const std::function<std::pair<std::string, int64_t>(int64_t)>& source) {
  const int64_t channels = isa::PackedBlocks(buffer.rows.size) * isa::kLanes;
  const int64_t steps =
      (isa::PackedLines(buffer.cols, buffer.dtype) - isa::BlockScaleLines(buffer.dtype)) /
      isa::ChunkLines(buffer.dtype) * isa::ChunkSteps(buffer.dtype);
  for (int64_t channel = 0; channel < channels; ++channel) {
    const auto [name, row] =
        channel < buffer.rows.size ? source(channel) : std::pair<std::string, int64_t>();
    std::vector<float> expected;
    if (!name.empty())
      expected = Rounded(tensors.Row(name, row), tensors.Find(name)->dtype, buffer.dtype);
    expected.resize(static_cast<size_t>(steps), 0.0f);
    for (int64_t step = 0; step < steps; ++step)
      ASSERT_EQ(PackedAt(buffer, bytes, channel, step), expected[static_cast<size_t>(step)])
          << buffer.name << "[" << channel << ", " << step << "]";
  }
}

TEST(Pack, PutsEveryElementInItsPlace) {
  for (const DType file : {DType::kF32, DType::kBf16, DType::kF16}) {
    for (const std::optional<DType> asked :
         {std::optional<DType>(), std::optional(DType::kF32), std::optional(DType::kBf16),
          std::optional(DType::kF8E4M3)}) {
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

// A packed model, and the tensors it was made from.
struct Packed {
  Packed(const ir::Graph& graph, const Options& options, int threads = 1)
      : compiled(CompileOrDie(graph, options)) {
    tensors.AddAllOf(graph);
    Pack(threads);
  }
  void Pack(int threads = 1) {
    ThreadTeam team(threads);
    auto packed = PackAll(compiled.program, compiled.packing, tensors, team, {});
    CHECK(packed) << packed.error().message;
    bound = std::move(*packed);
  }
  std::span<const std::byte> Bytes(const std::string& name) const {
    return bound.by_buffer[static_cast<size_t>(compiled.program.FindBuffer(name))];
  }
  void Expect(const std::string& name,
              const std::function<std::pair<std::string, int64_t>(int64_t)>& source) const {
    ExpectPacked(BufferOf(compiled.program, name), Bytes(name), tensors, source);
  }
  Compiled compiled;
  Tensors tensors;
  isa::BoundWeights bound;
};
using Source = std::pair<std::string, int64_t>;

TEST(Pack, KeepsBlocksAsTheyAre) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ6_K}) {
    const int64_t size = BlockSize(type);
    for (const int threads : {1, 3}) {
      const Packed packed(
          Builder(
              {.hidden = size, .inner = 3 * size, .heads = size / 4, .head_dim = 4, .dtype = type})
              .Model(),
          {}, threads);
      EXPECT_EQ(BufferOf(packed.compiled.program, "embed").dtype, type);
      packed.Expect("embed", [](int64_t row) { return Source("embed", row); });
      packed.Expect("1.down.weight", [](int64_t row) { return Source("1.down.weight", row); });
      packed.Expect("0.gate.weight.gated", [](int64_t channel) {
        return Source(channel / 16 % 2 == 0 ? "0.gate.weight" : "0.up.weight",
                      channel / 32 * 16 + channel % 16);
      });
    }
  }
}

// The one value that a symmetric quantiser never makes.
TEST(Pack, KeepsMinus128) {
  Packed packed(
      Builder({.hidden = 32, .inner = 32, .heads = 4, .head_dim = 8, .dtype = DType::kQ8_0})
          .Model(),
      {});
  const auto bytes = packed.tensors.Bytes("embed");
  for (size_t i = 0; i < 32; ++i) bytes[2 + i] = std::byte{0x80};
  packed.Pack();
  EXPECT_EQ(packed.tensors.At("embed", 0, 5) / packed.tensors.At("embed", 0, 6), 1);
  packed.Expect("embed", [](int64_t row) { return Source("embed", row); });
  EXPECT_LT(PackedAt(BufferOf(packed.compiled.program, "embed"), packed.Bytes("embed"), 0, 3), 0);
}

TEST(Pack, MakesBlocksFromAnyType) {
  for (const DType asked : {DType::kQ8_0, DType::kQ4_0}) {
    for (const DType file : {DType::kF32, DType::kF16, DType::kBf16, DType::kQ4_K, DType::kQ8_0}) {
      Sizes sizes{.dtype = file};
      if (IsBlockType(file)) {
        sizes.hidden = BlockSize(file);
        sizes.inner = BlockSize(file);
        sizes.heads = BlockSize(file) / 4;
        sizes.head_dim = 4;
      }
      const Packed packed(Builder(sizes).Model(), {.weight_type = asked, .kv_type = {}}, 2);
      EXPECT_EQ(BufferOf(packed.compiled.program, "1.o.weight").dtype, asked);
      packed.Expect("embed", [](int64_t row) { return Source("embed", row); });
      packed.Expect("0.gate.weight.gated", [&](int64_t channel) {
        const int64_t row = channel / 32 * 16 + channel % 16;
        if (row >= sizes.inner) return Source();
        return Source(channel / 16 % 2 == 0 ? "0.gate.weight" : "0.up.weight", row);
      });
    }
  }
}

TEST(Pack, FillsUpEveryExpert) {
  using enum Sizes::Storage;
  for (const auto storage : {kFused, kSingly, kGateUp}) {
    for (const std::optional<DType> asked : {std::optional<DType>(), std::optional(DType::kQ8_0)}) {
      const int64_t inner = 13, hidden = 21;
      const Packed packed(
          Builder({.experts = 3, .expert_inner = inner, .storage = storage}).Model(),
          {.weight_type = asked, .kv_type = {}}, 2);
      // Inner channels to whole blocks, or to whole groups where they are quantised next.
      const int64_t filled = asked ? 32 : 16;
      const isa::Buffer& gated = BufferOf(packed.compiled.program, "0.experts.gate.gated");
      EXPECT_EQ(gated.rows.size, 3 * 2 * filled);
      EXPECT_EQ(BufferOf(packed.compiled.program, "0.experts.down").cols, filled);
      EXPECT_EQ(BufferOf(packed.compiled.program, "0.experts.down").rows.size, 3 * 32);
      EXPECT_EQ(BufferOf(packed.compiled.program, "0.router.weight").dtype, DType::kF32);
      auto place = [&](int64_t expert, const std::string& what, int64_t row, int64_t rows) {
        if (storage == kFused) return Source("0.experts." + what, expert * rows + row);
        if (storage == kGateUp && what != "down")
          return Source("0.experts.gate_up", (2 * expert + (what == "up" ? 1 : 0)) * rows + row);
        if (storage == kGateUp) return Source("0.experts.down", expert * rows + row);
        return Source("0.experts." + std::to_string(expert) + "." + what, row);
      };
      packed.Expect("0.experts.gate.gated", [&](int64_t channel) {
        const int64_t expert = channel / (2 * filled), within = channel % (2 * filled);
        const int64_t row = within / 32 * 16 + within % 16;
        if (row >= inner) return Source();
        return place(expert, within / 16 % 2 == 0 ? "gate" : "up", row, inner);
      });
      packed.Expect("0.experts.down", [&](int64_t channel) {
        if (channel % 32 >= hidden) return Source();
        return place(channel / 32, "down", channel % 32, hidden);
      });
    }
  }
}

// Source pages may go as soon as they have been packed; what is released was in the tensor.
TEST(Pack, ReleasesEverySourceByte) {
  const ir::Graph graph = Builder({.experts = 3, .storage = Sizes::Storage::kGateUp}).Model();
  Packed packed(graph, {});
  std::map<const std::byte*, size_t> released;
  std::mutex mutex;
  packed.tensors.on_release = [&](std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex);
    released[bytes.data()] = std::max(released[bytes.data()], bytes.size());
  };
  packed.Pack(3);
  for (const ir::Value& value : graph.values()) {
    if (value.kind != ir::ValueKind::kWeight || !value.values.empty()) continue;
    std::vector<std::string> names = {value.name};
    if (!value.slices.empty()) names = {value.slices[0].tensor};
    for (const std::string& name : names) {
      const auto bytes = packed.tensors.Find(name)->bytes;
      const std::byte* at = bytes.data();
      const std::byte* const end = at + bytes.size();
      for (auto it = released.upper_bound(at); it != released.begin() && at < end;) {
        const auto covering = std::prev(it);
        ASSERT_LE(covering->first, at) << name;
        ASSERT_LE(covering->first + covering->second, end) << name;
        if (covering->first + covering->second <= at) break;
        at = covering->first + covering->second;
        it = released.upper_bound(at);
      }
      EXPECT_EQ(at, end) << name;
    }
  }
}

TEST(Compile, SaysWhatIsStoredAsAnotherType) {
  auto text = [](const Sizes& sizes, const Options& options) {
    std::string all;
    for (const Conversion& c : CompileOrDie(Builder(sizes).Model(), options).conversions)
      all += std::string(Name(c.from)) + " " + Name(c.to) + " " + std::to_string(c.tensors) + " " +
             c.example + "\n";
    return all;
  };
  EXPECT_EQ(text({}, {}), "");
  EXPECT_EQ(text({.dtype = DType::kBf16}, {}), "");
  EXPECT_EQ(text({.dtype = DType::kF16}, {}), "f16 f32 16 embed\n");
  EXPECT_EQ(text({.layers = 1}, {.weight_type = DType::kQ4_0, .kv_type = {}}),
            "f32 q4_0 9 embed\n");
  Sizes sizes{
      .layers = 1, .hidden = 256, .inner = 256, .heads = 64, .head_dim = 4, .dtype = DType::kQ4_K};
  EXPECT_EQ(text(sizes, {}), "");
  sizes.type_of = [](const std::string& name) -> std::optional<DType> {
    if (name == "0.v.weight" || name == "head") return DType::kQ6_K;
    return std::nullopt;
  };
  EXPECT_EQ(text(sizes, {}), "q6_k q6_k 2 0.v.weight\n");
  EXPECT_EQ(text(sizes, {.weight_type = DType::kQ8_0, .kv_type = {}}),
            "q4_k q8_0 7 embed\nq6_k q8_0 2 0.v.weight\n");
  // Gate and up of experts, of unlike types; a router that is not made int8; each expert a tensor.
  Sizes experts{
      .layers = 1, .hidden = 32, .heads = 4, .head_dim = 8, .experts = 3, .expert_inner = 32};
  experts.type_of = [](const std::string& name) -> std::optional<DType> {
    if (name == "0.experts.up") return DType::kQ4_0;
    return std::nullopt;
  };
  EXPECT_EQ(text(experts, {}), "f32 q8_0 1 0.experts.gate\nq4_0 q8_0 1 0.experts.up\n");
  experts.type_of = {};
  experts.storage = Sizes::Storage::kSingly;
  EXPECT_EQ(text(experts, {.weight_type = DType::kQ8_0, .kv_type = {}}), "f32 q8_0 15 embed\n");
}

TEST(Compile, MergesWhatIsStoredAlike) {
  Sizes sizes{
      .layers = 1, .hidden = 256, .inner = 256, .heads = 64, .head_dim = 4, .dtype = DType::kQ4_K};
  sizes.type_of = [](const std::string& name) -> std::optional<DType> {
    if (name == "0.v.weight" || name == "0.up.weight") return DType::kQ6_K;
    return std::nullopt;
  };
  const isa::Program program = CompileOrDie(Builder(sizes).Model()).program;
  EXPECT_EQ(BufferOf(program, "0.q.weight.merged").rows.size, 64 * 4 + 4);
  EXPECT_EQ(BufferOf(program, "0.q.weight.merged").dtype, DType::kQ4_K);
  EXPECT_EQ(BufferOf(program, "0.v.weight").dtype, DType::kQ6_K);
  EXPECT_EQ(BufferOf(program, "0.gate.weight").dtype, DType::kQ4_K);
  EXPECT_EQ(BufferOf(program, "0.up.weight").dtype, DType::kQ6_K);
  // qk, v, o, gate, up over it, down, head; and what is quantised is so once for all.
  const auto counts = Count(program);
  EXPECT_EQ(counts[static_cast<size_t>(isa::Opcode::kMatMul)], 7);
  EXPECT_EQ(counts[static_cast<size_t>(isa::Opcode::kQuantise)], 5);
  int products = 0;
  for (const isa::Instruction& in : program.streams[0])
    products += in.op == isa::Opcode::kMatMul && in.integer(isa::matmul::kEpilogue) ==
                                                     static_cast<int64_t>(isa::Epilogue::kSiluMul)
                    ? 1
                    : 0;
  EXPECT_EQ(products, 1);
  // Asked for as one type, they are one weight again.
  const isa::Program one =
      CompileOrDie(Builder(sizes).Model(), {.weight_type = DType::kQ8_0, .kv_type = {}}).program;
  EXPECT_EQ(BufferOf(one, "0.q.weight.merged").rows.size, 64 * 4 + 2 * 4);
  EXPECT_EQ(Count(one)[static_cast<size_t>(isa::Opcode::kMatMul)], 5);
}

TEST(Compile, MakesExpertsSevenInstructions) {
  const Sizes sizes{.layers = 3, .experts = 5, .first_expert_layer = 1};
  const auto floats = Count(CompileOrDie(Builder(sizes).Model()).program);
  const auto blocks = Count(
      CompileOrDie(Builder(sizes).Model(), {.weight_type = DType::kQ8_0, .kv_type = {}}).program);
  for (const auto& counts : {floats, blocks}) {
    EXPECT_EQ(counts[static_cast<size_t>(isa::Opcode::kRoute)], 2);
    EXPECT_EQ(counts[static_cast<size_t>(isa::Opcode::kExpertMatMul)], 4);
    EXPECT_EQ(counts[static_cast<size_t>(isa::Opcode::kCombine)], 2);  // with the residual
    EXPECT_EQ(counts[static_cast<size_t>(isa::Opcode::kMatMul)], 3 * 2 + 2 + 2 + 1);
  }
  EXPECT_EQ(floats[static_cast<size_t>(isa::Opcode::kQuantise)], 0);
  EXPECT_EQ(blocks[static_cast<size_t>(isa::Opcode::kQuantise)], 3 * 4 + 1);
  // Scratch of each form is shared from layer to layer.
  auto scratch = [&](int64_t layers) {
    Sizes deeper = sizes;
    deeper.layers = layers;
    const isa::Program program =
        CompileOrDie(Builder(deeper).Model(), {.weight_type = DType::kQ8_0, .kv_type = {}}).program;
    return std::ranges::count_if(program.buffers, [](const isa::Buffer& buffer) {
      return buffer.kind == isa::BufferKind::kScratch;
    });
  };
  EXPECT_EQ(scratch(3), scratch(7));
}

TEST(Compile, RefusesTypesByName) {
  auto error_of = [](const Sizes& sizes, const Options& options) {
    const auto compiled = Compile(Builder(sizes).Model(), options);
    return compiled ? "" : compiled.error().message;
  };
  EXPECT_THAT(error_of({}, {.weight_type = DType::kQ4_K, .kv_type = {}}),
              HasSubstr("weights are not made q4_k"));
  EXPECT_THAT(error_of({}, {.weight_type = DType::kF16, .kv_type = {}}), HasSubstr("not made f16"));
  EXPECT_THAT(error_of({}, {.weight_type = {}, .kv_type = DType::kQ8_0}),
              HasSubstr("KV pages cannot be q8_0"));
  EXPECT_THAT(error_of({}, {.weight_type = {}, .kv_type = DType::kI8}),
              HasSubstr("heads of 6 channels are no multiple of 4"));
  EXPECT_THAT(error_of({}, {.weight_type = {}, .kv_type = DType::kF8E4M3}),
              HasSubstr("KV pages in f8_e4m3: heads of 6 channels are no multiple of 4"));
  EXPECT_THAT(error_of({.experts = 40, .choices = 33}, {}), HasSubstr("chooses 33 of 40 experts"));
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
