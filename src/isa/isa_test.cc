#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/rng.h"
#include "isa/encoding.h"
#include "isa/package.h"
#include "isa/test_program.h"
#include "isa/verify.h"

namespace millpower::isa {
namespace {

using testing::HasSubstr;

// One layer of small language models, as the compiler lays them out.
constexpr char kProgramHead[] = R"(program tiny
fact vocab_size 64
register rows 16
register seqs 4
register picked 4
register adjusts 16
register page_entries 8
register pages 32 at_load
)";
const std::string kProgramText = std::string(kProgramHead) + kTestModelBody;
const std::string kExpertsText = std::string(kProgramHead) + kTestExpertsBody;

Program ParseOrDie(const std::string& text) {
  auto program = Parse(text);
  EXPECT_TRUE(program) << program.error().message;
  return *program;
}
Program Tiny() { return ParseOrDie(kProgramText); }

// The program with the first `from` in its text replaced by `to`.
Result<void> VerifyWith(const std::string& from, const std::string& to,
                        std::string text = kProgramText) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  auto program = Parse(text);
  EXPECT_TRUE(program) << program.error().message;
  return Verify(*program);
}

TEST(Isa, TextAndBytesHoldTheWholeProgram) {
  for (const std::string& text : {kProgramText, kExpertsText}) {
    const Program program = ParseOrDie(text);
    EXPECT_EQ(Print(program), text);
    const auto decoded = Decode(Encode(program));
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(*decoded, program);
  }
}

TEST(Isa, EveryOpcodeHasANameAndAPage) {
  std::set<std::string> names;
  for (int i = 0; i < kOpcodeCount; ++i) {
    const OpInfo& info = Info(static_cast<Opcode>(i));
    EXPECT_EQ(static_cast<int>(info.op), i);
    EXPECT_EQ(OpcodeFromName(info.name), info.op);
    EXPECT_NE(info.check == nullptr, info.check_tensors == nullptr);
    EXPECT_TRUE(names.insert(info.name).second);
    const std::string page = std::string(MILLPOWER_SOURCE_DIR "/docs/isa/") + info.name + ".md";
    std::ifstream file(page);
    ASSERT_TRUE(file) << page << " is missing";
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    for (const OperandInfo& operand : info.operands)
      EXPECT_THAT(text, HasSubstr(std::string("`") + operand.name + "`")) << page;
    for (const AttributeInfo& attribute : info.attributes)
      EXPECT_THAT(text, HasSubstr(std::string("`") + attribute.name + "`")) << page;
    EXPECT_THAT(text, HasSubstr("## Functional model")) << page;
  }
}

TEST(Verify, AcceptsSoundPrograms) {
  for (const std::string& text : {kProgramText, kExpertsText}) {
    const auto verified = Verify(ParseOrDie(text));
    EXPECT_TRUE(verified) << verified.error().message;
  }
}

// A Program of four ranks that does little but exchange rows.
const std::string kRanksText = R"(program ranks
register rows 8
register rank 3 at_load
ranks 4
semaphores 3
buffer index input i32 rows [rows, 1] below 6
buffer table weight f32 packed [6, 32]
buffer norm weight f32 rows [1, 32]
buffer w weight f8_e4m3 packed [32, 8]
buffer h scratch f32 rows [rows, 32]
buffer xq scratch f8_e4m3 quantised [rows, 8]
buffer part scratch f32 rows [rows, 32]
buffer wide scratch f32 rows [rows, 128]
buffer mixed scratch f32 rows [rows, 128]
buffer y output f32 rows [rows, 32]
stream compute
  wait semaphore=0 count=1
  quantise x=h[8:16] y=xq
  matmul x=xq w=w y=part epilogue=none
  post semaphore=1 count=1
  wait semaphore=2 count=1
  rms_norm x=h weight=norm y=y group=32 epsilon=1e-06
  end
stream transfer
  gather table=table index=index y=h
  post semaphore=0 count=1
  end
stream link
  wait semaphore=1 count=1
  collective x=part residual=h y=h kind=all_reduce
  collective x=part y=part kind=all_reduce
  collective x=part y=wide kind=all_gather
  collective x=wide y=mixed kind=all_to_all
  collective x=mixed y=part kind=reduce_scatter
  post semaphore=2 count=1
  end
)";

TEST(Ranks, TextAndBytesHoldTheWholeProgram) {
  const Program program = ParseOrDie(kRanksText);
  EXPECT_EQ(program.ranks, 4);
  EXPECT_EQ(Print(program), kRanksText);
  const auto decoded = Decode(Encode(program));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(*decoded, program);
  const auto verified = Verify(program);
  EXPECT_TRUE(verified) << verified.error().message;
}

TEST(Ranks, VerifyNamesWhatIsWrong) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"ranks 4", "ranks 0", "ranks are not in 1..1024"},
      {"ranks 4", "ranks 1025", "ranks are not in 1..1024"},
      {"ranks 4", "ranks 5", "register 'rank' is not set at load"},
      {"rank 3 at_load", "rank 3", "register 'rank' is not set at load"},
      {"register rank 3 at_load", "register rack 3 at_load", "has no register 'rank'"},
      {"mixed scratch f32 rows [rows, 128]", "mixed scratch f32 rows [rank, 128]",
       "'rank' is no size"},
      {"[rows, 1] below 6", "[rows, 1] below rank", "'rank' is no size"},
      {"x=part y=wide kind=all_gather", "x=part[0:31] y=wide kind=all_gather", "not as wide"},
      {"x=part y=wide kind=all_gather", "x=part y=wide kind=all_reduce", "not as wide"},
      {"x=mixed y=part kind=reduce_scatter", "x=part y=mixed kind=reduce_scatter", "not as wide"},
      {"x=wide y=mixed kind=all_to_all", "x=wide[0:126] y=mixed[0:126] kind=all_to_all",
       "not as wide"},
      {"x=wide y=mixed kind=all_to_all", "x=wide y=wide kind=all_to_all", "y overwrites x"},
      {"x=part residual=h y=h", "x=part[0:16] residual=h y=h[0:16]", "overlap in part"},
      {"x=part residual=h y=h", "x=part residual=wide y=h", "residual and y differ in columns"},
      {"x=part y=wide kind=all_gather", "x=part residual=wide y=wide kind=all_gather",
       "only sums take a residual"},
      {"collective x=part y=part", "collective x=xq y=part", "not f32 rows"},
      {"stream link\n", "  end\nstream link\n", "only 'end'"},
  };
  for (const auto& [from, to, message] : cases) {
    const auto verified = VerifyWith(from, to, kRanksText);
    ASSERT_FALSE(verified) << from << " -> " << to;
    EXPECT_THAT(verified.error().message, HasSubstr(message)) << from << " -> " << to;
  }
  EXPECT_FALSE(Parse("collective kind=broadcast"));
  EXPECT_FALSE(Parse("ranks -1"));

  Program elsewhere = ParseOrDie(kRanksText);
  elsewhere.streams[0].insert(elsewhere.streams[0].end() - 1, elsewhere.streams[2][3]);
  const auto verified = Verify(elsewhere);
  ASSERT_FALSE(verified);
  EXPECT_THAT(verified.error().message, HasSubstr("collectives stand in the link stream"));
  Program unknown = ParseOrDie(kRanksText);
  unknown.streams[2][1].attributes[collective::kKind] = kCollectiveCount;
  EXPECT_THAT(Verify(unknown).error().message, HasSubstr("kind 4 does not exist"));
}

// One rank is every Program's number of ranks; a register of that name means nothing then.
TEST(Ranks, OneRankExchangesWithItself) {
  std::string text = kRanksText;
  for (const auto& [from, to] :
       {std::pair("ranks 4\n", ""),
        {"register rank 3 at_load\n", ""},
        {"wide scratch f32 rows [rows, 128]", "wide scratch f32 rows [rows, 32]"},
        {"mixed scratch f32 rows [rows, 128]", "mixed scratch f32 rows [rows, 32]"}})
    text.replace(text.find(from), std::string(from).size(), to);
  const auto verified = Verify(ParseOrDie(text));
  EXPECT_TRUE(verified) << verified.error().message;
}

class WaitsTest : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Verify, WaitsTest, testing::Values(kProgramText, kExpertsText),
                         [](const auto& info) { return info.index == 0 ? "Dense" : "Experts"; });

TEST_P(WaitsTest, NoneCanBeRemoved) {
  const Program program = ParseOrDie(GetParam());
  int waits = 0;
  for (size_t s = 0; s < program.streams.size(); ++s) {
    for (size_t i = 0; i < program.streams[s].size(); ++i) {
      if (program.streams[s][i].op != Opcode::kWait) continue;
      ++waits;
      Program broken = program;
      broken.streams[s].erase(broken.streams[s].begin() + static_cast<int64_t>(i));
      EXPECT_FALSE(Verify(broken)) << "wait " << i << " of stream " << s;
      // With a post removed too the counts agree, but the race is still there. The posts of a
      // semaphore are alike, so that it does not matter which.
      for (auto& stream : broken.streams) {
        const auto post = std::ranges::find_if(stream, [&](const Instruction& in) {
          return in.op == Opcode::kPost && in.attributes == program.streams[s][i].attributes;
        });
        if (post == stream.end()) continue;
        stream.erase(post);
        break;
      }
      const auto verified = Verify(broken);
      ASSERT_FALSE(verified) << "wait " << i << " of stream " << s;
      EXPECT_THAT(verified.error().message,
                  testing::AnyOf(HasSubstr("race on"), HasSubstr("deadlock"),
                                 HasSubstr("before anything has written")));
    }
  }
  EXPECT_EQ(waits, 5);
}

TEST(Verify, NamesWhatIsWrong) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"count=1", "count=0", "count is not in"},
      {"semaphore=0", "semaphore=2", "semaphore is not declared"},
      {"below 64", "below 65", "index may point past"},
      {"x=normed w=qkv.weight", "x=normed[0:16] w=qkv.weight", "differ in reduction steps"},
      {"y=qkv epilogue=none", "y=normed epilogue=none", "y overwrites x"},
      {"residual=h y=h epilogue=add", "y=h epilogue=add", "residual and epilogue"},
      {"group=32", "group=5", "group does not divide"},
      {"heads=3", "heads=2", "heads times"},
      {"heads=2 scale", "heads=-2 scale", "heads are not a multiple"},
      {"kv=kv.0 out", "kv=h out", "not a KV cache"},
      {"params=sampling", "params=tokens", "different row counts"},
      {"y=h\n", "y=embed\n", "writes 'embed'"},
      {"[rows, 8]", "[rows, 9]", "odd number"},
      {"register rows 16", "register rows 0", "bound outside"},
      {"[64, 32]\nbuffer inv", "[64, 2147483649]\nbuffer inv", "columns are not in"},
      {"bf16 pages [pages, 1 x 8]", "bf16 pages [pages, 1 x 9]", "up to 512, even"},
      {"bf16 pages [pages, 1 x 8]", "bf16 pages [rows, 1 x 8]", "bounded by the KV cache"},
      {"semaphores 2", "semaphores 5000", "semaphore count"},
      {"program tiny", "program ti/ny", "name is malformed"},
      {"buffer table", "buffer h scratch f32 rows [rows, 32]\nbuffer table", "taken"},
      {"  end\nstream link", "stream link", "only 'end'"},
      {"  rope_table", "  end\n  rope_table", "only 'end'"},
      {"x=qkv[0:24]", "x=qkv[16:40]", "lies outside buffer"},
  };
  for (const auto& [from, to, message] : cases) {
    const auto verified = VerifyWith(from, to);
    ASSERT_FALSE(verified) << from << " -> " << to;
    EXPECT_THAT(verified.error().message, HasSubstr(message)) << from << " -> " << to;
  }
}

// What the instructions for quantised weights and experts refuse, and the forms they are about.
TEST(Verify, NamesWhatIsWrongWithQuantisedWeightsAndExperts) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      // Forms and types.
      {"i8 quantised [rows, 32]", "f32 quantised [rows, 32]", "quantised cannot hold f32"},
      {"scratch i8 quantised [rows, 16]", "output i8 quantised [rows, 16]", "lists are scratch"},
      {"list scratch i32 experts", "list output i32 experts", "lists are scratch"},
      {"i32 experts", "f32 experts", "experts cannot hold f32"},
      {"[rows, 6 x 2]", "[rows, 0 x 2]", "chooses 1..32 of 1..1024"},
      {"[rows, 6 x 2]", "[rows, 1025 x 2]", "chooses 1..32 of 1..1024"},
      {"[rows, 6 x 2]", "[rows, 64 x 33]", "chooses 1..32 of 1..1024"},
      {"[rows, 6 x 2]", "[rows, 6 x 7]", "chooses 1..32 of 1..1024"},
      {"i8 pages [pages, 1 x 8]", "i8 pages [pages, 1 x 6]", "in 8 bits a multiple of 4"},
      {"kv i8 pages", "kv q8_0 pages", "pages cannot hold q8_0"},
      {"norm weight f32 rows", "norm weight q8_0 rows", "rows cannot hold q8_0"},
      {"router weight f32 packed", "router weight f16 packed", "packed cannot hold f16"},
      {"down weight q8_0 packed", "down weight i8 packed", "packed cannot hold i8"},
      {"q4_0 packed [384, 32]", "q4_0 packed [2147483648, 2147483648]", "larger than 2^46"},
      // quantise
      {"quantise x=normed y=normed.q", "quantise x=normed y=qkv", "y is not quantised"},
      {"quantise x=normed y=normed.q", "quantise x=normed.q y=normed.q", "not f32 rows"},
      {"quantise x=normed y=normed.q", "quantise x=normed[0:16] y=normed.q", "differ in columns"},
      {"quantise x=normed y=normed.q", "quantise x=normed y=picked.q", "different row counts"},
      {"quantise x=normed y=normed.q", "quantise x=normed y=normed.q[0:16]", "has no parts"},
      // matmul over blocks
      {"i8 pages [pages, 1 x 8]", "f8_e4m3 pages [pages, 1 x 6]", "in 8 bits a multiple of 4"},
      {"qkv.weight weight q4_0 packed", "qkv.weight weight f8_e4m3 packed",
       "a weight in f8_e4m3 takes no x quantised to i8"},
      {"normed.q scratch i8 quantised", "normed.q scratch f8_e4m3 quantised",
       "a weight in q4_0 takes no x quantised to f8_e4m3"},
      {"norm weight f32 rows", "norm weight f8_e4m3 rows", "rows cannot hold f8_e4m3"},
      {"scale=0.35 window=0", "scale=0.35 window=-1", "window is not in 0..2^31"},
      {"scale=0.35 window=0", "scale=0.35 window=2147483649", "window is not in 0..2^31"},
      {"matmul x=normed w=router", "matmul x=normed.q w=router", "not f32 rows"},
      {"matmul x=attended.q w=o", "matmul x=normed.q w=o", "differ in reduction steps"},
      {"residual=h y=h epilogue=add", "residual=h y=h epilogue=none", "residual and epilogue"},
      {"y=qkv epilogue=none", "y=qkv epilogue=silu_mul", "residual and epilogue"},
      {"matmul x=normed.q w=qkv.weight y=qkv", "matmul x=normed.q w=qkv.weight y=normed.q",
       "not f32 rows"},
      // route
      {"route logits=scores", "route logits=shares", "weights overwrite the logits"},
      {"route logits=scores", "route logits=scores[0:5]", "differ in experts"},
      {"list=list weights=shares", "list=list weights=shares[0:1]", "differ in choices"},
      {"list=list weights=shares", "list=shares weights=shares", "not an expert list"},
      {"normalise=1", "normalise=2", "neither 0 nor 1"},
      {"experts [rows, 6 x 2]", "experts [picked, 6 x 2]", "different row counts"},
      // expert_matmul
      {"w=gated list=list", "w=norm list=list", "w is not a packed weight"},
      {"w=gated list=list", "w=gated list=shares", "list is not an expert list"},
      {"expert_matmul x=normed.q", "expert_matmul x=attended.q", "wide neither as w nor"},
      {"epilogue=silu_gate", "epilogue=add", "neither none nor silu_gate"},
      {"epilogue=silu_gate", "epilogue=silu_mul", "neither none nor silu_gate"},
      {"q4_0 packed [384, 32]", "q4_0 packed [288, 32]", "whole blocks of 16 channels"},
      {"q8_0 packed [192, 32]", "q8_0 packed [190, 32]", "whole blocks of 16 channels"},
      {"w=gated list=list y=inner", "w=gated list=list y=inner[0:63]", "as wide as the channels"},
      {"w=gated list=list y=inner", "w=gated list=list y=inner[0:32]", "as wide as the channels"},
      {"q8_0 packed [192, 32]", "q8_0 packed [192, 31]", "wide neither as w nor"},
      {"expert_matmul x=normed.q w=gated list=list y=inner",
       "expert_matmul x=normed.q w=gated "
       "list=list y=picked.h",
       "different row counts"},
      // combine
      {"combine x=outs weights=shares", "combine x=outs weights=scores", "y for all choices"},
      {"combine x=outs weights=shares", "combine x=h weights=shares", "y overwrites x"},
      {"weights=shares residual=h y=h", "weights=shares residual=h[0:16] y=h", "overlap in part"},
      {"weights=shares residual=h y=h", "weights=shares residual=normed[0:16] y=h",
       "differ in columns"},
      {"weights=shares residual=h y=h", "weights=shares residual=picked.h y=h",
       "different row counts"},
      // sample
      {"below 64\nbuffer adjustments", "below 65\nbuffer adjustments",
       "not an input of tokens below the vocabulary"},
      {"[adjusts, 1] below 64", "[adjusts, 1]", "not an input of tokens below the vocabulary"},
      {"i32 rows [adjusts, 2]", "i32 rows [adjusts, 3]", "one adjustment wide"},
      {"i32 rows [adjusts, 2]", "i32 rows [rows, 2]", "different row counts"},
      {"rows [picked, 12]", "rows [picked, 9]", "one sampling record wide"},
  };
  for (const auto& [from, to, message] : cases) {
    const auto verified = VerifyWith(from, to, kExpertsText);
    ASSERT_FALSE(verified) << from << " -> " << to;
    EXPECT_THAT(verified.error().message, HasSubstr(message)) << from << " -> " << to;
  }
  for (const auto& [from, to] : {
           std::pair("residual=h y=h epilogue=add", "residual=h y=h epilogue=silu_mul"),
           {"weights=shares residual=h y=h", "weights=shares y=h"},
           {"normalise=1", "normalise=0"},
           {"window=0", "window=3"},
           {"kv.0 kv i8 pages", "kv.0 kv f8_e4m3 pages"},
           // Weights alone may be in blocks.
           {"matmul x=normed.q w=qkv", "matmul x=normed w=qkv"},
           {"expert_matmul x=normed.q", "expert_matmul x=normed"},
           {"router weight f32 packed", "router weight f8_e4m3 packed"},
       }) {
    const auto verified = VerifyWith(from, to, kExpertsText);
    EXPECT_TRUE(verified) << to << ": " << verified.error().message;
  }
}

// What one instruction leaves for another in the new forms is ordered as all else is.
TEST(Verify, FindsRacesOnListsAndQuantisedRows) {
  auto verify = [](const std::string& stream) {
    const std::string declarations = R"(program race
register rows 4
semaphores 1
buffer index input i32 rows [rows, 1] below 6
buffer table weight f32 packed [6, 32]
buffer w weight q8_0 packed [96, 32]
buffer x scratch f32 rows [rows, 32]
buffer xq scratch i8 quantised [rows, 32]
buffer scores scratch f32 rows [rows, 6]
buffer list scratch i32 experts [rows, 6 x 2]
buffer shares scratch f32 rows [rows, 2]
buffer y output f32 rows [rows, 32]
stream compute
  gather table=table index=index y=x
  matmul x=x w=table y=scores epilogue=none
  quantise x=x y=xq
  route logits=scores list=list weights=shares normalise=0
)";
    return Verify(ParseOrDie(declarations + stream));
  };
  const std::string use = "  expert_matmul x=xq w=w list=list y=y epilogue=none\n  end\n";
  EXPECT_TRUE(
      verify("  post semaphore=0 count=1\n  end\nstream transfer\n"
             "  wait semaphore=0 count=1\n" +
             use + "stream link\n  end\n"));
  auto message = [&](const std::string& stream) {
    const auto verified = verify(stream);
    return verified ? "" : verified.error().message;
  };
  EXPECT_THAT(message("  end\nstream transfer\n" + use + "stream link\n  end\n"),
              testing::AnyOf(HasSubstr("race on 'xq'"), HasSubstr("race on 'list'")));
  // Made again while it is read.
  const std::string ordered = "  post semaphore=0 count=1\n";
  const std::string reader =
      "  end\nstream transfer\n  wait semaphore=0 count=1\n" + use + "stream link\n  end\n";
  EXPECT_THAT(message(ordered + "  quantise x=x y=xq\n" + reader), HasSubstr("race on 'xq'"));
  EXPECT_THAT(
      message(ordered + "  route logits=scores list=list weights=shares normalise=1\n" + reader),
      HasSubstr("race on 'list'"));
  // Read before it is made.
  EXPECT_THAT(message("  end\nstream transfer\n  end\nstream link\n  end\n"), "");
  std::string text = kExpertsText;
  const std::string quantise = "  quantise x=attended y=attended.q\n";
  text.erase(text.find(quantise), quantise.size());
  const auto unwritten = Verify(ParseOrDie(text));
  ASSERT_FALSE(unwritten);
  EXPECT_THAT(unwritten.error().message,
              HasSubstr("reads 'attended.q' before anything has written it"));
}

TEST(Layout, SizesOfEveryForm) {
  auto bytes = [](Form form, DType type, int64_t rows, int64_t cols, int64_t heads = 0) {
    return BufferBytes({.form = form, .dtype = type, .cols = cols, .heads = heads}, rows);
  };
  EXPECT_EQ(bytes(Form::kPacked, DType::kQ8_0, 17, 65), 2 * 2 * 17 * 64);
  EXPECT_EQ(bytes(Form::kPacked, DType::kQ4_0, 16, 64), 9 * 64);
  EXPECT_EQ(bytes(Form::kPacked, DType::kQ4_K, 16, 512), 2 * 37 * 64);
  EXPECT_EQ(bytes(Form::kPacked, DType::kQ6_K, 1, 256), 69 * 64);
  // Two groups of 48 bytes, padded to lines.
  EXPECT_EQ(bytes(Form::kQuantised, DType::kI8, 3, 33), 3 * 128);
  EXPECT_EQ(bytes(Form::kQuantised, DType::kI8, 1, 1024), 32 * 48);
  // A line for the scales of 16 channels, or for that of a row.
  EXPECT_EQ(bytes(Form::kPacked, DType::kF8E4M3, 17, 65), 2 * (1 + 17) * 64);
  EXPECT_EQ(bytes(Form::kQuantised, DType::kF8E4M3, 3, 65), 3 * (64 + 128));
  EXPECT_EQ(bytes(Form::kPages, DType::kF8E4M3, 2, 128, 8), 2 * 8 * 2 * 16 * 128);
  EXPECT_EQ(bytes(Form::kExperts, DType::kI32, 5, 2, 6), 4 * (1 + 6 + 7 + 2 * 5 * 2));
  EXPECT_EQ(bytes(Form::kPages, DType::kI8, 2, 128, 8), 2 * 8 * 2 * (16 * 128 + 64));
  // No more than 1.05 times what the file has (issue 4).
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K}) {
    const auto file = static_cast<double>(16 * 1024 / BlockSize(type) * BlockBytes(type));
    EXPECT_LE(static_cast<double>(PackedBytes(16, 1024, type)), 1.05 * file) << Name(type);
  }
}

// The number of KV pages is settled before the first launch: a constant, or set at load.
TEST(Verify, KvPagesAreSettledAtLoad) {
  const auto launch_time = VerifyWith("register pages 32 at_load", "register pages 32");
  ASSERT_FALSE(launch_time);
  EXPECT_THAT(launch_time.error().message,
              HasSubstr("'kv.0': the number of KV pages is neither constant nor set at load"));
  std::string text = kProgramText;
  for (const auto& [from, to] :
       {std::pair("below pages", "below 32"), {"[pages, 1 x 8]", "[32, 1 x 8]"}})
    text.replace(text.find(from), std::string(from).size(), to);
  const auto constant = Parse(text);
  ASSERT_TRUE(constant);
  const auto verified = Verify(*constant);
  EXPECT_TRUE(verified) << verified.error().message;
}

TEST(Verify, LaunchSizesAreBoundedMoreTightlyThanLoadSizes) {
  EXPECT_TRUE(VerifyWith("register seqs 4", "register seqs 16777216"));
  const auto launch = VerifyWith("register seqs 4", "register seqs 16777217");
  ASSERT_FALSE(launch);
  EXPECT_THAT(launch.error().message, HasSubstr("'seqs' has a bound outside 1..2^24"));
  EXPECT_TRUE(VerifyWith("pages 32 at_load", "pages 2147483648 at_load"));
  const auto load = VerifyWith("pages 32 at_load", "pages 2147483649 at_load");
  ASSERT_FALSE(load);
  EXPECT_THAT(load.error().message, HasSubstr("'pages' has a bound outside 1..2^31"));
}

// In the text form, a register's name must not look like a constant.
TEST(Verify, RegisterNamesDoNotLookLikeNumbers) {
  for (const char* name : {"7", "4rows", "-rows", "-1"}) {
    Program program = Tiny();
    program.registers[0].name = name;
    const auto verified = Verify(program);
    ASSERT_FALSE(verified) << name;
    EXPECT_THAT(verified.error().message, HasSubstr("register name '" + std::string(name) + "'"));
  }
  Program program = Tiny();
  program.registers[0].name = "r0-ws.x_";
  EXPECT_TRUE(Verify(program));
}

TEST(Verify, FactNamesAreNames) {
  Program program = Tiny();
  program.facts["two words"] = 1;
  const auto verified = Verify(program);
  ASSERT_FALSE(verified);
  EXPECT_THAT(verified.error().message, HasSubstr("fact name 'two words'"));
}

// What one instruction writes and reads may be one place, but not parts of each other.
TEST(Verify, OperandsOverlapWhollyOrNotAtAll) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      // rms_norm may work in place, not shifted by some columns.
      {"x=qkv[0:24] table", "x=qkv[0:24] table", ""},
      {"rope x=qkv[0:24] table=table heads=3\n",
       "rms_norm x=qkv[0:16] weight=norm16 y=qkv[0:16] group=16 epsilon=0\n"
       "  rope x=qkv[0:24] table=table heads=3\n",
       ""},
      {"rope x=qkv[0:24] table=table heads=3\n",
       "rms_norm x=qkv[0:16] weight=norm16 y=qkv[8:24] group=16 epsilon=0\n"
       "  rope x=qkv[0:24] table=table heads=3\n",
       "operands x and y overlap in part"},
      {"rope x=qkv[0:24] table=table heads=3\n",
       "rms_norm x=qkv[0:16] weight=norm16 y=qkv[16:32] group=16 epsilon=0\n"
       "  rope x=qkv[0:24] table=table heads=3\n",
       ""},
      {"x=attended w=o.weight residual=h y=h",
       "x=attended w=o.weight residual=wide[0:32] y=wide[8:40]",
       "operands residual and y overlap in part"},
  };
  for (const auto& [from, to, message] : cases) {
    std::string text = kProgramText;
    const auto replace = [&text](const std::string& what, const std::string& by) {
      const size_t at = text.find(what);
      ASSERT_NE(at, std::string::npos) << what;
      text.replace(at, what.size(), by);
    };
    replace("buffer norm ",
            "buffer wide scratch f32 rows [rows, 40]\n"
            "buffer norm16 weight f32 rows [1, 16]\nbuffer norm ");
    replace(from, to);
    const auto program = Parse(text);
    ASSERT_TRUE(program) << program.error().message;
    const auto verified = Verify(*program);
    if (*message == '\0') {
      EXPECT_TRUE(verified) << to << ": " << verified.error().message;
      continue;
    }
    ASSERT_FALSE(verified) << to;
    EXPECT_THAT(verified.error().message, HasSubstr(message)) << to;
  }
}

TEST(Verify, PositionsHaveOneColumn) {
  // A part of one column would do for the shape, but kernels take positions one after the other.
  std::string text = kProgramText;
  text.replace(text.find("positions input i32 rows [rows, 1]"), 34,
               "positions input i32 rows [rows, 3]");
  text.replace(text.find("positions=positions"), 19, "positions=positions[0:1]");
  const auto program = Parse(text);
  ASSERT_TRUE(program) << program.error().message;
  const auto verified = Verify(*program);
  ASSERT_FALSE(verified);
  EXPECT_THAT(verified.error().message, HasSubstr("positions have more than one column"));
}

// Attributes are float64, but kernels take float32.
TEST(Verify, ScalesAreFiniteAsFloat32) {
  for (const char* scale : {"1e300", "-1e39", "inf", "nan"}) {
    for (const char* from : {"scale=1\n", "scale=0.35"}) {
      const auto verified =
          VerifyWith(from, "scale=" + std::string(scale) + (from[7] == '\n' ? "\n" : ""));
      ASSERT_FALSE(verified) << scale;
      EXPECT_THAT(verified.error().message, HasSubstr("scale is not finite"));
    }
  }
  EXPECT_TRUE(VerifyWith("scale=0.35", "scale=3e38"));
  for (const char* epsilon : {"1", "-1e-9", "nan", "1e300"}) {
    const auto verified = VerifyWith("epsilon=1e-06", "epsilon=" + std::string(epsilon));
    ASSERT_FALSE(verified) << epsilon;
    EXPECT_THAT(verified.error().message, HasSubstr("epsilon is not in"));
  }
}

TEST(Verify, SamplesFromNoMoreThanAVocabulary) {
  auto verify = [](const std::string& cols) {
    auto program = Parse(
        "program p\nregister rows 1\nsemaphores 0\n"
        "buffer i input i32 rows [rows, 1] below 1\n"
        "buffer params input i32 rows [rows, 12]\n"
        "buffer adjust_tokens input i32 rows [rows, 1] below 1\n"
        "buffer adjustments input i32 rows [rows, 2]\n"
        "buffer table weight f32 packed [1, " +
        cols +
        "]\n"
        "buffer logits scratch f32 rows [rows, " +
        cols +
        "]\n"
        "buffer record output i32 rows [rows, 44]\n"
        "stream compute\n  gather table=table index=i y=logits\n"
        "  sample logits=logits params=params adjust_tokens=adjust_tokens "
        "adjustments=adjustments record=record\n  end\n"
        "stream transfer\n  end\nstream link\n  end\n");
    EXPECT_TRUE(program) << program.error().message;
    return Verify(*program);
  };
  EXPECT_TRUE(verify("16777216"));
  const auto verified = verify("16777217");
  ASSERT_FALSE(verified);
  EXPECT_THAT(verified.error().message, HasSubstr("logits are wider than 2^24"));
}

TEST(Parse, NamesTheLineAndWhatIsWrong) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"semaphores 2", "semaphores 4294967298", "cannot be 4294967298 semaphores"},
      {"semaphores 2", "semaphores -1", "cannot be -1 semaphores"},
      {"semaphores 2", "semaphores 99999999999999999999", "is not an integer"},
      {"semaphores 2", "semaphores", "needs a value"},
      {"register rows 16", "register rows sixteen", "'sixteen' is not an integer"},
      {"[rows, 1] below 64", "[lines, 1] below 64", "'lines' is not an integer"},
      {"scale=0.35", "scale=1e400", "'1e400' is not a number"},
      {"scale=0.35", "scale=", "is not a number"},
      {"x=qkv[0:24]", "x=qkv[24:0]", "ends before it begins"},
      {"x=qkv[0:24]", "x=qkv[-1:3]", "ends before it begins"},
      {"x=qkv[0:24]", "x=qkv[0:24", "a range is [BEGIN:END]"},
      {"x=qkv[0:24]", "x=nothing", "there is no buffer 'nothing'"},
      {"heads=3", "hats=3", "'rope' has no operand or attribute 'hats'"},
      {"heads=3", "heads", "'heads' has no value"},
      {"epilogue=add", "epilogue=sub", "there is no epilogue 'sub'"},
      {"stream link", "stream lunch", "there is no stream 'lunch'"},
      {"  rope x", "  rap x", "neither a declaration nor an opcode"},
      {"weight bf16", "weight fp4", "there is no type 'fp4'"},
      {"bf16 packed", "bf16 boxed", "there is no form 'boxed'"},
      {"embed weight", "embed height", "there is no buffer kind 'height'"},
      {"[pages, 1 x 8]", "[pages, 8]", "pages have a shape [ROWS, HEADS x COLS]"},
  };
  for (const auto& [from, to, message] : cases) {
    std::string text = kProgramText;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<int64_t>(at), '\n');
    text.replace(at, std::string(from).size(), to);
    const auto program = Parse(text);
    ASSERT_FALSE(program) << to;
    EXPECT_EQ(program.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(program.error().message, HasSubstr(message));
    EXPECT_THAT(program.error().message, testing::StartsWith("line " + std::to_string(line) + ":"));
  }
}

TEST(Verify, FindsDeadlocks) {
  const auto verified = VerifyWith("  post semaphore=0 count=1\n", "");
  ASSERT_FALSE(verified);
  EXPECT_THAT(verified.error().message, HasSubstr("deadlock"));
}

TEST(Linearise, KeepsStreamsInOrderWhateverTheSeed) {
  const Program program = Tiny();
  std::set<std::string> orders;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const auto order = Linearise(program, seed);
    ASSERT_TRUE(order);
    std::array<int32_t, kStreamCount> last = {-1, -1, -1};
    std::string text;
    for (const Step& step : *order) {
      EXPECT_GT(step.index, last[static_cast<size_t>(step.stream)]);
      last[static_cast<size_t>(step.stream)] = step.index;
      text += Name(step.stream)[0];
    }
    EXPECT_EQ(order->size(), 15u);
    orders.insert(text);
  }
  EXPECT_GT(orders.size(), 1u);  // rope_table may go before or after the first gather
}

TEST(Decode, SurvivesAnyTruncationAndAnyFlippedByte) {
  const std::vector<std::byte> bytes = Encode(Tiny());
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(Decode(std::span(bytes).first(size))) << size;
  int refused = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::vector<std::byte> damaged = bytes;
    damaged[i] ^= std::byte{0x41};
    const auto program = Decode(damaged);
    if (!program || !Verify(*program)) ++refused;
  }
  EXPECT_GT(refused, static_cast<int>(bytes.size() / 4));  // names and scales may change unseen
}

// Where a value stands in the bytes of a Program: the only place where these differ.
size_t OffsetOf(const Program& a, const Program& b) {
  const auto first = Encode(a), second = Encode(b);
  EXPECT_EQ(first.size(), second.size());
  return static_cast<size_t>(std::ranges::mismatch(first, second).in1 - first.begin());
}

TEST(Decode, FlagsAreZeroOrOne) {
  const Program program = Tiny();
  Program other = program;
  other.registers[0].at_load = !other.registers[0].at_load;
  std::vector<std::byte> bytes = Encode(program);
  const size_t flag = OffsetOf(program, other);
  for (const int value : {2, 128, 255}) {
    bytes[flag] = static_cast<std::byte>(value);
    const auto decoded = Decode(bytes);
    ASSERT_FALSE(decoded) << value;
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorrupt);
    EXPECT_EQ(decoded.error().message, "a flag is " + std::to_string(value) + ", not 0 or 1");
  }
}

TEST(Decode, FactsComeInTheOrderOfTheirNames) {
  Program program = Tiny();
  program.facts = {{"aa", 1}, {"bb", 2}};
  std::vector<std::byte> bytes = Encode(program);
  Program other = program;
  other.facts = {{"ab", 1}, {"bb", 2}};
  const size_t second_letter = OffsetOf(program, other);
  bytes[second_letter - 1] = std::byte{'b'};
  for (const char letter : {'b', 'c'}) {  // "bb" twice, or after "bc"
    bytes[second_letter] = static_cast<std::byte>(letter);
    const auto decoded = Decode(bytes);
    ASSERT_FALSE(decoded) << letter;
    EXPECT_THAT(decoded.error().message, HasSubstr("facts are not in the order"));
  }
}

// An instruction takes many times its encoded byte once decoded: a long list of short ones is
// refused before it is.
TEST(Decode, ListsAreCapped) {
  Program program = Tiny();
  program.streams[2].assign((1 << 20) + 1, Instruction{});
  const auto decoded = Decode(Encode(program));
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().message, "Program claims 1048577 of something");
  program.streams[2].resize(2);
  const auto goes_on = Decode(Encode(program));
  ASSERT_FALSE(goes_on);
  EXPECT_EQ(goes_on.error().message, "a stream goes on after its 'end'");
}

TEST(Decode, NamesWhatDoesNotExist) {
  const Program program = Tiny();
  const std::vector<std::byte> sound = Encode(program);
  auto error_of = [&](size_t at, int value) {
    std::vector<std::byte> bytes = sound;
    bytes[at] = static_cast<std::byte>(value);
    const auto decoded = Decode(bytes);
    EXPECT_FALSE(decoded);
    return decoded ? Error{} : decoded.error();
  };
  EXPECT_THAT(error_of(0, 0).message, HasSubstr("does not begin with MPRG"));
  EXPECT_EQ(error_of(4, 99).code, ErrorCode::kUnsupported);
  EXPECT_THAT(error_of(4, 99).message, HasSubstr("version 99"));
  EXPECT_THAT(error_of(sound.size() - 1, kOpcodeCount).message, HasSubstr("opcode 31 does not"));
  Program other = program;
  other.buffers[8].dtype = DType::kF32;
  EXPECT_THAT(error_of(OffsetOf(program, other), kDTypeCount).message,
              HasSubstr("buffer 'embed' has an unknown kind or type"));
  std::vector<std::byte> longer = sound;
  longer.push_back(std::byte{0});
  const auto decoded = Decode(longer);
  ASSERT_FALSE(decoded);
  EXPECT_THAT(decoded.error().message, HasSubstr("followed by 1 stray bytes"));
}

class PackageTest : public testing::Test {
 protected:
  PackageTest()
      : path_(std::filesystem::path(testing::TempDir()) /
              ("tiny." + std::to_string(::getpid()) + ".mill")) {
    program_ = Tiny();
    const auto written =
        WritePackage(path_, program_, {{"chat", "qwen3"}, {"tokenizer", "{}"}},
                     [&](int32_t id) -> Result<std::span<const std::byte>> {
                       const Buffer& buffer = program_.buffers[static_cast<size_t>(id)];
                       weight_.assign(static_cast<size_t>(BufferBytes(buffer, buffer.rows.size)),
                                      static_cast<std::byte>(id));
                       return weight_;
                     },
                     {});
    EXPECT_TRUE(written) << written.error().message;
  }
  ~PackageTest() override { std::filesystem::remove(path_); }

  std::string ReadError() {
    const auto package = ReadPackage(path_, {});
    return package ? "" : package.error().message;
  }
  // Overwrites one byte of the file.
  void Damage(int64_t offset) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const char byte = static_cast<char>(file.get() ^ 0x55);
    file.seekp(offset);
    file.put(byte);
  }

  std::filesystem::path path_;
  Program program_;
  std::vector<std::byte> weight_;
};

TEST_F(PackageTest, ComesBackWhole) {
  ASSERT_TRUE(IsPackage(path_));
  const auto package = ReadPackage(path_, {});
  ASSERT_TRUE(package) << package.error().message;
  EXPECT_EQ(package->program, program_);
  EXPECT_EQ(package->texts.at("chat"), "qwen3");
  for (size_t i = 0; i < program_.buffers.size(); ++i) {
    const Buffer& buffer = program_.buffers[i];
    const auto bytes = package->weights.by_buffer[i];
    if (buffer.kind != BufferKind::kWeight) {
      EXPECT_TRUE(bytes.empty());
      continue;
    }
    ASSERT_EQ(static_cast<int64_t>(bytes.size()), BufferBytes(buffer, buffer.rows.size));
    EXPECT_EQ(bytes.back(), static_cast<std::byte>(i));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % kLineBytes, 0u);
  }
}

TEST_F(PackageTest, RefusesDamageByName) {
  Damage(4096);
  EXPECT_THAT(ReadError(), HasSubstr("section 'program' is damaged"));
  Damage(4096);
  EXPECT_EQ(ReadError(), "");
  Damage(30);
  EXPECT_THAT(ReadError(), HasSubstr("section table is damaged"));
  Damage(30);
  Damage(8);
  EXPECT_THAT(ReadError(), HasSubstr("format version"));
  Damage(8);
  Damage(0);
  EXPECT_THAT(ReadError(), HasSubstr("not a compiled model"));
  EXPECT_FALSE(IsPackage(path_));
  Damage(0);
  Damage(3 * 4096);  // program, index and weights take one page each before the second weight
  EXPECT_THAT(ReadError(), HasSubstr("weight 'embed' is damaged"));
}

TEST_F(PackageTest, SectionsMayBeEmpty) {
  // The last one too: it lies at the end of the file, and still inside.
  const auto written = WritePackage(
      path_, program_, {{"a", ""}, {"b", "text"}, {"z", ""}},
      [&](int32_t id) -> Result<std::span<const std::byte>> {
        const Buffer& buffer = program_.buffers[static_cast<size_t>(id)];
        weight_.assign(static_cast<size_t>(BufferBytes(buffer, buffer.rows.size)), std::byte{1});
        return weight_;
      },
      {});
  ASSERT_TRUE(written) << written.error().message;
  const auto package = ReadPackage(path_, {});
  ASSERT_TRUE(package) << package.error().message;
  EXPECT_EQ(package->texts, (Texts{{"a", ""}, {"b", "text"}, {"z", ""}}));
}

// What fails in the middle leaves the old file, and no other.
TEST_F(PackageTest, IsWrittenWholeOrNotAtAll) {
  const auto written = WritePackage(path_, program_, {},
                                    [&](int32_t) -> Result<std::span<const std::byte>> {
                                      return Fail(ErrorCode::kNotFound, "no such tensor");
                                    },
                                    {});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().message, "no such tensor");
  EXPECT_EQ(ReadError(), "");
  for (const auto& entry : std::filesystem::directory_iterator(path_.parent_path()))
    EXPECT_EQ(entry.path().string().find(path_.string() + ".tmp"), std::string::npos);
  const auto nowhere = WritePackage("/nonexistent/x.mill", program_, {}, {}, {});
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().code, ErrorCode::kIo);
}

TEST_F(PackageTest, RefusesEveryTruncation) {
  for (auto size = std::filesystem::file_size(path_); size > 0; size = size * 4 / 5) {
    std::filesystem::resize_file(path_, size - 1);
    EXPECT_NE(ReadError(), "") << size - 1;
  }
}

}  // namespace
}  // namespace millpower::isa
