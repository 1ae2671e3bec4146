#include "import/torch/model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "base/rng.h"
#include "import/torch/call.h"
#include "import/torch/test_file.h"

namespace millpower::import::torch {
namespace {

using P = ProgramBuilder;

Result<TensorModel> Open(const ProgramBuilder& program, const TensorOptions& options = {}) {
  static std::string file;  // which the model points into
  file = FlatFile(program.Build());
  return OpenPt2(AsBytes(file), options);
}

std::string Aten(const std::string& name, const std::string& inputs, const std::string& output) {
  return P::Node("torch.ops.aten." + name, inputs, output);
}
std::string Value(const std::string& name, const std::string& sizes = P::Rows(), int dtype = 7) {
  return ",\"" + name + "\":" + P::Meta(sizes, dtype);
}
const std::string kSelf = P::TensorArgument("self", "x");
const std::string kLinear =
    Aten("linear.default", P::TensorArgument("input", "x") + "," + P::TensorArgument("weight", "w"),
         "y");

ProgramBuilder Program(const std::string& nodes, const std::string& values) {
  ProgramBuilder program;
  program.nodes = nodes;
  program.values = values;
  return program;
}

std::string ErrorOf(const Result<TensorModel>& model) {
  return model ? "no error" : model.error().message;
}

TEST(Pt2, ImportsALayer) {
  ProgramBuilder program = Program(kLinear, Value("y"));
  program.ranges = R"("s0":{"min_val":1,"max_val":100})";
  const auto model = Open(program);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->format, "pt2");
  ASSERT_EQ(model->inputs.size(), 1u);
  EXPECT_EQ(model->inputs[0].name, "x");
  EXPECT_EQ(ir::ToString(model->inputs[0].shape), "[s0, 2]");
  ASSERT_EQ(model->outputs.size(), 1u);
  EXPECT_EQ(model->outputs[0].name, "y");
  EXPECT_EQ(model->graph.SymbolMax("s0"), 100);
  EXPECT_EQ(model->operators.at("torch.ops.aten.linear.default"), 1);
  const auto weight = model->weights->Find("linear.weight");
  ASSERT_TRUE(weight);
  float values[4];
  ASSERT_EQ(weight->bytes.size(), sizeof(values));
  std::memcpy(values, weight->bytes.data(), sizeof(values));
  EXPECT_EQ(values[2], 3);
  EXPECT_EQ(model->weights->Find("other").error().code, ErrorCode::kNotFound);
}

TEST(Pt2, TakesBoundsAndShapesFromOptions) {
  const ProgramBuilder program = Program(kLinear, Value("y"));
  TensorOptions options;
  options.max_batch = 64;
  EXPECT_EQ(Open(program, options)->graph.SymbolMax("s0"), 64);
  options.symbol_max = {{"s0", 9}};
  EXPECT_EQ(Open(program, options)->graph.SymbolMax("s0"), 9);
  options.input_shapes = {{"x", {5, 2}}};
  const auto fixed = Open(program, options);
  ASSERT_TRUE(fixed) << fixed.error().message;
  EXPECT_EQ(ir::ToString(fixed->outputs[0].shape), "[5, 2]");
  options.input_shapes = {{"x", {5, 3}}};
  EXPECT_EQ(Open(program, options).error().code, ErrorCode::kInvalidArgument);
  options.input_shapes = {{"z", {5, 2}}};
  EXPECT_EQ(Open(program, options).error().code, ErrorCode::kInvalidArgument);
}

TEST(Pt2, TellsEverythingThatIsNotSupportedAtOnce) {
  ProgramBuilder program;
  program.nodes = Aten("lstm.input", kSelf, "a") + "," +
                  Aten("relu.default", P::TensorArgument("self", "a"), "b") + "," +
                  Aten("nonzero.default", kSelf, "c") + "," +
                  P::Node("torch.ops.higher_order.cond", kSelf, "d") + "," +
                  P::Node("torch.ops.mylib.fast_op.default", kSelf, "y");
  program.values = Value("a") + Value("b") + Value("c") + Value("d") + Value("y");
  program.output_specs =
      R"({"user_output":{"arg":{"as_tensor":{"name":"y"}}}},
         {"buffer_mutation":{"arg":{"name":"d"},"buffer_name":"steps"}})";
  const auto model = Open(program);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
  for (const char* part : {"aten.lstm.input 'a'", "aten.nonzero.default 'c'",
                           "higher_order.cond 'd'", "mylib.fast_op.default 'y'", "'steps'"})
    EXPECT_NE(model.error().message.find(part), std::string::npos) << model.error().message;
  // What only uses a refused result is not told again.
  EXPECT_EQ(model.error().message.find("relu"), std::string::npos) << model.error().message;
}

TEST(Pt2, RefusesOtherSchemas) {
  ProgramBuilder program = Program(kLinear, Value("y"));
  program.major = 9;
  EXPECT_EQ(Open(program).error().code, ErrorCode::kUnsupported);
}

TEST(Pt2, HoldsResultsToWhatTheFileSays) {
  const ProgramBuilder shape = Program(kLinear, Value("y", P::Symbol("s0")));
  EXPECT_NE(ErrorOf(Open(shape)).find("comes to [s0, 2]"), std::string::npos);
  const ProgramBuilder type = Program(kLinear, Value("y", P::Rows(), 8));
  EXPECT_NE(ErrorOf(Open(type)).find("float64"), std::string::npos);
}

TEST(Pt2, FollowsPromotionOfTypes) {
  // f32 + true division of whole numbers, and a whole tensor times a real number.
  ProgramBuilder program;
  program.nodes =
      Aten("to.dtype", kSelf + "," + P::Argument("dtype", R"({"as_scalar_type":5})"), "i") + "," +
      Aten("div.Tensor",
           P::TensorArgument("self", "i") + "," + P::Argument("other", R"({"as_int":2})"), "d") +
      "," +
      Aten("mul.Tensor",
           P::TensorArgument("self", "i") + "," + P::Argument("other", R"({"as_float":0.5})"),
           "m") +
      "," +
      Aten("add.Tensor",
           P::TensorArgument("self", "i") + "," + P::Argument("other", R"({"as_int":2})"), "a") +
      "," +
      Aten("add.Tensor", P::TensorArgument("self", "d") + "," + P::TensorArgument("other", "a"),
           "y");
  program.values =
      Value("i", P::Rows(), 5) + Value("d") + Value("m") + Value("a", P::Rows(), 5) + Value("y");
  EXPECT_TRUE(Open(program)) << ErrorOf(Open(program));
}

TEST(Promote, IsTorchs) {
  const auto promoted = [](DType a, DType b) {
    const auto type = Promote(a, b);
    const auto mirrored = Promote(b, a);
    EXPECT_EQ(type.has_value(), mirrored.has_value());
    return type ? Name(*type) : std::string("refused");
  };
  EXPECT_EQ(promoted(DType::kBool, DType::kU8), "u8");
  EXPECT_EQ(promoted(DType::kU8, DType::kI8), "i16");
  EXPECT_EQ(promoted(DType::kU8, DType::kI32), "i32");
  EXPECT_EQ(promoted(DType::kI32, DType::kI64), "i64");
  EXPECT_EQ(promoted(DType::kI64, DType::kF16), "f16");
  EXPECT_EQ(promoted(DType::kF16, DType::kBf16), "f32");
  EXPECT_EQ(promoted(DType::kF32, DType::kF64), "f64");
  EXPECT_EQ(promoted(DType::kU16, DType::kI32), "refused");
}

TEST(Pt2, KnowsSizesByTheirExpressions) {
  ProgramBuilder program;
  program.nodes =
      P::Node("_operator.mul",
              P::Argument("a", R"({"as_sym_int":{"as_name":"n"}})") + "," +
                  P::Argument("b", R"({"as_int":2})"),
              "n2") +
      "," +
      Aten("view.default",
           kSelf + "," + P::Argument("size", R"({"as_sym_ints":[{"as_name":"n2"},{"as_int":-1}]})"),
           "y");
  program.nodes.replace(program.nodes.find(R"([{"as_tensor":{"name":"n2"}}])"),
                        std::strlen(R"([{"as_tensor":{"name":"n2"}}])"),
                        R"([{"as_sym_int":{"as_name":"n2"}}])");
  program.values = Value("y", P::Symbol("2*s0") + "," + P::Int(1));
  program.sym_ints = "\"n2\":" + P::Symbol("Mul(Integer(2), Symbol('s0', positive=True))");
  const auto model = Open(program);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(ir::ToString(model->outputs[0].shape), "[2*s0, 1]");

  program.sym_ints = "\"n2\":" + P::Symbol("u0");
  EXPECT_NE(ErrorOf(Open(program)).find("depends on the data (symbol u0)"), std::string::npos);
}

TEST(Pt2, FollowsChangesInPlace) {
  const std::string two = P::Argument("other", R"({"as_int":2})");
  ProgramBuilder program;
  program.nodes =
      Aten("neg.default", kSelf, "n") + "," +
      Aten("view.default",
           P::TensorArgument("self", "n") + "," + P::Argument("size", R"({"as_ints":[-1]})"), "v") +
      "," + Aten("mul_.Tensor", P::TensorArgument("self", "n") + "," + two, "p") + "," +
      Aten("add.Tensor", P::TensorArgument("self", "n") + "," + P::TensorArgument("other", "p"),
           "y");
  program.values = Value("n") + Value("v", P::Symbol("2*s0")) + Value("p") + Value("y");
  const auto model = Open(program);
  ASSERT_TRUE(model) << model.error().message;
  // n stands for what mul_ made of it: both operands of the sum are one value.
  const ir::Node& sum = model->graph.nodes().back();
  EXPECT_EQ(sum.inputs.front(), sum.inputs.back());

  program.output = "v";
  EXPECT_NE(ErrorOf(Open(program)).find("changed memory that it shares"), std::string::npos);

  const ProgramBuilder weight =
      Program(Aten("mul_.Tensor", P::TensorArgument("self", "w") + "," + two, "y"),
              Value("y", P::Int(2) + "," + P::Int(2)));
  EXPECT_NE(ErrorOf(Open(weight)).find("a weight of the model"), std::string::npos);
}

TEST(Pt2, ReadsBareInfinity) {
  ProgramBuilder program;
  program.nodes =
      Aten("clamp_min.default", kSelf + "," + P::Argument("min", R"({"as_float":-Infinity})"),
           "a") +
      "," +
      Aten("clamp_max.default",
           P::TensorArgument("self", "a") + "," + P::Argument("max", R"({"as_float":"Infinity"})"),
           "y");
  program.values = Value("a") + Value("y");
  EXPECT_TRUE(Open(program)) << ErrorOf(Open(program));
}

TEST(Pt2, KnowsEveryOperatorOnce) {
  EXPECT_NE(FindOperator("add.Tensor"), nullptr);
  EXPECT_NE(FindOperator("clamp.Tensor"), nullptr);
  EXPECT_EQ(FindOperator("add.out"), nullptr);
  EXPECT_EQ(FindOperator("add"), nullptr);
  EXPECT_EQ(FindOperator(""), nullptr);
}

// Of tools/goldens/torch_models.py, by torch 2.15 and by 2.6.
TEST(Pt2, ImportsFilesOfBothLayouts) {
  for (const char* name : {"fixture.pt2", "fixture_flat.pt2"}) {
    const auto path = std::filesystem::path(MILLPOWER_SOURCE_DIR) / "tests/torch_data" / name;
    const auto model = OpenPt2(path, {});
    ASSERT_TRUE(model) << model.error().message;
    ASSERT_EQ(model->inputs.size(), 3u);
    EXPECT_EQ(model->inputs[0].name, "items");
    EXPECT_EQ(model->inputs[1].name, "offsets");
    EXPECT_EQ(model->inputs[2].name, "ids");
    ASSERT_EQ(model->outputs.size(), 3u);
    EXPECT_EQ(model->outputs[0].name, "score");
    EXPECT_EQ(model->outputs[1].name, "picked");
    EXPECT_EQ(model->outputs[2].name, "best");
    EXPECT_EQ(model->outputs[2].dtype, DType::kI64);
    const auto weight = model->weights->Find("linear.weight");
    ASSERT_TRUE(weight);
    EXPECT_EQ(weight->shape, (std::vector<int64_t>{3, 8}));
  }
}

TEST(Pt2, SurvivesTruncationAndNoise) {
  ProgramBuilder program = Program(kLinear, Value("y"));
  const std::string text = program.Build();
  for (size_t size = 0; size < text.size(); size += 7) {
    const std::string file = FlatFile(text.substr(0, size));
    EXPECT_FALSE(OpenPt2(AsBytes(file), {}));
  }
  Rng rng(3);
  for (int i = 0; i < 3000; ++i) {
    std::string noisy = text;
    noisy[rng.Below(noisy.size())] = static_cast<char>(32 + rng.Below(95));
    const std::string file = FlatFile(noisy);
    (void)OpenPt2(AsBytes(file), {});
  }
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "[";
  const std::string file = FlatFile(deep);
  EXPECT_EQ(OpenPt2(AsBytes(file), {}).error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace millpower::import::torch
