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

// One layer of a small language model, as the compiler lays it out.
const std::string kProgramText = std::string(R"(program tiny
fact vocab_size 64
register rows 16
register seqs 4
register picked 4
register adjusts 16
register page_entries 8
register pages 32 at_load
)") + kTestModelBody;

Program Tiny() {
  auto program = Parse(kProgramText);
  EXPECT_TRUE(program) << program.error().message;
  return *program;
}

// The program with the first `from` in its text replaced by `to`.
Result<void> VerifyWith(const std::string& from, const std::string& to) {
  std::string text = kProgramText;
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  auto program = Parse(text);
  EXPECT_TRUE(program) << program.error().message;
  return Verify(*program);
}

TEST(Isa, TextAndBytesHoldTheWholeProgram) {
  const Program program = Tiny();
  EXPECT_EQ(Print(program), kProgramText);
  const auto decoded = Decode(Encode(program));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(*decoded, program);
}

TEST(Isa, EveryOpcodeHasANameAndAPage) {
  std::set<std::string> names;
  for (int i = 0; i < kOpcodeCount; ++i) {
    const OpInfo& info = Info(static_cast<Opcode>(i));
    EXPECT_EQ(static_cast<int>(info.op), i);
    EXPECT_EQ(OpcodeFromName(info.name), info.op);
    EXPECT_NE(info.check, nullptr);
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

TEST(Verify, AcceptsASoundProgram) {
  const auto verified = Verify(Tiny());
  EXPECT_TRUE(verified) << verified.error().message;
}

TEST(Verify, RefusesAProgramWithAnyWaitRemoved) {
  const Program program = Tiny();
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
      {"bf16 pages [pages, 1 x 8]", "bf16 pages [pages, 1 x 9]", "even width"},
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
  program.streams[2].pop_back();
  const auto allowed = Decode(Encode(program));
  ASSERT_TRUE(allowed);
  EXPECT_FALSE(Verify(*allowed));  // more than one end
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
  EXPECT_THAT(error_of(sound.size() - 1, kOpcodeCount).message, HasSubstr("opcode 11 does not"));
  Program other = program;
  other.buffers[6].dtype = DType::kF32;
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
