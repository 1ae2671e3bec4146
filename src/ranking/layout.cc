#include "ranking/layout.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace millpower::ranking {
namespace {

std::vector<Dimension> ShapeOf(const Port& port, const isa::Program& program) {
  std::vector<Dimension> shape;
  for (const Size& size : port.shape) {
    auto dimension = MakeDimension(size, program);
    CHECK(dimension) << port.name;
    shape.push_back(std::move(*dimension));
  }
  return shape;
}

// Works out the joining of one model.
class Joiner {
 public:
  Joiner(const Signature& signature, Layout& layout) : signature_(signature), layout_(layout) {}

  void Join() {
    layout_.adds.assign(layout_.program->registers.size(), false);
    if (layout_.batch < 0) return;
    layout_.adds[static_cast<size_t>(layout_.batch)] = true;
    for (const Port& port : signature_.inputs)
      for (const std::string& cut : port.offsets_of) layout_.adds[LengthOf(cut)] = true;
    bool joins = signature_.rows_are_independent;
    for (Fill& fill : layout_.fills) joins = JoinInput(fill) && joins;
    for (const OutputPlace& output : layout_.outputs) joins = joins && GrowsInRows(output.shape);
    layout_.joins = joins;
  }

 private:
  const std::vector<Dimension>& ShapeOfInput(const std::string& name) const {
    return layout_.inputs[static_cast<size_t>(signature_.FindInput(name))];
  }
  // The register that counts an input that offsets cut.
  size_t LengthOf(const std::string& name) const {
    return static_cast<size_t>(ShapeOfInput(name)[0].symbol);
  }
  bool Adds(const Dimension& dimension) const {
    if (dimension.is_line)
      return dimension.symbol >= 0 && layout_.adds[static_cast<size_t>(dimension.symbol)];
    const auto symbols = dimension.size.Symbols();
    return std::ranges::any_of(symbols, [&](const std::string& name) {
      return layout_.adds[static_cast<size_t>(layout_.program->FindRegister(name))];
    });
  }
  bool IsFixed(std::span<const Dimension> shape) const {
    return std::ranges::none_of(shape, [&](const Dimension& each) { return Adds(each); });
  }
  // One request's rows after the other's are the rows of both.
  bool GrowsInRows(std::span<const Dimension> shape) const {
    return !shape.empty() && shape[0].is_line && Adds(shape[0]) && shape[0].constant == 0 &&
           IsFixed(shape.subspan(1));
  }

  bool JoinInput(Fill& fill) const {
    const auto& shape = layout_.inputs[static_cast<size_t>(fill.port)];
    const Port& port = signature_.inputs[static_cast<size_t>(fill.port)];
    if (!port.offsets_of.empty()) {
      const size_t values = LengthOf(port.offsets_of[0]);
      fill.values = static_cast<int32_t>(values);
      fill.joining = shape[0].constant == 0 ? Joining::kOffsets : Joining::kOffsetsWithEnd;
      return std::ranges::all_of(port.offsets_of,
                                 [&](const std::string& name) { return LengthOf(name) == values; });
    }
    if (GrowsInRows(shape)) {
      fill.joining = Joining::kAppend;
      return true;
    }
    return IsFixed(shape);
  }

  const Signature& signature_;
  Layout& layout_;
};

}  // namespace

Layout MakeLayout(const Signature& signature, std::shared_ptr<const isa::Program> program) {
  Layout layout;
  layout.program = std::move(program);
  const isa::Program& made = *layout.program;
  if (!signature.batch.empty()) layout.batch = made.FindRegister(signature.batch);
  for (size_t i = 0; i < made.registers.size(); ++i)
    if (IsFree(made.registers[i])) layout.free_registers.push_back(static_cast<int32_t>(i));
  const auto fill = [&](int port, const std::string& name, const Lookup* lookup) {
    const int32_t buffer = made.FindBuffer(name);
    Fill one{
        .port = port, .buffer = buffer, .dtype = made.buffers[static_cast<size_t>(buffer)].dtype};
    const Port& from = signature.inputs[static_cast<size_t>(port)];
    if (lookup != nullptr)
      one.lookup = std::make_unique<LookupTable>(*lookup, from.is_string, from.dtype, one.dtype);
    layout.fills.push_back(std::move(one));
  };
  for (size_t i = 0; i < signature.inputs.size(); ++i) {
    const Port& port = signature.inputs[i];
    layout.inputs.push_back(ShapeOf(port, made));
    if (!port.buffer.empty()) fill(static_cast<int>(i), port.buffer, nullptr);
  }
  for (const Lookup& lookup : signature.prologue)
    fill(signature.FindInput(lookup.input), lookup.buffer, &lookup);
  for (const Port& port : signature.outputs)
    layout.outputs.push_back({.buffer = made.FindBuffer(port.buffer),
                              .element_bytes = SizeBytes(port.dtype),
                              .shape = ShapeOf(port, made)});
  Joiner(signature, layout).Join();
  return layout;
}

}  // namespace millpower::ranking
