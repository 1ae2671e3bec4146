#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "import/hf/test_folder.h"
#include "import/onnx/tensors.h"
#include "import/onnx/test_model.h"

namespace millpower::import::onnx {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Ops(const TensorModel& model) {
  std::vector<std::string> ops;
  for (const ir::Node& node : model.graph.nodes()) ops.emplace_back(ir::Name(node.op));
  return ops;
}

TEST(Onnx, ReadsAModelWithASymbolicBatch) {
  TestModel test;
  test.Input("x", {"N", 3});
  test.Initializer("w", {4, 3});
  for (int i = 0; i < 12; ++i) test.graph()->mutable_initializer(0)->add_float_data(1);
  SetInt(test.Node("Gemm", {"x", "w"}, {"h"}), "transB", 1);
  test.Node("Relu", {"h"}, {"y"});
  test.Output("y", {"N", 4});
  TensorOptions options;
  options.symbol_max["N"] = 77;
  const auto model = test.Parse(options);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->format, "onnx");
  ASSERT_EQ(model->inputs.size(), 1u);
  EXPECT_EQ(model->inputs[0].name, "x");
  ASSERT_EQ(model->outputs.size(), 1u);
  EXPECT_EQ(model->outputs[0].name, "y");
  EXPECT_EQ(model->outputs[0].shape[0], model->inputs[0].shape[0]);
  EXPECT_EQ(model->graph.SymbolMax(model->inputs[0].shape[0].symbol), 77);
  EXPECT_EQ(model->operators.at("Gemm"), 1);

  options.input_shapes["x"] = {5, 3};
  const auto fixed = test.Parse(options);
  ASSERT_TRUE(fixed) << fixed.error().message;
  EXPECT_EQ(ir::ToString(fixed->outputs[0].shape), "[5, 4]");
  options.input_shapes["x"] = {5};
  EXPECT_THAT(test.Failure(options), HasSubstr("has 2 dimensions, and the shape given for it 1"));
  options.input_shapes = {{"z", {5}}};
  EXPECT_THAT(test.Failure(options), HasSubstr("'z', no input"));
}

TEST(Onnx, FoldsArithmeticOnShapes) {
  TestModel test;
  test.Input("x", {"N", 4, 6});
  test.Ints("zero", {0});
  test.Ints("rest", {-1});
  test.Node("Shape", {"x"}, {"s"});
  test.Node("Gather", {"s", "zero"}, {"n"});
  SetInt(test.Node("Concat", {"n", "rest"}, {"target"}), "axis", 0);
  test.Node("Reshape", {"x", "target"}, {"y"});
  test.Output("y", {"N", 24});
  const auto model = test.Parse();
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_THAT(Ops(*model), ElementsAre("reshape"));
  EXPECT_EQ(model->outputs[0].shape[1], ir::Constant(24));
}

TEST(Onnx, ListsAllRefusalsAtOnce) {
  TestModel test;
  test.Input("x", {2, 3});
  test.Input("s", {2}, kStringType);
  test.Input("u", {"?", 3});
  test.Node("NonZero", {"x"}, {"a"});
  test.Node("Frobnicate", {"x"}, {"b"})->set_name("node_b");
  test.Node("Add", {"a", "b"}, {"c"});  // needs what was refused: not told again
  SetInt(test.Node("Cast", {"x"}, {"d"}), "to", 17);
  test.Node("Fancy", {"a"}, {"e"});  // unknown is told although its operand was refused
  test.Output("c", {2, 3});
  const auto model = test.Parse();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
  const std::string& message = model.error().message;
  EXPECT_THAT(message, HasSubstr("6 things are not supported: "));
  EXPECT_THAT(message, HasSubstr("input 's': elements of STRING"));
  EXPECT_THAT(message, HasSubstr("input 'u': has a dimension of unknown size; give its shape"));
  EXPECT_THAT(message, HasSubstr("NonZero (node 0): its output's size depends on the data"));
  EXPECT_THAT(message, HasSubstr("Frobnicate 'node_b' (node 1): this operator is not supported"));
  EXPECT_THAT(message, HasSubstr("Cast (node 3): elements of FLOAT8E4M3FN"));
  EXPECT_THAT(message, HasSubstr("Fancy (node 4)"));
  EXPECT_THAT(message, Not(HasSubstr("Add")));
}

TEST(Onnx, RefusesGraphsThatAreNone) {
  EXPECT_FALSE(ParseOnnx({}));
  const std::string noise = "this is no protobuf";
  EXPECT_THAT(ParseOnnx(std::as_bytes(std::span(noise.data(), noise.size()))).error().message,
              HasSubstr("ONNX file"));
  {
    TestModel test;  // a cycle
    test.Input("x", {2});
    test.Node("Add", {"x", "b"}, {"a"});
    test.Node("Relu", {"a"}, {"b"});
    test.Output("b", {2});
    EXPECT_THAT(test.Failure(), HasSubstr("uses 'b' before anything produces it"));
  }
  {
    TestModel test;  // two producers
    test.Input("x", {2});
    test.Node("Relu", {"x"}, {"a"});
    test.Node("Neg", {"x"}, {"a"});
    test.Output("a", {2});
    EXPECT_THAT(test.Failure(), HasSubstr("produces 'a', which is there already"));
  }
  {
    TestModel test;  // another type than declared
    test.Input("x", {2});
    test.Node("Relu", {"x"}, {"y"});
    test.Output("y", {2}, kInt64Type);
    EXPECT_THAT(test.Failure(), HasSubstr("output 'y': is f32, and declared as INT64"));
  }
  {
    TestModel test(99);
    EXPECT_THAT(test.Failure(), HasSubstr("operator set 99"));
  }
  {
    TestModel test;  // attributes of the wrong type, operands that are missing
    test.Input("x", {2});
    AddAttribute(test.Node("Softmax", {"x"}, {"a"}), "axis", 1)->set_f(0);
    test.Node("Add", {"x"}, {"b"});
    test.Node("Add", {"x", ""}, {"c"});
    test.Output("a", {2});
    EXPECT_THAT(test.Failure(), HasSubstr("attribute 'axis' is not of its type"));
    EXPECT_THAT(test.Failure(), HasSubstr("operand 1 is missing"));
  }
}

TEST(Onnx, ReadsConstantsOfEveryForm) {
  TestModel test;
  test.Input("x", {2});
  TensorProto* raw = test.Initializer("raw", {2});
  const float values[] = {1, 2};
  raw->set_raw_data(std::string(reinterpret_cast<const char*>(values), sizeof values));
  TensorProto* half = test.Initializer("half", {2}, 10);
  half->add_int32_data(0x3c00);
  half->add_int32_data(0x4000);
  test.Node("Add", {"x", "raw"}, {"a"});
  SetInt(test.Node("Cast", {"half"}, {"h"}), "to", 1);
  test.Node("Add", {"a", "h"}, {"y"});
  test.Output("y", {2});
  EXPECT_EQ(test.Failure(), "");
  raw->mutable_raw_data()->pop_back();
  EXPECT_THAT(test.Failure(), HasSubstr("initialiser 'raw': holds 7 bytes, and its shape 8"));
  raw->clear_raw_data();
  EXPECT_THAT(test.Failure(), HasSubstr("holds 0 bytes"));
  raw->set_dims(0, -1);
  EXPECT_THAT(test.Failure(), HasSubstr("negative"));
  raw->set_dims(0, int64_t{1} << 62);
  EXPECT_THAT(test.Failure(), HasSubstr("too many elements"));
  raw->set_data_type(17);
  EXPECT_THAT(test.Failure(), HasSubstr("elements of FLOAT8E4M3FN"));
}

// A model whose weight w [70, 64] lies in `location`.
TestModel External(const std::string& location, const char* offset = "0",
                   const char* length = nullptr) {
  TestModel test;
  test.Input("x", {3, 64});
  TensorProto* w = test.Initializer("w", {70, 64});
  w->set_data_location(1);
  const auto entry = [w](const char* key, const std::string& value) {
    auto* one = w->add_external_data();
    one->set_key(key);
    one->set_value(value);
  };
  entry("location", location);
  entry("offset", offset);
  if (length != nullptr) entry("length", length);
  SetInt(test.Node("Gemm", {"x", "w"}, {"y"}), "transB", 1);
  test.Output("y", {3, 70});
  return test;
}

TEST(Onnx, ExternalDataStaysInItsFolder) {
  TestFolder folder;
  const std::string data(70 * 64 * 4, '\1');
  folder.Write("weights.bin", "head" + data);
  std::filesystem::create_directory(folder.path() / "sub");
  folder.Write("sub/weights.bin", data);
  const auto failure = [&](const TestModel& test) { return test.Failure({}, folder.path()); };

  const auto model = External("weights.bin", "4").Parse({}, folder.path());
  ASSERT_TRUE(model) << model.error().message;
  const auto weight = model->weights->Find("w");
  ASSERT_TRUE(weight) << weight.error().message;
  EXPECT_EQ(weight->shape, (std::vector<int64_t>{70, 64}));
  EXPECT_EQ(weight->bytes[0], std::byte{1});
  EXPECT_EQ(failure(External("sub/weights.bin")), "");
  EXPECT_EQ(failure(External("./weights.bin", "4", "17920")), "");

  EXPECT_THAT(failure(External("weights.bin", "5")), HasSubstr("goes past its 17924 bytes"));
  EXPECT_THAT(failure(External("weights.bin", "18446744073709551615")), HasSubstr("goes past"));
  EXPECT_THAT(failure(External("weights.bin", "-4")), HasSubstr("offset is no number"));
  EXPECT_THAT(failure(External("weights.bin", "4", "3")), HasSubstr("holds 3 bytes"));
  EXPECT_THAT(failure(External("weights.bin", "4", "18446744073709551615")), HasSubstr("past"));
  const std::string outside = folder.path().filename().string() + "/weights.bin";
  for (const std::string& location :
       {"../" + outside, (folder.path() / "weights.bin").string(), std::string(),
        std::string("sub/../weights.bin"), std::string("sub/../../") + outside, std::string(".."),
        std::string("weights.bin\0x", 13)})
    EXPECT_THAT(failure(External(location, "4")), HasSubstr("is not in the model's folder"))
        << location;
  EXPECT_THAT(External("weights.bin", "4").Failure(), HasSubstr("is not in the model's folder"));
  EXPECT_THAT(failure(External("gone.bin")), HasSubstr("gone.bin"));

  std::filesystem::create_symlink(folder.path() / "weights.bin", folder.path() / "link.bin");
  std::filesystem::create_directory_symlink(folder.path() / "sub", folder.path() / "way");
  EXPECT_THAT(failure(External("link.bin", "4")), HasSubstr("is a symbolic link"));
  EXPECT_THAT(failure(External("way/weights.bin")), HasSubstr("is a symbolic link"));
}

TEST(Onnx, UnrollsLoopsAndTakesKnownBranches) {
  TestModel test;
  test.Input("x", {2});
  test.Ints("trips", {3});
  NodeProto* loop = test.Node("Loop", {"trips", "", "x"}, {"last", "all"});
  GraphProto* body = AddGraph(loop, "body");
  SetType(body->add_input(), "i", kInt64Type, {});
  SetType(body->add_input(), "go", kBoolType, {});
  SetType(body->add_input(), "v", kFloatType, {2});
  AddNode(body, "Identity", {"go"}, {"go_on"});
  AddNode(body, "Add", {"v", "x"}, {"w"});
  AddNode(body, "Identity", {"w"}, {"out"});
  for (const char* name : {"go_on", "w", "out"}) body->add_output()->set_name(name);
  test.Output("last", {2});
  test.Output("all", {3, 2});
  const auto model = test.Parse();
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->operators.at("Add"), 3);
  EXPECT_EQ(ir::ToString(model->outputs[1].shape), "[3, 2]");

  test.graph()->mutable_initializer(0)->set_int64_data(0, 1 << 20);
  EXPECT_THAT(test.Failure(), HasSubstr("more than 4096 iterations"));
}

TEST(Onnx, BoundsNestingAndUnrolling) {
  TestModel test;
  test.Input("x", {2});
  test.Ints("trips", {4000});
  NodeProto* loop = test.Node("Loop", {"trips", "", "x"}, {"y"});
  for (int depth = 0; depth < 2; ++depth) {
    GraphProto* body = AddGraph(loop, "body");
    const std::string v = "v" + std::to_string(depth), w = "w" + std::to_string(depth);
    SetType(body->add_input(), "i" + std::to_string(depth), kInt64Type, {});
    SetType(body->add_input(), "g" + std::to_string(depth), kBoolType, {});
    SetType(body->add_input(), v, kFloatType, {2});
    loop =
        depth == 0 ? AddNode(body, "Loop", {"trips", "", v}, {w}) : AddNode(body, "Neg", {v}, {w});
    body->add_output()->set_name("g" + std::to_string(depth));
    body->add_output()->set_name(w);
  }
  test.Output("y", {2});
  EXPECT_THAT(test.Failure(), HasSubstr("loops and functions come to more than"));
}

TEST(Onnx, InlinesFunctions) {
  TestModel test;
  test.proto.mutable_opset_import(0)->set_version(21);
  auto* own = test.proto.add_opset_import();
  own->set_domain("own");
  own->set_version(1);
  FunctionProto* function = test.proto.add_functions();
  function->set_domain("own");
  function->set_name("Scaled");
  function->add_input("a");
  function->add_output("b");
  function->add_attribute("slope");
  function->add_opset_import()->set_version(21);
  NodeProto* inside = function->add_node();
  inside->set_op_type("LeakyRelu");
  inside->add_input("a");
  inside->add_output("b");
  AttributeProto* slope = AddAttribute(inside, "alpha", 1);
  slope->set_ref_attr_name("slope");
  test.Input("x", {2});
  NodeProto* call = test.Node("Scaled", {"x"}, {"y"});
  call->set_domain("own");
  AddAttribute(call, "slope", 1)->set_f(0.5f);
  test.Output("y", {2});
  const auto model = test.Parse();
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_THAT(Ops(*model), ElementsAre("map"));

  // One that calls itself.
  inside->set_op_type("Scaled");
  inside->set_domain("own");
  EXPECT_THAT(test.Failure(), HasSubstr("nested too deep"));
}

TEST(Onnx, TakesRunTimeShapesFromWhatIsDeclared) {
  TestModel test;
  test.Input("x", {2, 6});
  test.Input("shape", {2}, kInt64Type);
  test.Node("Reshape", {"x", "shape"}, {"y"});
  test.Output("y", {3, 4});
  const auto model = test.Parse();
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(ir::ToString(model->outputs[0].shape), "[3, 4]");
  ASSERT_EQ(model->notes.size(), 1u);
  EXPECT_THAT(model->notes[0], HasSubstr("declared shape of 'y'"));

  SetType(test.graph()->mutable_output(0), "y", kFloatType, {});
  test.graph()->mutable_output(0)->mutable_type()->mutable_tensor_type()->clear_shape();
  EXPECT_THAT(test.Failure(), HasSubstr("the shape is known only when the model runs"));
}

TEST(Onnx, GathersRowsOfLargeTablesAsEmbeddings) {
  TestModel test;
  test.Input("ids", {"N", 3}, kInt64Type);
  TensorProto* table = test.Initializer("table", {1000, 8});
  table->set_raw_data(std::string(1000 * 8 * 4, '\0'));
  test.Node("Gather", {"table", "ids"}, {"y"});
  test.Output("y", {"N", 3, 8});
  const auto model = test.Parse();
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_THAT(Ops(*model), testing::Contains("embedding_bag"));
}

TEST(Onnx, TakesSumsOfNamesForDimensions) {
  TestModel test;
  test.Input("x", {"b"});
  test.Input("ends", {"b + 1"});
  test.Input("odd", {"c + 1"});
  SetInt(test.Node("Concat", {"x", "ends", "odd"}, {"y"}), "axis", 0);
  test.Output("y", {"?"});
  const auto model = test.Parse();
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(ir::ToString(model->outputs[0].shape), "[c___1+2*b+1]");
}

// Bags as PyTorch's newer exporter writes them: gathered rows, and a loop that appends what it
// pools of the rows from ends[i] to ends[i + 1] to a sequence.
class BagLoopModel : public TestModel {
 public:
  explicit BagLoopModel(const char* reduce) {
    Input("items", {"n"}, kInt64Type);
    Input("offsets", {"b"}, kInt64Type);
    Initializer("table", {10, 4})->set_raw_data(std::string(10 * 4 * 4, '\0'));
    TensorProto* zero = graph()->add_initializer();
    zero->set_name("zero");
    zero->set_data_type(kInt64Type);
    zero->add_int64_data(0);
    Ints("minus_one", {-1});
    Ints("one", {1});
    Ints("two", {2});
    Ints("first_axis", {0});
    Node("Gather", {"table", "items"}, {"rows"});
    Node("Shape", {"items"}, {"item_count"});
    Node("Size", {"offsets"}, {"bag_count"});
    SetInt(Node("Concat", {"offsets", "item_count"}, {"ends"}), "axis", 0);
    Node("SequenceEmpty", {}, {"nothing"});
    Node("Less", {"zero", "bag_count"}, {"any"});
    loop = Node("Loop", {"", "any", "zero", "nothing"}, {"done", "list"});
    GraphProto* body = AddGraph(loop, "body");
    for (const char* name : {"turn", "go", "i", "before"}) body->add_input()->set_name(name);
    for (const char* name : {"go_on", "next", "after"}) body->add_output()->set_name(name);
    AddNode(body, "Reshape", {"i", "minus_one"}, {"at"});
    AddNode(body, "Add", {"at", "one"}, {"at_1"});
    AddNode(body, "Add", {"at", "two"}, {"at_2"});
    AddNode(body, "Slice", {"ends", "at", "at_1"}, {"begin"});
    end = AddNode(body, "Slice", {"ends", "at_1", "at_2"}, {"end"});
    AddNode(body, "Equal", {"begin", "end"}, {"is_empty"});
    NodeProto* branch = AddNode(body, "If", {"is_empty"}, {"bag"});
    GraphProto* then = AddGraph(branch, "then_branch");
    TensorProto* zeros = then->add_initializer();
    zeros->set_name("zeros");
    zeros->set_data_type(kFloatType);
    for (const int64_t size : {1, 4}) zeros->add_dims(size);
    zeros->set_raw_data(std::string(4 * 4, '\0'));
    then->add_output()->set_name("zeros");
    GraphProto* otherwise = AddGraph(branch, "else_branch");
    AddNode(otherwise, "Slice", {"rows", "begin", "end"}, {"of_bag"});
    AddNode(otherwise, reduce, {"of_bag", "first_axis"}, {"pooled"});
    otherwise->add_output()->set_name("pooled");
    AddNode(body, "SequenceInsert", {"before", "bag"}, {"after"});
    AddNode(body, "Add", {"i", "one"}, {"next"});
    less = AddNode(body, "Less", {"next", "bag_count"}, {"go_on"});
    SetInt(Node("ConcatFromSequence", {"list"}, {"y"}), "axis", 0);
    Output("y", {"b", 4});
  }
  NodeProto *loop, *end, *less;
};

TEST(Onnx, TakesLoopsOverBagsAsPooledRows) {
  for (const char* reduce : {"ReduceSum", "ReduceMean", "ReduceMax"}) {
    const auto model = BagLoopModel(reduce).Parse();
    ASSERT_TRUE(model) << reduce << ": " << model.error().message;
    EXPECT_THAT(Ops(*model), testing::Contains("embedding_bag")) << reduce;
    EXPECT_EQ(ir::ToString(model->outputs[0].shape), "[b, 4]");
  }
}

TEST(Onnx, TakesNoOtherLoopForBags) {
  const auto is_refused = [](const std::function<void(BagLoopModel&)>& change) {
    BagLoopModel test("ReduceSum");
    change(test);
    return !test.Failure().empty();
  };
  EXPECT_FALSE(is_refused([](BagLoopModel&) {}));
  EXPECT_TRUE(is_refused([](BagLoopModel& test) { test.end->set_input(1, "at"); }));
  EXPECT_TRUE(is_refused([](BagLoopModel& test) { test.less->set_input(1, "two"); }));
  EXPECT_TRUE(is_refused([](BagLoopModel& test) { test.less->set_input(0, "i"); }));
  EXPECT_TRUE(is_refused([](BagLoopModel& test) { test.loop->set_input(2, "bag_count"); }));
  EXPECT_TRUE(is_refused([](BagLoopModel& test) {
    test.Input("go_in", {}, kBoolType);
    test.loop->set_input(1, "go_in");
  }));
  EXPECT_TRUE(is_refused([](BagLoopModel& test) {  // a name that is there twice
    test.end->set_output(0, "of_bag");
  }));
}

TEST(Onnx, TreatsOldSoftmaxAsOneOfMatrices) {
  const auto ops = [](int64_t version) {
    TestModel test(version);
    test.Input("x", {2, 3, 4});
    SetInt(test.Node("Softmax", {"x"}, {"y"}), "axis", 1);
    test.Output("y", {2, 3, 4});
    const auto model = test.Parse();
    EXPECT_TRUE(model) << model.error().message;
    return model ? Ops(*model) : std::vector<std::string>();
  };
  EXPECT_THAT(ops(12), ElementsAre("reshape", "softmax", "reshape"));
  EXPECT_THAT(ops(13), ElementsAre("transpose", "softmax", "transpose"));
}

}  // namespace
}  // namespace millpower::import::onnx
