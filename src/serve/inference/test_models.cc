#include "serve/inference/test_models.h"

namespace millpower::serve {
namespace {

using ranking::FakeLaunch;
using ranking::Loading;

isa::Buffer Rows(const char* name, isa::BufferKind kind, DType dtype, int64_t cols) {
  return {.name = name, .kind = kind, .dtype = dtype, .rows = {.reg = 0}, .cols = cols};
}

ranking::Port PortOf(const char* name, DType dtype, std::vector<Size> shape, const char* buffer) {
  ranking::Port port;
  port.name = name;
  port.dtype = dtype;
  port.shape = std::move(shape);
  port.buffer = buffer;
  return port;
}

Loading MakeLoading(const std::string& name, const char* kind, std::vector<isa::Buffer> buffers) {
  isa::Program program;
  program.name = kind;
  program.registers = {{.name = "batch", .max = 16}};
  program.buffers = std::move(buffers);
  Loading loading;
  loading.name = name;
  loading.program = std::make_shared<const isa::Program>(std::move(program));
  loading.signature.format = "saved_model";
  loading.signature.batch = "batch";
  loading.config.warm_up = false;
  return loading;
}

}  // namespace

Loading FakeClassifier(const std::string& name) {
  using enum isa::BufferKind;
  Loading loading =
      MakeLoading(name, "classifier",
                  {Rows("x", kInput, DType::kF32, 2), Rows("country", kInput, DType::kI64, 1),
                   Rows("scores", kOutput, DType::kF32, 2)});
  const Size batch = Size::Symbol("batch");
  auto& signature = loading.signature;
  signature.inputs = {PortOf("x", DType::kF32, {batch, 2}, "x"),
                      PortOf("country", DType::kI64, {batch}, "")};
  signature.inputs[1].is_string = true;
  signature.outputs = {PortOf("scores", DType::kF32, {batch, 2}, "scores")};
  signature.prologue = {{.input = "country",
                         .buffer = "country",
                         .keys = {"de", "fr"},
                         .values = {1, 2},
                         .otherwise = 0}};
  return loading;
}

Loading FakeRegressor(const std::string& name) {
  using enum isa::BufferKind;
  Loading loading =
      MakeLoading(name, "regressor",
                  {Rows("x", kInput, DType::kF32, 1), Rows("outputs", kOutput, DType::kF32, 1)});
  const Size batch = Size::Symbol("batch");
  loading.signature.inputs = {PortOf("x", DType::kF32, {batch, 1}, "x")};
  loading.signature.outputs = {PortOf("outputs", DType::kF32, {batch, 1}, "outputs")};
  return loading;
}

Result<void> RunFakeModels(const FakeLaunch& launch) {
  if (launch.program.name != "classifier" && launch.program.name != "regressor")
    return ranking::RunFakeRecommender(launch);
  const bool classifies = launch.program.name == "classifier";
  const auto* x = launch.Input<float>("x");
  for (int64_t row = 0; row < launch.Register("batch"); ++row) {
    if (!classifies) {
      launch.Output<float>("outputs")[row] = x[row] / 2 + 3;
      continue;
    }
    const auto country = static_cast<float>(launch.Input<int64_t>("country")[row]);
    for (int64_t i = 2 * row; i < 2 * row + 2; ++i)
      launch.Output<float>("scores")[i] = x[i] + country;
  }
  return {};
}

}  // namespace millpower::serve
