#include "import/tensorflow/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "import/hf/test_folder.h"

namespace millpower::import {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
namespace fs = std::filesystem;
namespace tf = tensorflow;

const fs::path kTiny = fs::path(MILLPOWER_SOURCE_DIR) / "tests/saved_model_data/tiny";

// ---- a model that TensorFlow saved ----

TEST(SavedModel, ReadsWhatTensorFlowSaved) {
  EXPECT_TRUE(IsSavedModel(kTiny));
  const auto model = OpenSavedModel(kTiny, {});
  ASSERT_TRUE(model) << model.error().message;
  ASSERT_EQ(model->inputs.size(), 3u);
  EXPECT_EQ(model->inputs[0].name, "code");
  EXPECT_EQ(model->inputs[0].dtype, DType::kI64);
  EXPECT_EQ(model->inputs[1].name, "port");
  EXPECT_TRUE(model->inputs[1].is_string);
  EXPECT_EQ(model->inputs[2].name, "x");
  EXPECT_EQ(ir::ToString(model->inputs[2].shape), "[batch, 1]");
  ASSERT_EQ(model->outputs.size(), 1u);
  EXPECT_EQ(model->outputs[0].name, "score");
  EXPECT_EQ(ir::ToString(model->outputs[0].shape), "[batch, 3]");
  EXPECT_EQ(model->operators.at("LookupTableFindV2"), 2);

  const auto weight = model->weights->Find("weight");
  ASSERT_TRUE(weight) << weight.error().message;
  EXPECT_THAT(weight->shape, ElementsAre(5, 3));
  float first = 0;
  std::memcpy(&first, weight->bytes.data(), sizeof first);
  EXPECT_EQ(first, -1);
  EXPECT_FALSE(model->weights->Find("none"));
}

TEST(SavedModel, TablesOfConstantsAndFilesBecomeThePrologue) {
  const auto model = OpenSavedModel(kTiny, {});
  ASSERT_TRUE(model) << model.error().message;
  ASSERT_EQ(model->prologue.size(), 2u);
  const Lookup& code = model->prologue[0];
  EXPECT_EQ(code.input, "code");
  EXPECT_EQ(code.value, model->inputs[0].value);
  EXPECT_THAT(code.keys, ElementsAre("1006", "2601", "5201"));
  EXPECT_THAT(code.values, ElementsAre(0, 1, 2));
  EXPECT_EQ(code.otherwise, 3);
  const Lookup& port = model->prologue[1];
  EXPECT_THAT(port.keys, ElementsAre("Rotterdam", "Santos"));
  EXPECT_THAT(port.values, ElementsAre(1, 2));
  EXPECT_EQ(port.otherwise, 0);
  EXPECT_NE(model->graph.FindValue(port.value), ir::kNoValue);
}

TEST(SavedModel, NamesTheSignaturesThereAre) {
  TensorOptions options;
  options.signature = "rank";
  const auto model = OpenSavedModel(kTiny, options);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(model.error().message, HasSubstr("'serving_default'"));
}

TEST(SavedModel, TakesShapesAndBoundsFromTheCaller) {
  TensorOptions options;
  options.symbol_max["batch"] = 7;
  auto model = OpenSavedModel(kTiny, options);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->graph.SymbolMax("batch"), 7);
  options.input_shapes = {{"code", {2}}, {"port", {2}}, {"x", {2, 1}}};
  model = OpenSavedModel(kTiny, options);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(ir::ToString(model->outputs[0].shape), "[2, 3]");
}

class CopiedModel : public ::testing::Test {
 protected:
  CopiedModel() { fs::copy(kTiny, folder_.path() / "m", fs::copy_options::recursive); }
  fs::path path() const { return folder_.path() / "m"; }
  Error Refusal() const {
    const auto model = OpenSavedModel(path(), {});
    return model ? Error{ErrorCode::kInternal, "opens", {}} : model.error();
  }
  TestFolder folder_;
};

TEST_F(CopiedModel, RefusesAssetsThatAreLinks) {
  fs::rename(path() / "assets/codes.csv", path() / "codes.csv");
  EXPECT_THAT(Refusal().message, HasSubstr("no file 'codes.csv' in assets/"));
  fs::create_symlink(path() / "codes.csv", path() / "assets/codes.csv");
  EXPECT_THAT(Refusal().message, HasSubstr("no file 'codes.csv' in assets/"));
}

TEST_F(CopiedModel, TellsDamagedVariables) {
  const fs::path data = path() / "variables/variables.data-00000-of-00001";
  std::fstream(data, std::ios::in | std::ios::out | std::ios::binary).write("\x55", 1);
  EXPECT_THAT(Refusal().message, HasSubstr("checksum"));
  fs::resize_file(data, 8);
  EXPECT_THAT(Refusal().message, HasSubstr("damaged"));
  fs::remove(data);
  EXPECT_EQ(Refusal().code, ErrorCode::kNotFound);
}

// ---- graphs made here ----

class MadeGraph : public ::testing::Test {
 protected:
  MadeGraph() { AddInput("x", 1, {-1, 4}); }

  tf::NodeDef& Add(const std::string& op, const std::string& name,
                   const std::vector<std::string>& inputs, tf::FunctionDef* function = nullptr) {
    tf::NodeDef& node =
        *(function ? function->add_node_def() : graph().mutable_graph_def()->add_node());
    node.set_op(op);
    node.set_name(name);
    for (const std::string& input : inputs) node.add_input(input);
    return node;
  }
  void AddInput(const std::string& name, int type, const std::vector<int64_t>& shape) {
    Add("Placeholder", name, {});
    tf::TensorInfo& info = (*signature().mutable_inputs())[name];
    info.set_name(name + ":0");
    info.set_dtype(type);
    for (const int64_t size : shape) info.mutable_tensor_shape()->add_dim()->set_size(size);
  }
  void AddIntegers(const std::string& name, const std::vector<int32_t>& values,
                   bool scalar = false) {
    tf::TensorProto& proto = *(*Add("Const", name, {}).mutable_attr())["value"].mutable_tensor();
    proto.set_dtype(3);
    if (!scalar) proto.mutable_shape()->add_dim()->set_size(static_cast<int64_t>(values.size()));
    for (const int32_t value : values) proto.add_int_val(value);
  }
  void SetOutput(const std::string& tensor) {
    tf::TensorInfo& info = (*signature().mutable_outputs())["y"];
    info.set_name(tensor);
  }
  tf::FunctionDef& AddFunction(const std::string& name) {
    tf::FunctionDef& function = *graph().mutable_graph_def()->mutable_library()->add_function();
    function.mutable_signature()->set_name(name);
    function.mutable_signature()->add_input_arg()->set_name("a");
    function.mutable_signature()->add_output_arg()->set_name("r");
    return function;
  }
  tf::NodeDef& AddCall(const std::string& name, const std::string& function,
                       const std::string& input, tf::FunctionDef* in = nullptr) {
    tf::NodeDef& call = Add("PartitionedCall", name, {input}, in);
    (*call.mutable_attr())["f"].mutable_func()->set_name(function);
    return call;
  }
  Result<TensorModel> Import() { return ImportSavedModel(saved_, "/nonexistent", {}); }
  std::string Refusal() {
    const auto model = Import();
    return model ? "imports" : model.error().message;
  }
  std::string OutputShape() {
    const auto model = Import();
    return model ? ir::ToString(model->outputs[0].shape) : model.error().message;
  }

  tf::MetaGraph& graph() {
    if (saved_.meta_graphs_size() == 0) saved_.add_meta_graphs();
    return *saved_.mutable_meta_graphs(0);
  }
  tf::SignatureDef& signature() { return (*graph().mutable_signature_def())["serving_default"]; }

  tf::SavedModel saved_;
};

TEST_F(MadeGraph, ListsEverythingThatIsNotSupported) {
  Add("Svd", "first", {"x"});
  Add("FFT", "second", {"x"});
  Add("Add", "sum", {"first", "second"});
  SetOutput("sum:0");
  const auto model = Import();
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(model.error().message,
              AllOf(HasSubstr("Svd 'first'"), HasSubstr("FFT 'second'"), Not(HasSubstr("sum"))));
}

TEST_F(MadeGraph, RefusesCyclesAndWhatDoesNotExist) {
  Add("Neg", "a", {"b"});
  Add("Neg", "b", {"a"});
  SetOutput("a:0");
  EXPECT_THAT(Refusal(), HasSubstr("cycle"));
  SetOutput("c:0");
  EXPECT_THAT(Refusal(), HasSubstr("no node 'c'"));
  Add("Neg", "c", {"d"});
  EXPECT_THAT(Refusal(), HasSubstr("'d', which does not exist"));
  Add("Neg", "e", {"x:7"});
  SetOutput("e:0");
  EXPECT_THAT(Refusal(), HasSubstr("no output 7"));
  Add("Neg", "f", {"x:-1"});
  SetOutput("f:0");
  EXPECT_THAT(Refusal(), HasSubstr("not an output"));
  Add("Neg", "f", {"x"});
  EXPECT_THAT(Refusal(), HasSubstr("two nodes"));
}

TEST_F(MadeGraph, InlinesFunctions) {
  tf::FunctionDef& inner = AddFunction("inner");
  Add("TopKV2", "best", {"a", "k:output:0"}, &inner);
  tf::NodeDef& k = Add("Const", "k", {}, &inner);
  (*k.mutable_attr())["value"].mutable_tensor()->set_dtype(3);
  (*k.mutable_attr())["value"].mutable_tensor()->add_int_val(2);
  (*inner.mutable_ret())["r"] = "best:indices:0";
  tf::FunctionDef& outer = AddFunction("outer");
  AddCall("call", "inner", "a", &outer);
  (*outer.mutable_ret())["r"] = "call:output:0";
  AddCall("result", "outer", "x");
  SetOutput("result:0");
  const auto model = Import();
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(ir::ToString(model->outputs[0].shape), "[batch, 2]");
  EXPECT_EQ(model->outputs[0].dtype, DType::kI32);
}

TEST_F(MadeGraph, RefusesRecursionAndGraphsThatUnfoldTooFar) {
  tf::FunctionDef& forever = AddFunction("forever");
  AddCall("call", "forever", "a", &forever);
  (*forever.mutable_ret())["r"] = "call:output:0";
  AddCall("result", "forever", "x");
  SetOutput("result:0");
  EXPECT_THAT(Refusal(), HasSubstr("calls itself"));

  // 2^40 calls of functions of two nodes.
  for (int i = 0; i < 40; ++i) {
    tf::FunctionDef& function = AddFunction("f" + std::to_string(i));
    if (i == 0) {
      (*function.mutable_ret())["r"] = "a";
      continue;
    }
    const std::string next = "f" + std::to_string(i - 1);
    AddCall("first", next, "a", &function);
    AddCall("second", next, "first:output:0", &function);
    (*function.mutable_ret())["r"] = "second:output:0";
  }
  AddCall("bomb", "f39", "x");
  SetOutput("bomb:0");
  EXPECT_THAT(Refusal(), HasSubstr("unfolds"));
}

TEST_F(MadeGraph, RefusesConstantsThatAreMostlyLeftOut) {
  tf::TensorProto& proto = *(*Add("Const", "c", {}).mutable_attr())["value"].mutable_tensor();
  proto.set_dtype(1);
  proto.mutable_shape()->add_dim()->set_size(int64_t{1} << 40);
  proto.add_float_val(1);
  proto.add_float_val(2);
  SetOutput("c:0");
  EXPECT_THAT(Refusal(), HasSubstr("left out"));
  proto.mutable_shape()->mutable_dim(0)->set_size(-3);
  EXPECT_THAT(Refusal(), HasSubstr("impossible"));
  proto.mutable_shape()->mutable_dim(0)->set_size(5);  // 1, 2, 2, 2, 2
  EXPECT_EQ(OutputShape(), "[5]");
}

TEST_F(MadeGraph, SlicesAsNumpyDoes) {
  const auto slice = [&](const std::vector<int32_t>& begin, const std::vector<int32_t>& end,
                         const std::vector<int32_t>& steps,
                         const std::map<std::string, int>& masks) {
    saved_.Clear();
    AddInput("x", 1, {-1, 6, 4});
    AddIntegers("begin", begin);
    AddIntegers("end", end);
    AddIntegers("steps", steps);
    tf::NodeDef& node = Add("StridedSlice", "s", {"x", "begin", "end", "steps"});
    for (const auto& [name, mask] : masks) (*node.mutable_attr())[name].set_i(mask);
    SetOutput("s:0");
    return OutputShape();
  };
  EXPECT_EQ(slice({0, 1}, {0, 5}, {1, 2}, {{"begin_mask", 1}, {"end_mask", 1}}), "[batch, 2, 4]");
  EXPECT_EQ(slice({0, -1}, {0, 0}, {1, 1}, {{"ellipsis_mask", 1}, {"shrink_axis_mask", 2}}),
            "[batch, 6]");
  EXPECT_EQ(slice({0, 0, 3}, {0, 0, 4}, {1, 1, 1},
                  {{"ellipsis_mask", 1}, {"new_axis_mask", 2}, {"shrink_axis_mask", 4}}),
            "[batch, 6, 1]");
  EXPECT_EQ(slice({0, 0}, {0, 0}, {1, -1}, {{"begin_mask", 3}, {"end_mask", 3}}), "[batch, 6, 4]");
  EXPECT_THAT(slice({0, 0, 0, 0}, {1, 1, 1, 1}, {1, 1, 1, 1}, {}), HasSubstr("more indices"));
  EXPECT_THAT(slice({0, 6}, {1, 7}, {1, 1}, {{"shrink_axis_mask", 2}}), HasSubstr("StridedSlice"));
}

TEST_F(MadeGraph, FollowsShapesThroughArithmetic) {
  // reshape(x, [shape(x)[0] * 2, -1])
  Add("Shape", "shape", {"x"});
  AddIntegers("zero", {0});
  AddIntegers("one", {1});
  tf::NodeDef& pick = Add("StridedSlice", "rows", {"shape", "zero", "one", "one"});
  (*pick.mutable_attr())["shrink_axis_mask"].set_i(1);
  AddIntegers("two", {2}, true);
  AddIntegers("rest", {-1}, true);
  Add("Mul", "twice", {"rows", "two"});
  Add("Pack", "sizes", {"twice", "rest"});
  Add("Reshape", "y", {"x", "sizes"});
  SetOutput("y:0");
  EXPECT_EQ(OutputShape(), "[2*batch, 2]");
}

TEST_F(MadeGraph, HashesAndComparesStringsOnTheHost) {
  AddInput("s", 7, {-1});
  (*Add("StringToHashBucketFast", "hash", {"s"}).mutable_attr())["num_buckets"].set_i(10);
  AddIntegers("axis", {1}, true);
  Add("ExpandDims", "wide", {"s", "axis"});
  tf::TensorProto& proto = *(*Add("Const", "none", {}).mutable_attr())["value"].mutable_tensor();
  proto.set_dtype(7);
  proto.add_string_val("");
  Add("Equal", "empty", {"wide", "none"});
  SetOutput("empty:0");
  (*signature().mutable_outputs())["hash"].set_name("hash:0");
  const auto model = Import();
  ASSERT_TRUE(model) << model.error().message;
  ASSERT_EQ(model->prologue.size(), 2u);
  EXPECT_EQ(model->prologue[0].buckets, 10);
  EXPECT_THAT(model->prologue[1].keys, ElementsAre(""));
  EXPECT_EQ(ir::ToString(model->outputs[1].shape), "[batch, 1]");
  EXPECT_EQ(model->outputs[1].dtype, DType::kBool);
  EXPECT_EQ(model->inputs[1].value, "x") << "which only says how many rows there are";

  Add("StringLower", "lower", {"s"});
  SetOutput("lower:0");
  EXPECT_THAT(Refusal(), HasSubstr("StringLower 'lower'"));
  SetOutput("s:0");
  EXPECT_THAT(Refusal(), HasSubstr("strings of input 's'"));
}

TEST_F(MadeGraph, RefusesWhatChangesVariables) {
  tf::NodeDef& handle = Add("VarHandleOp", "counter", {});
  (*handle.mutable_attr())["dtype"].set_type(1);
  Add("AssignAddVariableOp", "count", {"counter", "x"});
  tf::FunctionDef& body = AddFunction("body");
  Add("AssignAddVariableOp", "hidden", {"a", "a"}, &body);
  (*body.mutable_ret())["r"] = "a";
  AddCall("y", "body", "x");
  SetOutput("y:0");
  EXPECT_THAT(Refusal(), HasSubstr("AssignAddVariableOp 'hidden'"));
}

TEST_F(MadeGraph, NegativeIdsOfKerasAreLeftToTheDevice) {
  saved_.Clear();
  AddInput("ids", 9, {-1});
  const auto constant = [&](const std::string& name, int64_t value) {
    tf::TensorProto& proto = *(*Add("Const", name, {}).mutable_attr())["value"].mutable_tensor();
    proto.set_dtype(9);
    proto.add_int64_val(value);
  };
  constant("zero", 0);
  constant("rows", 5);
  AddIntegers("table", {1, 2, 3, 4, 5});
  AddIntegers("axis", {0}, true);
  Add("Less", "negative", {"ids", "zero"});
  Add("AddV2", "raised", {"ids", "rows"});
  Add("SelectV2", "places", {"negative", "raised", "ids"});
  Add("GatherV2", "y", {"table", "places", "axis"});
  SetOutput("y:0");
  const auto model = Import();
  ASSERT_TRUE(model) << model.error().message;
  ASSERT_EQ(model->graph.nodes().size(), 1u) << ir::ToText(model->graph);
  EXPECT_EQ(ir::IntAttribute(model->graph.nodes()[0], "policy"),
            static_cast<int64_t>(IndexPolicy::kWrap));
}

}  // namespace
}  // namespace millpower::import
