// Instructions on tensors: that sound ones are accepted and held by both forms, and that each thing
// an instruction must not be is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "base/rng.h"
#include "isa/encoding.h"
#include "isa/test_tensors.h"
#include "isa/verify.h"

namespace millpower::isa {
namespace {

using testing::HasSubstr;

const std::string kText = kTestTensors;

Program ParseOrDie(const std::string& text) {
  auto program = Parse(text);
  EXPECT_TRUE(program) << program.error().message;
  return program ? *program : Program();
}

std::string Replaced(const std::string& from, const std::string& to, std::string text = kText) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  if (at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

// What Verify says of the Program with the first `from` in its text replaced; empty: it is sound.
std::string ErrorWith(const std::string& from, const std::string& to,
                      const std::string& text = kText) {
  const auto program = Parse(Replaced(from, to, text));
  if (!program) return "parse: " + program.error().message;
  const auto verified = Verify(*program);
  if (verified) return "";
  EXPECT_EQ(verified.error().code, ErrorCode::kCorrupt);
  return verified.error().message;
}

std::string ErrorOf(const Program& program) {
  const auto verified = Verify(program);
  return verified ? "" : verified.error().message;
}

// From what, to what, and what is said of it.
using Case = std::tuple<const char*, const char*, const char*>;
void Expect(std::initializer_list<Case> cases) {
  for (const auto& [from, to, message] : cases) {
    const std::string error = ErrorWith(from, to);
    if (*message == '\0') {
      EXPECT_EQ(error, "") << from << " -> " << to;
    } else {
      EXPECT_THAT(error, HasSubstr(message)) << from << " -> " << to;
    }
  }
}

TEST(Tensors, AreSoundAndUseEveryOpcode) {
  const Program program = ParseOrDie(kText);
  EXPECT_EQ(ErrorOf(program), "");
  std::set<Opcode> used;
  for (const Instruction& instruction : program.streams[0]) used.insert(instruction.op);
  for (int i = 0; i < kOpcodeCount; ++i) {
    const OpInfo& info = Info(static_cast<Opcode>(i));
    EXPECT_TRUE(used.contains(info.op) || !info.takes_tensors()) << info.name;
  }
}

TEST(Tensors, TextAndBytesHoldTheWholeProgram) {
  const Program program = ParseOrDie(kText);
  EXPECT_EQ(Print(program), kText);
  const auto decoded = Decode(Encode(program));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(*decoded, program);
  EXPECT_EQ(Encode(*decoded), Encode(program));
}

// Operands and attributes in another order, and streams too: the same Program.
TEST(Tensors, TextsThatSayTheSameAreOneProgram) {
  const Program program = ParseOrDie(kText);
  const std::string moved =
      "  take x=x:[batch,6] index=picks:[2] y=taken:[batch,2] axis=1 policy=0";
  EXPECT_EQ(ParseOrDie(Replaced(
                moved, "  take policy=0 axis=1 y=taken:[batch,2] index=picks:[2] x=x:[batch,6]")),
            program);
  const size_t compute = kText.find("stream compute"), transfer = kText.find("stream transfer");
  EXPECT_EQ(ParseOrDie(kText.substr(0, compute) + kText.substr(transfer) +
                       kText.substr(compute, transfer - compute)),
            program);
  EXPECT_EQ(ErrorOf(ParseOrDie(kText.substr(0, compute) + kText.substr(transfer) +
                               kText.substr(compute, transfer - compute))),
            "");
  // A list that is left out is the empty one.
  EXPECT_EQ(ParseOrDie(Replaced(" sizes=[]\n", "\n")), program);
}

TEST(Tensors, ParseNamesWhatIsNoList) {
  for (const auto& [from, to, message] : {
           Case("axes=[1]", "axes=1", "'1' is not a list"),
           {"axes=[1]", "axes=[1", "'[1' is not a list"},
           {"axes=[1]", "axes=[1,]", "ends with a comma"},
           {"axes=[1]", "axes=[,1]", "'' is not an integer"},
           {"axes=[1]", "axes=[batch]", "'batch' is not an integer"},
           {"begin=[0,seq-1]", "begin=[0,seq-2]", "'seq-2' is not an integer"},
           {"x=x:[batch,6]", "x=x:batch", "'batch' is not a list"},
           {"x=x:[batch,6]", "x=x:", "'' is not a list"},
           {"t1=neg:f32(t0)", "t1=nag:f32(t0)", "is not a term"},
           {"= batch*seq", "= ", "stray words"},
           {"= batch*seq", "batch*seq", "stray words"},
           {"register batch 8", "register batch 8 at_lode", "stray words"},
       }) {
    const auto program = Parse(Replaced(from, to));
    ASSERT_FALSE(program) << to;
    EXPECT_THAT(program.error().message, HasSubstr(message)) << to;
  }
}

TEST(Registers, FormulasAreProven) {
  Expect({
      {"batch*seq 48 = batch*seq", "batch*seq 47 = batch*seq", "bound is not the formula's value"},
      {"batch*seq 48 = batch*seq", "batch*seq 48 = seq*batch", "malformed or taken"},
      {"batch*seq 48 = batch*seq", "batch*seq 48 at_load = batch*seq", "set at load and computed"},
      {"seq-1 5 = seq-1", "seq-1 5 = nothing-1", "the formula names 'nothing'"},
      {"register seq-1 5 = seq-1", "register late 5 = late-1\nregister seq-1 5 = seq-1",
       "the formula names 'late'"},
      {"register seq-1 5 = seq-1",
       "register pages 9 at_load\nregister a 8 = pages-1\n"
       "register seq-1 5 = seq-1",
       "the formula names 'pages'"},
      {"register seq-1 5 = seq-1", "register a 2 = seq\nregister seq-1 5 = seq-1",
       "bound is not the formula's value"},
      {"register seq-1 5 = seq-1", "register a 6 = seq\nregister seq-1 5 = seq-1",
       "another register is this size"},
      {"register seq-1 5 = seq-1", "register a 5 = seq-1\nregister seq-1 5 = seq-1",
       "another register is this size"},
      {"register seq-1 5 = seq-1", "register a 5 = -1+seq\nregister seq-1 5 = seq-1",
       "no size in its canonical text"},
      {"register seq-1 5 = seq-1", "register a 2 = -seq+batch\nregister seq-1 5 = seq-1",
       "may fall when a register grows"},
      {"register seq-1 5 = seq-1", "register a 7 = 7\nregister seq-1 5 = seq-1", "is a constant"},
      {"register seq-1 5 = seq-1", "register a 7 = se(q\nregister seq-1 5 = seq-1",
       "no size in its canonical text"},
      {"register seq-1 5 = seq-1",
       "register a 4611686018427387904 = 4611686018427387904*seq\nregister seq-1 5 = seq-1",
       "has a bound outside 1..2^31"},
      {"register seq-1 5 = seq-1", "register 8*batch 5\nregister seq-1 5 = seq-1",
       "malformed or taken"},
  });
  // One that products of registers reach may be larger than one that is set.
  EXPECT_EQ(ErrorWith("register seq-1 5 = seq-1",
                      "register long 16777216\nregister many 134217728 = 8*long\n"
                      "register seq-1 5 = seq-1"),
            "");
  EXPECT_THAT(ErrorWith("register seq-1 5 = seq-1",
                        "register a 16777216\nregister b 16777216\n"
                        "register a*b 281474976710656 = a*b\nregister seq-1 5 = seq-1"),
              HasSubstr("has a bound outside 1..2^31"));
}

TEST(Registers, AThousandAreTaken) {
  std::string many;
  for (int i = 0; i < 1024; ++i) many += "register r" + std::to_string(i) + " 1\n";
  const std::string text = "program p\n" + many +
                           "stream compute\nend\nstream transfer\nend\n"
                           "stream link\nend\n";
  EXPECT_EQ(ErrorOf(ParseOrDie(text)), "");
  EXPECT_EQ(ErrorOf(ParseOrDie(Replaced("program p\n", "program p\nregister one_more 1\n", text))),
            "more than 1024 registers");
}

TEST(Buffers, FormsAndTypesOfTensors) {
  Expect({
      {"ids input i64", "ids input q8_0", "rows cannot hold q8_0"},
      {"ids input i64", "ids input i4", "rows cannot hold i4"},
      {"table weight i8 table", "table weight i16 table", "table cannot hold i16"},
      {"table weight i8 table", "table weight q4_0 table", "table cannot hold q4_0"},
      {"table weight i8 table", "table scratch i8 table", "an embedding table is a weight"},
      {"table weight i8 table", "table input i8 table", "an embedding table is a weight"},
      {"[batch, 3] below 100", "[batch, 3] below nothing", "parse:"},
      {"x input f32 rows [batch, 6]", "x input f32 rows [batch, 6] below 7",
       "only inputs of i32 or i64 have bounds"},
      {"table weight i8 table [100, 6]", "table weight i4 table [100, 6]", ""},
  });
}

TEST(Operands, ShapesHaveTheBuffersElements) {
  Expect({

      {"reduce x=x:[batch,6]", "reduce x=x:[batch,5]", "a shape of other than x's elements"},
      {"reduce x=x:[batch,6]", "reduce x=x:[seq,6]", "a shape of other than x's elements"},
      {"reduce x=x:[batch,6]", "reduce x=x:[6]", "a shape of other than x's elements"},
      {"reduce x=x:[batch,6]", "reduce x=x:[batch,0]", "has a dimension of 0"},
      {"reduce x=x:[batch,6]", "reduce x=x:[batch,1,1,1,1,1,1,1,6]", "shape of other than"},
      {"reduce x=x:[batch,6]", "reduce x=x:[batch,-6]", "neither a register nor 0..2^31"},
      {"rms_norm x=x weight", "rms_norm x=x:[batch,6] weight",
       "operand x has a shape, which its opcode does not take"},
      {"matmul x=x w=packed", "matmul x=x:[batch,6] w=packed", "which its opcode does not take"},
      {"embedding_bag table=table ", "embedding_bag table=table:[100,6] ",
       "is not a whole buffer of rows"},

  });
  Program program = ParseOrDie(kText);
  Instruction& reduce = program.streams[0][0];
  for (const int32_t shape : {int32_t(program.shapes.size()), -2, 1 << 30}) {
    reduce.operands[0].shape = shape;
    EXPECT_THAT(ErrorOf(program), HasSubstr("shape")) << shape;
  }
  program = ParseOrDie(kText);
  program.streams[0][0].operands[0].cols = 5;
  EXPECT_THAT(ErrorOf(program), HasSubstr("is not a whole buffer of rows"));
}

// Shapes and lists stand once, in the order of their first use, and all are used.
TEST(Tables, AreCanonical) {
  const Program program = ParseOrDie(kText);
  Program other = program;
  other.shapes.push_back({{-1, 77}});
  EXPECT_EQ(ErrorOf(other), "shapes are not in the order of their first use");
  Canonicalise(other);
  EXPECT_EQ(other, program);
  other.lists.push_back({77});
  EXPECT_EQ(ErrorOf(other), "lists are not in the order of their first use");
  Canonicalise(other);
  EXPECT_EQ(other, program);

  std::swap(other.shapes[0], other.shapes[1]);
  for (Instruction& instruction : other.streams[0]) {
    const auto swapped = [](auto& index) { index = index == 0 ? 1 : index == 1 ? 0 : index; };
    const OpInfo& info = Info(instruction.op);
    for (Operand& operand : instruction.operands) swapped(operand.shape);
    for (size_t i = 0; i < info.attributes.size(); ++i)
      if (info.attributes[i].type == AttributeType::kSizes) swapped(instruction.attributes[i]);
  }
  EXPECT_EQ(ErrorOf(other), "shapes are not in the order of their first use");
  Canonicalise(other);
  EXPECT_EQ(other, program);

  // The same list under two numbers, the second for a later instruction.
  other.lists.push_back(other.lists[0]);
  for (Instruction& instruction : other.streams[0])
    if (instruction.op == Opcode::kCopy)
      instruction.attributes[copy::kGap] = static_cast<int64_t>(other.lists.size()) - 1;
  EXPECT_NE(ErrorOf(other), "");
}

TEST(Tables, EntriesExist) {
  for (const int64_t index : {int64_t{-1}, int64_t{1000}, int64_t{1} << 40}) {
    for (const Opcode op : {Opcode::kReduce, Opcode::kMap, Opcode::kCopy}) {
      Program program = ParseOrDie(kText);
      const auto found =
          std::ranges::find(program.streams[0], op, [](const Instruction& in) { return in.op; });
      const auto& info = Info(op);
      for (size_t i = 0; i < info.attributes.size(); ++i) {
        if (info.attributes[i].type == AttributeType::kInteger) continue;
        const int64_t before = std::exchange(found->attributes[i], index);
        EXPECT_NE(ErrorOf(program), "") << info.attributes[i].name;
        EXPECT_NE(Print(program), "");  // says '?', and no more
        found->attributes[i] = before;
      }
    }
  }
}

TEST(Checks, Map) {
  Expect({
      {"map x0=x:[batch,6] x1", "map x1", "operands are left out before others"},
      {"x1=bias:[6] y=mapped:[batch,6]", "x1=bias:[6] y=mapped:[6,batch]", "does not broadcast"},
      {"x1=bias:[6] y=mapped", "x1=bias:[6,1] y=mapped", "x1 (bias) does not broadcast"},
      {"x1=bias:[6] y=mapped", "x1=bias y=mapped", ""},
      {"t0=x0:f32;t1=neg", "t0=x0:f64;t1=neg", "code: term 0 loads an operand of another type"},
      {"t2=x1:f32", "t2=x2:f32", "code: term 2 loads an operand that is not there"},
      {"t2=x1:f32", "t2=size:i64(0)", "names a size that is not there"},
      {"code={t0=index:i64(1)", "code={t0=index:i64(2)", "names an axis that is not there"},
      {"code={t0=index:i64(1)", "code={t0=size:i64(1)", "names a size that is not there"},
      {"code={t0=index:i64(1);t1=size:i64(0);t2=less:bool(t0,t1)}", "code=[]", "1 to 64 terms"},
      {"code={t0=index:i64(1);t1=size:i64(0);t2=less:bool(t0,t1)}", "code=[1,2,3]", "1 to 64"},
      {"code={t0=index:i64(1);t1=size:i64(0);t2=less:bool(t0,t1)}", "code={t0=index:i64(1)}",
       "y (mask) is bool, not i64"},
      // In place, but not in another shape, or as a broadcast operand.
      {"map x0=mapped:[batch,6] y=mapped:[batch,6]", "map x0=mapped:[6*batch] y=mapped:[batch,6]",
       "parse:"},
      {"map x0=mapped:[batch,6] y=mapped:[batch,6]", "map x0=mapped y=mapped:[batch,6]",
       "operands x0 and y overlap in part"},
      {"map x0=mapped:[batch,6] y=mapped:[batch,6]", "map x0=mapped:[batch,6] y=mapped:[batch,1,6]",
       "operands x0 and y overlap in part"},
      {"map x0=mapped:[batch,6] y=mapped:[batch,6]", "map x0=mapped[0:3] y=mapped[3:6]", ""},
      {"map x0=mapped:[batch,6] y=mapped:[batch,6]", "map x0=mapped[0:3] y=mapped[2:5]",
       "overlap in part"},
  });
}

TEST(Checks, Reduce) {
  Expect({
      {"y=sums:[batch,1] kind=0", "y=sums:[batch,1] kind=11", "kind 11 does not exist"},
      {"y=sums:[batch,1] kind=0", "y=sums:[batch,1] kind=-1", "kind -1 does not exist"},
      {"y=sums:[batch,1] kind=0", "y=sums:[batch,1] kind=9", "bools are reduced by any and all"},
      {"y=any:[batch,1] kind=9", "y=any:[batch,1] kind=0", "bools are reduced by any and all"},
      {"y=sums:[batch,1] kind=0", "y=sums:[batch,1] kind=5", "y (sums) is f32, not i64"},
      {"y=sums:[batch,1] kind=0", "y=sums:[batch] kind=0", "not of shape [batch,1]"},
      {"kind=0 axes=[1]", "kind=0 axes=[2]", "axis 2 is not one of x (x)"},
      {"kind=0 axes=[1]", "kind=0 axes=[-1]", "axis -1 is not one of x (x)"},
      {"kind=0 axes=[1]", "kind=0 axes=[0,1]", "not of shape [1,1]"},
      {"kind=0 axes=[1]", "kind=0 axes=[1,1]", "not in ascending order"},
      {"kind=0 axes=[1]", "kind=0 axes=[1,0]", "not in ascending order"},
      {"y=best:[batch,1] kind=5 axes=[1]", "y=best:[batch,1] kind=5 axes=[]", "along one axis"},
      {"reduce x=x:[batch,6] y=sums:[batch,1]", "reduce x=x y=sums", ""},
  });
}

TEST(Checks, Copy) {
  // transposed, then reversed along seq: x [batch, seq, 3] -> y [seq, batch, 3].
  Expect({
      {"perm=[1,0]", "perm=[0,1]", "may leave"},
      {"perm=[1,0]", "perm=[1,1]", "no permutation"},
      {"perm=[1,0]", "perm=[1,2]", "no permutation"},
      {"perm=[1,0]", "perm=[-1,0]", "no permutation"},
      {"perm=[1,0]", "perm=[1,0,2]", "differ in rank"},
      {"begin=[0,seq-1]", "begin=[0,seq]", "may leave axis 1 of x (pairs)"},
      {"begin=[0,seq-1]", "begin=[0,0]", "may leave axis 1 of x (pairs)"},
      {"begin=[0,seq-1]", "begin=[1,seq-1]", "may leave axis 0 of x (pairs)"},
      {"begin=[0,seq-1]", "begin=[0,5]", "may leave axis 1 of x (pairs)"},
      {"step=[1,-1]", "step=[1,-2]", "may leave axis 1 of x (pairs)"},
      {"step=[1,-1]", "step=[1,1]", "may leave axis 1 of x (pairs)"},
      {"step=[1,-1]", "step=[1,0]", ""},  // the last one, over and over
      {"step=[1,-1]", "step=[1,-2147483649]", "a step is beyond 2^31"},
      {"step=[1,-1]", "step=[-9223372036854775808,-1]", "a step is beyond 2^31"},
      {"step=[1,-1] window=[seq,batch]", "step=[1,-1] window=[0,batch]", "the window is empty"},
      {"step=[1,-1] window=[seq,batch]", "step=[1,-1] window=[seq,1]", ""},
      {"step=[1,-1] window=[seq,batch]", "step=[1,-1] window=[seq,2]", "may leave axis 0"},
      {"step=[1,-1] window=[seq,batch]", "step=[1,-1] window=[batch,batch]", "may leave axis 1"},
      {"at=[0,0] gap=[1,1]", "at=[1,0] gap=[1,1]", "may leave axis 0 of y (turned)"},
      {"at=[0,0] gap=[1,1]", "at=[0,seq-1] gap=[1,1]", "may leave axis 1 of y (turned)"},
      {"at=[0,0] gap=[1,1]", "at=[0,0] gap=[2,1]", "may leave axis 0 of y (turned)"},
      {"at=[0,0] gap=[1,1]", "at=[0,0] gap=[0,1]", "gap is not 2 integers from 1"},
      {"at=[0,0] gap=[1,1]", "at=[0,0] gap=[1]", "differ in rank"},
      {"copy x=pairs:[batch,seq]", "copy x=ids:[batch,3]", "is i32, not i64"},
      {"y=turned:[seq,batch] perm", "y=pairs:[seq,batch] perm", "operand y writes 'pairs'"},
  });
}

TEST(Checks, Contract) {
  Expect({
      {"transpose_b=1", "transpose_b=0", "differ in what is summed over"},
      {"transpose_b=1", "transpose_b=2", "transpose_b 2 does not exist"},
      {"transpose_a=0", "transpose_a=1", "differ in what is summed over"},
      {"a=x:[batch,1,6]", "a=x:[batch,6]", "not of shape [batch,4]"},
      {"a=x:[batch,1,6]", "a=x:[6,batch,1]", "differ in what is summed over"},
      {"b=square:[4,6]", "b=square:[24]", "not both matrices"},
      {"b=square:[4,6]", "b=square:[2,2,6]", "leading dimensions of a and b do not broadcast"},
      {"b=square:[4,6]", "b=square:[1,4,6]", ""},
      {"b=square:[4,6]", "b=other:[4,6]", "b (other) is f64, not f32"},
      {"y=products:[batch,1,4]", "y=products:[batch,4]", "not of shape [batch,1,4]"},
  });
}

TEST(Checks, Conv) {
  Expect({
      {"bias=channels:[4] y=convolved", "y=convolved", ""},
      {"bias=channels:[4]", "bias=channels:[2,2]", "not of shape [4]"},
      {"bias=channels:[4]", "bias=bias:[6]", "not of shape [4]"},
      {"x=image:[batch,2,5,5] w=kernel:[4,1,3,3]", "x=image:[batch,2,25] w=kernel:[4,1,3,3]",
       "x and w differ in rank"},
      {"x=image:[batch,2,5,5] w=kernel:[4,1,3,3]", "x=image:[batch,50] w=kernel:[4,1,3,3]",
       "has no spatial dimension"},
      {"x=image:[batch,2,5,5] w=kernel:[4,1,3,3]", "x=image:[2,5,batch,5] w=kernel:[4,1,3,3]",
       "a spatial dimension that is not constant"},
      {"x=image:[batch,2,5,5] w=kernel:[4,1,3,3]", "x=image:[2,batch,5,5] w=kernel:[4,1,3,3]",
       "channels are not constant"},
      {"w=kernel:[4,1,3,3]", "w=kernel:[1,4,3,3]", "groups and channels do not fit"},
      {"groups=2", "groups=1", "groups and channels do not fit"},
      {"groups=2", "groups=0", "groups and channels do not fit"},
      {"groups=2", "groups=9223372036854775807", "groups and channels do not fit"},
      {"strides=[2,2] pads_begin=[1,1]", "strides=[2] pads_begin=[1,1]",
       "strides is not 2 integers from 1"},
      {"strides=[2,2] pads_begin=[1,1]", "strides=[2,0] pads_begin=[1,1]", "strides is not"},
      {"strides=[2,2] pads_begin=[1,1]", "strides=[2,2] pads_begin=[1,-1]", "pads_begin is not 2"},
      {"strides=[2,2] pads_begin=[1,1]", "strides=[2,1] pads_begin=[1,1]",
       "not of shape [batch,4,3,5]"},
      {"dilations=[1,1] groups", "dilations=[1,4] groups", "kernel is larger than the padded x"},
      {"dilations=[1,1] groups", "dilations=[1,2147483648] groups", "kernel is larger"},
      {"dilations=[1,1] groups", "dilations=[1,2147483649] groups", "dilations is not"},
  });
}

TEST(Checks, Pool) {
  Expect({
      {"kind=1 kernel", "kind=4 kernel", "kind 4 does not exist"},
      {"kind=1 kernel", "kind=3 kernel", "y (pooled) is f32, not i64"},
      {"kernel=[2,2]", "kernel=[2]", "kernel is not 2 integers"},
      {"kernel=[2,2]", "kernel=[0,2]", "kernel is not 2 integers"},
      {"kernel=[2,2] strides=[2,2]", "kernel=[2,2] strides=[3,2]", "a window lies outside of x"},
      {"pads_begin=[0,1]", "pads_begin=[0,2]", "a window lies outside of x"},
      {"pads_begin=[0,1]", "pads_begin=[0,-1]", "pads_begin is not 2 integers from 0"},
      {"dilations=[1,1] count", "dilations=[1,6] count", ""},
      {"count_padding=0", "count_padding=2", "count_padding 2 does not exist"},
      {"y=pooled:[batch,2,3,3]", "y=pooled:[batch,2,9]", "differ in rank"},
      {"y=pooled:[batch,2,3,3]", "y=pooled:[batch,18]", "has no spatial dimension"},
      {"y=pooled:[batch,2,3,3]", "y=pooled:[batch,3,2,3]", "images or channels"},
  });
}

TEST(Checks, TakeAndItsKin) {
  Expect({
      {"y=taken:[batch,2] axis=1", "y=taken:[batch,2] axis=2", "axis 2 is not one of x (x)"},
      {"y=taken:[batch,2] axis=1", "y=taken:[batch,2] axis=-1", "axis -1 is not one of x (x)"},
      {"y=taken:[batch,2] axis=1", "y=taken:[batch,2] axis=0", "not of shape [2,6]"},
      {"axis=1 policy=0", "axis=1 policy=3", "policy 3 does not exist"},
      {"index=picks:[2]", "index=picks:[1,2]", "not of shape [batch,1,2]"},
      {"index=picks:[2]", "index=bias:[6]", "indices are i32 or i64"},
      {"take x=x:[batch,6]", "take x=picks:[2]", "axis 1 is not one of x (picks)"},
      // take_along
      {"index=places:[batch,1] y", "index=places:[1,batch] y", "not of shape [1,batch]"},
      {"index=places:[batch,1] y", "index=places:[batch] y", "another rank"},
      {"y=along:[batch,1] axis=1", "y=along:[1,batch] axis=1", "not of shape [batch,1]"},
      {"y=along:[batch,1] axis=1", "y=along:[batch,1] axis=0", ""},
      // gather_nd
      {"batch_dims=1 policy=1", "batch_dims=2 policy=1", "does not name places"},
      {"batch_dims=1 policy=1", "batch_dims=-1 policy=1", "batch_dims -1 does not exist"},
      {"batch_dims=1 policy=1", "batch_dims=9 policy=1", "batch_dims 9 does not exist"},
      {"batch_dims=1 policy=1", "batch_dims=0 policy=1", "not of shape [batch,6]"},
      {"gather_nd x=x:[batch,6] index=places:[batch,1]",
       "gather_nd x=x:[batch,6] index=places:[1,batch]", "does not name places"},
      {"gather_nd x=x:[batch,6]", "gather_nd x=x:[6,batch]", "differ in a batch dimension"},
  });
}

TEST(Checks, Scatter) {
  Expect({
      {"mode=0 axis=1 reduction=1", "mode=2 axis=1 reduction=1", "mode 2 does not exist"},
      {"mode=0 axis=1 reduction=1", "mode=0 axis=2 reduction=1", "axis 2 is not one of y"},
      {"mode=0 axis=1 reduction=1", "mode=0 axis=1 reduction=5", "reduction 5 does not exist"},
      {"scatter index=places:[batch,1] updates=along:[batch,1]",
       "scatter index=places:[batch,1] updates=along:[1,batch]", "not of shape [batch,1]"},
      {"scatter index=places:[batch,1] updates=along:[batch,1]",
       "scatter index=places:[1,batch] updates=along:[1,batch]", ""},
      {"mode=0 axis=1 reduction=1", "mode=0 axis=0 reduction=1", ""},
      {"scatter index=places:[batch,1] updates=along:[batch,1]",
       "scatter index=places:[batch,1] updates=along1:[batch,1]", "parse:"},
      {"scatter index=places:[batch,1] updates=along:[batch,1]",
       "scatter index=along:[batch,1] updates=along:[batch,1]", "indices are i32 or i64"},
      {"mode=1 axis=0 reduction=0", "mode=1 axis=0 reduction=0", ""},
      {"updates=x:[batch,6] y=scattered", "updates=x:[6,batch] y=scattered",
       "not of shape [batch,6]"},
      {"updates=x:[batch,6] y=scattered:[batch,6]",
       "updates=scattered:[batch,6] y=scattered:"
       "[batch,6]",
       "y (scattered) overwrites updates (scattered)"},
  });
}

TEST(Checks, EmbeddingBag) {
  Expect({
      {"table=table index=ids:[batch,3]", "table=bias index=ids:[batch,3]",
       "table is not an embedding table"},
      {"index=ids:[batch,3] weights", "index=ids weights", ""},
      {"index=ids:[batch,3] weights", "index=x weights", "indices are i32 or i64"},
      {"weights=shares:[batch,3]", "weights=shares:[3,batch]", "not of shape [batch,3]"},
      {"y=bags:[batch,6] mode=1", "y=bags mode=1", ""},
      {"y=bags:[batch,6] mode=1", "y=wide[2:8] mode=1", ""},
      {"y=bags:[batch,6] mode=1", "y=wide[2:7] mode=1", "not of shape [batch,6]"},
      {"y=bags:[batch,6] mode=1", "y=bags:[6,batch] mode=1", "not of shape [batch,6]"},
      {"mode=1 ends=0", "mode=3 ends=0", "mode 3 does not exist"},
      {"policy=3 default_row=7", "policy=4 default_row=7", "policy 4 does not exist"},
      {"policy=3 default_row=7", "policy=3 default_row=100", "no row of the table"},
      {"policy=3 default_row=7", "policy=3 default_row=-2", "no row of the table"},
      {"padding_row=-1", "padding_row=100", "no row of the table"},
      // With offsets.
      {"index=list:[batch*seq] offsets", "index=list offsets", "are not lists"},
      {"offsets=offsets:[bags]", "offsets=offsets", "are not lists"},
      {"offsets=offsets:[bags]", "offsets=bias:[6]", "indices are i32 or i64"},
      {"y=ragged:[bags-1,6] mode=0 ends=1", "y=ragged:[bags-1,6] mode=0 ends=0",
       "not of shape [bags,6]"},
      {"y=ragged:[bags-1,6] mode=0 ends=1", "y=ragged:[bags-1,6] mode=0 ends=2",
       "ends 2 does not exist"},
      {"offsets=offsets:[bags]", "offsets=one:[1]", "offsets name no bag"},
      // Tables are for this opcode alone.
      {"reduce x=x:[batch,6]", "reduce x=table", "x (table) is table, not rows"},
  });
}

TEST(Checks, SoftmaxAndItsKin) {
  Expect({
      {"softmax x=x:[batch,6] y=soft:[batch,6]", "softmax x=soft:[batch,6] y=soft:[batch,6]",
       "before anything has written it"},
      {"log=0", "log=2", "log 2 does not exist"},
      {"softmax x=x:[batch,6]", "softmax x=x:[6,batch]", "not of shape [6,batch]"},
      {"softmax x=x:[batch,6] y=soft:[batch,6]", "softmax x=one:[] y=one.f:[]", "no float"},
      {"softmax x=x:[batch,6] y=soft:[batch,6]", "softmax x=ids:[batch,3] y=soft:[batch,6]",
       "x (ids) is i64, no float"},
      // layer_norm
      {"layer_norm x=soft:[batch,6] weight=bias:[6] bias=bias:[6] y=soft:[batch,6]",
       "layer_norm x=soft:[batch,6] y=soft:[batch,6]", ""},
      {"layer_norm x=soft:[batch,6] weight=bias:[6] bias=bias:[6] y=soft:[batch,6]",
       "layer_norm x=soft:[batch,6] weight=bias bias=bias:[6] y=soft:[batch,6]",
       "not of shape [6]"},
      {"layer_norm x=soft:[batch,6]", "layer_norm x=soft", "operands x and y overlap in part"},
      {"bias=bias:[6] y=soft", "bias=channels:[4] y=soft", "not of shape [6]"},
      {"epsilon=1e-05", "epsilon=-1e-05", "epsilon is not in"},
      {"epsilon=1e-05", "epsilon=nan", "epsilon is not in"},
      {"epsilon=1e-05", "epsilon=1e7", "epsilon is not in"},
      // top_k
      {"top_k x=x:[batch,6] y=top:[batch,2] largest=1",
       "top_k x=x:[6,batch] y=top:[6,seq] largest=1", "shape of other than"},
      {"largest=1", "largest=2", "largest 2 does not exist"},
      {"top_k x=x:[batch,6]", "top_k x=sums:[batch,1]", "k may be larger than x's last axis"},
      {"top_k x=x:[batch,6]", "top_k x=x:[batch,2,3]", "another rank"},
      {"top_k x=x:[batch,6] y=top:[batch,2]", "top_k x=x:[batch,6] y=top:[2,batch]",
       "k is not constant"},
      {"top_k x=x:[batch,6]", "top_k x=x:[6,batch]", "k may be larger than x's last axis"},
      // cumulate
      {"y=running:[batch,6] kind=0", "y=running:[batch,6] kind=1", "neither sum nor product"},
      {"y=running:[batch,6] kind=0", "y=running:[batch,6] kind=2", ""},
      {"kind=0 axis=0", "kind=0 axis=2", "axis 2 is not one of x (x)"},
      {"exclusive=1", "exclusive=2", "exclusive 2 does not exist"},
      {"reverse=1", "reverse=2", "reverse 2 does not exist"},
      {"cumulate x=x:[batch,6]", "cumulate x=mask:[batch,6]", "does not compute with bools"},
      // matmul
      {"w=packed y=dense epilogue=relu", "w=packed bias=wide.bias y=dense epilogue=relu", ""},
      {"w=packed y=dense epilogue=relu", "w=packed residual=mapped y=dense epilogue=relu",
       "residual and epilogue do not agree"},
  });
}

// A copy of a part counts as a write of the whole: two streams may not fill one tensor unordered.
TEST(Order, CopiesIntoOneTensorAreWrites) {
  const std::string copy =
      "  copy x=x:[batch,6] y=wide:[batch,8] perm=[0,1] begin=[0,0] step=[1,1] window=[batch,2] "
      "at=[0,2] gap=[1,1]\n";
  EXPECT_EQ(ErrorWith("  embedding_bag", copy + copy + "  embedding_bag"), "");
  const std::string text = Replaced("stream transfer\n", "stream transfer\n" + copy);
  EXPECT_THAT(ErrorWith("  embedding_bag", copy + "  embedding_bag", text),
              HasSubstr("race on 'wide'"));
}

TEST(Order, ScatterReadsWhatItChanges) {
  std::string text = kText;
  const std::string fill = text.substr(text.find("  map y=scattered"));
  text.erase(text.find("  map y=scattered"), fill.find('\n') + 1);
  EXPECT_THAT(ErrorOf(ParseOrDie(text)), HasSubstr("before anything has written it"));
}

// Whatever the bytes: an error, or a Program that both forms hold.
TEST(Decode, SurvivesDamagedTensorPrograms) {
  const std::vector<std::byte> bytes = Encode(ParseOrDie(kText));
  for (size_t size = 0; size < bytes.size(); size += 3)
    EXPECT_FALSE(Decode(std::span(bytes).first(size))) << size;
  constexpr uint64_t kSeed = 12;
  Rng rng(kSeed);
  int sound = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::vector<std::byte> damaged = bytes;
    damaged[i] = static_cast<std::byte>(rng.Below(256));
    const auto program = Decode(damaged);
    if (!program) continue;
    EXPECT_EQ(Encode(*program), damaged);
    const std::string text = Print(*program);  // of anything that decodes
    if (!Verify(*program)) continue;
    ++sound;
    const auto parsed = Parse(text);
    ASSERT_TRUE(parsed) << parsed.error().message << "\n" << text;
    EXPECT_EQ(*parsed, *program) << "byte " << i;
  }
  EXPECT_LT(sound, static_cast<int>(bytes.size() / 2));
}

// Counts that claim more than there is, of each table.
TEST(Decode, TablesAreCapped) {
  Program program = ParseOrDie(kText);
  program.lists.assign((1 << 20) + 1, {});
  const auto decoded = Decode(Encode(program));
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().message, "Program claims 1048577 of something");
  program.lists.pop_back();
  const auto allowed = Decode(Encode(program));
  ASSERT_TRUE(allowed);
  EXPECT_EQ(ErrorOf(*allowed), "more than 2^18 shapes or lists");
  program.lists.assign(1, std::vector<int64_t>((1 << 20) + 1));
  EXPECT_FALSE(Decode(Encode(program)));
  program = ParseOrDie(kText);
  program.shapes[0].assign(65, Dim{-1, 1});
  EXPECT_EQ(ErrorOf(program), "a shape is longer than 64 sizes");
}

// Products of hostile formulas stay small, or are refused.
TEST(Registers, ProductsOfFormulasAreBounded) {
  std::string text = "program p\n";
  std::string sum, shape;
  for (int i = 0; i < 16; ++i) {
    text += std::string("register ") + static_cast<char>('a' + i) + " 2\n";
    sum = sum.empty() ? "a" : std::string(1, static_cast<char>('a' + i)) + "+" + sum;
  }
  text += "register " + sum + " 32 = " + sum + "\n";
  for (int i = 0; i < 8; ++i) shape += (i == 0 ? "[" : ",") + sum;
  text += "semaphores 0\nbuffer x scratch f32 rows [1, 1]\nstream compute\n  map y=x:" + shape +
          "] code={t0=const:f32(1)}\n  end\nstream transfer\n  end\nstream link\n  end\n";
  EXPECT_THAT(ErrorOf(ParseOrDie(text)), HasSubstr("shape of other than x's elements"));
}

}  // namespace
}  // namespace millpower::isa
