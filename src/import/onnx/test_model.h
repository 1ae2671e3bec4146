// Small ONNX models for tests, made through the protobuf classes.
#pragma once

#include <cstring>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "import/onnx/model.h"
#include "import/onnx/onnx.pb.h"

namespace millpower::import::onnx {

// TensorProto.DataType
inline constexpr int32_t kFloatType = 1, kInt64Type = 7, kBoolType = 9;

// A dimension is a number, a name, or "?" for one that is unknown.
struct TestDim {
  TestDim(int64_t size) : size(size) {}               // NOLINT
  TestDim(const char* name) : size(0), name(name) {}  // NOLINT
  int64_t size;
  std::string name;
};

inline void SetType(ValueInfoProto* value, const std::string& name, int32_t type,
                    const std::vector<TestDim>& shape) {
  value->set_name(name);
  auto* tensor = value->mutable_type()->mutable_tensor_type();
  tensor->set_elem_type(type);
  auto* dims = tensor->mutable_shape();
  for (const TestDim& dim : shape) {
    auto* one = dims->add_dim();
    if (dim.name.empty()) one->set_dim_value(dim.size);
    if (!dim.name.empty() && dim.name != "?") one->set_dim_param(dim.name);
  }
}

inline NodeProto* AddNode(GraphProto* graph, const std::string& op,
                          const std::vector<std::string>& inputs,
                          const std::vector<std::string>& outputs) {
  NodeProto* node = graph->add_node();
  node->set_op_type(op);
  for (const std::string& input : inputs) node->add_input(input);
  for (const std::string& output : outputs) node->add_output(output);
  return node;
}

inline AttributeProto* AddAttribute(NodeProto* node, const std::string& name, int32_t type) {
  AttributeProto* attribute = node->add_attribute();
  attribute->set_name(name);
  attribute->set_type(type);
  return attribute;
}
inline void SetInt(NodeProto* node, const std::string& name, int64_t value) {
  AddAttribute(node, name, 2)->set_i(value);
}
inline GraphProto* AddGraph(NodeProto* node, const std::string& name) {
  return AddAttribute(node, name, 5)->mutable_g();
}

class TestModel {
 public:
  explicit TestModel(int64_t version = 21) {
    proto.set_ir_version(9);
    proto.add_opset_import()->set_version(version);
    graph()->set_name("test");
  }
  GraphProto* graph() { return proto.mutable_graph(); }
  void Input(const std::string& name, const std::vector<TestDim>& shape,
             int32_t type = kFloatType) {
    SetType(graph()->add_input(), name, type, shape);
  }
  void Output(const std::string& name, const std::vector<TestDim>& shape,
              int32_t type = kFloatType) {
    SetType(graph()->add_output(), name, type, shape);
  }
  NodeProto* Node(const std::string& op, const std::vector<std::string>& inputs,
                  const std::vector<std::string>& outputs) {
    return AddNode(graph(), op, inputs, outputs);
  }
  TensorProto* Initializer(const std::string& name, const std::vector<int64_t>& shape,
                           int32_t type = kFloatType) {
    TensorProto* tensor = graph()->add_initializer();
    tensor->set_name(name);
    tensor->set_data_type(type);
    for (const int64_t size : shape) tensor->add_dims(size);
    return tensor;
  }
  void Ints(const std::string& name, const std::vector<int64_t>& values) {
    TensorProto* tensor = Initializer(name, {static_cast<int64_t>(values.size())}, kInt64Type);
    for (const int64_t value : values) tensor->add_int64_data(value);
  }

  std::string Bytes() const { return proto.SerializeAsString(); }
  Result<TensorModel> Parse(const TensorOptions& options = {},
                            const std::filesystem::path& folder = {}) const {
    const std::string bytes = Bytes();
    return ParseOnnx(std::as_bytes(std::span(bytes.data(), bytes.size())), folder, options);
  }
  std::string Failure(const TensorOptions& options = {},
                      const std::filesystem::path& folder = {}) const {
    const auto model = Parse(options, folder);
    return model ? "" : model.error().message;
  }

  ModelProto proto;
};

}  // namespace millpower::import::onnx
