// Control flow: branches that are known are taken, loops whose length is known are unrolled.
#include <fmt/format.h>

#include <algorithm>

#include "import/onnx/bag_loop.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

constexpr int64_t kMaxTrips = 4096;

std::optional<bool> KnownCondition(Node& n, const Value& value) {
  if (value.kind != Value::Kind::kTensor) return std::nullopt;
  const auto known = n.b.KnownIntegers(value.tensor);
  if (!known || known->size() != 1) return std::nullopt;
  return (*known)[0] != 0;
}

// Both branches are computed, and each output is that of the one the condition names.
Result<Values> SelectBranch(Node& n, const GraphProto& then, const GraphProto& otherwise) {
  TRY_ASSIGN(const Tensor condition, n.b.Reshape(n.in(0), ir::Shape{}));
  TRY_ASSIGN(const Values yes, n.Run(then, {}));
  TRY_ASSIGN(const Values no, n.Run(otherwise, {}));
  if (yes.size() != no.size()) return Invalid("branches differ in their number of outputs");
  Values outputs;
  for (size_t i = 0; i < yes.size(); ++i) {
    const auto is_tensor = [](const Value& value) { return value.kind == Value::Kind::kTensor; };
    if (!is_tensor(yes[i]) || !is_tensor(no[i]) ||
        n.b.shape(yes[i].tensor) != n.b.shape(no[i].tensor))
      return Unsupported(
          "a condition known only when the model runs, of branches that differ in "
          "their outputs' shapes");
    TRY_ASSIGN(const Tensor y, n.b.Select(condition, yes[i].tensor, no[i].tensor));
    outputs.push_back(y);
  }
  return outputs;
}

Result<Values> If(Node& n) {
  const GraphProto* then = n.GraphAttribute("then_branch");
  const GraphProto* otherwise = n.GraphAttribute("else_branch");
  if (then == nullptr || otherwise == nullptr || !n.has(0)) return Invalid("has no two branches");
  const auto known = KnownCondition(n, n.value(0));
  if (!known) return SelectBranch(n, *then, *otherwise);
  return n.Run(*known ? *then : *otherwise, {});
}

// The scan outputs of a loop: one entry for each iteration, to be stacked.
Result<Values> Stacked(Node& n, const std::vector<std::vector<Tensor>>& entries,
                       const std::vector<int64_t>& axes, const std::vector<int64_t>& reversed) {
  Values outputs;
  for (size_t i = 0; i < entries.size(); ++i) {
    std::vector<Tensor> parts = entries[i];
    if (parts.empty()) return Unsupported("a loop without iterations");
    if (i < reversed.size() && reversed[i] != 0) std::ranges::reverse(parts);
    TRY_ASSIGN(const int axis, n.b.Axis(i < axes.size() ? axes[i] : 0, n.b.rank(parts[0]) + 1));
    TRY_ASSIGN(const Tensor y, n.b.Stack(parts, axis));
    outputs.push_back(y);
  }
  return outputs;
}

// Takes what the body gave from `first` on as one more entry of each scan output.
Result<void> Collect(const Values& given, size_t first, std::vector<std::vector<Tensor>>& entries) {
  for (size_t i = first; i < given.size(); ++i) {
    if (given[i].kind != Value::Kind::kTensor) return Invalid("a scan output is no tensor");
    entries[i - first].push_back(given[i].tensor);
  }
  return {};
}

Result<Values> Loop(Node& n) {
  const GraphProto* body = n.GraphAttribute("body");
  if (body == nullptr || n.input_count() < 2) return Invalid("has no body");
  TRY_ASSIGN(auto bags, EmbeddingBagLoop(n));
  if (bags) return *std::move(bags);
  int64_t trips = kMaxTrips + 1;
  if (n.has(0)) {
    TRY_ASSIGN(trips, n.Integer(0, "the number of iterations"));
  }
  Values state;
  for (size_t i = 2; i < n.input_count(); ++i) state.push_back(n.value(i));
  const auto outputs = static_cast<size_t>(body->output_size());
  if (outputs < 1 + state.size()) return Invalid("the body gives too few outputs");
  std::vector<std::vector<Tensor>> entries(outputs - 1 - state.size());
  std::optional<bool> goes_on = true;
  Value condition = n.b.Scalar(DType::kBool, 1);
  if (n.has(1)) {
    condition = n.value(1);
    goes_on = KnownCondition(n, condition);
  }
  for (int64_t trip = 0; trip < trips; ++trip) {
    if (!goes_on) return Unsupported("a condition known only when the model runs");
    if (!*goes_on) break;
    if (trip >= kMaxTrips) return Unsupported(fmt::format("more than {} iterations", kMaxTrips));
    Values operands = {n.b.SizeScalar(Size(trip)), condition};
    operands.insert(operands.end(), state.begin(), state.end());
    TRY_ASSIGN(const Values given, n.Run(*body, operands));
    if (n.has(1)) {  // else what the body says of it does not count
      condition = given[0];
      goes_on = KnownCondition(n, condition);
    }
    std::copy_n(given.begin() + 1, state.size(), state.begin());
    TRY(Collect(given, 1 + state.size(), entries));
  }
  TRY_ASSIGN(const Values stacked, Stacked(n, entries, {}, {}));
  state.insert(state.end(), stacked.begin(), stacked.end());
  return state;
}

struct ScanForm {
  size_t states = 0, scanned = 0;
  std::vector<int64_t> axes, reversed;
  int64_t trips = 0;
};

Result<ScanForm> ReadScan(Node& n, size_t operands) {
  const int64_t scanned = n.Int("num_scan_inputs", 0);
  if (scanned < 1 || scanned > static_cast<int64_t>(operands)) return Invalid("num_scan_inputs");
  ScanForm form;
  form.scanned = static_cast<size_t>(scanned);
  form.states = operands - form.scanned;
  form.axes = n.Ints("scan_input_axes", std::vector<int64_t>(form.scanned, 0));
  form.reversed = n.Ints("scan_input_directions", std::vector<int64_t>(form.scanned, 0));
  if (form.axes.size() != form.scanned || form.reversed.size() != form.scanned)
    return Invalid("axes or directions are not one for each scanned operand");
  for (size_t i = 0; i < form.scanned; ++i) {
    const Tensor x = n.in(form.states + i);
    if (!x.present()) return Invalid("a scanned operand is missing");
    TRY_ASSIGN(const int axis, n.b.Axis(form.axes[i], n.b.rank(x)));
    form.axes[i] = axis;
    TRY_ASSIGN(const int64_t size, n.ConstantDim(x, axis));
    if (i > 0 && size != form.trips) return Invalid("scanned operands differ in length");
    form.trips = size;
  }
  if (form.trips > kMaxTrips) return Unsupported(fmt::format("more than {} iterations", kMaxTrips));
  return form;
}

Result<Values> Scan(Node& n) {
  if (n.version() < 9) return Unsupported("is read from operator set 9 on");
  const GraphProto* body = n.GraphAttribute("body");
  if (body == nullptr) return Invalid("has no body");
  TRY_ASSIGN(const ScanForm form, ReadScan(n, n.input_count()));
  Values state;
  for (size_t i = 0; i < form.states; ++i) state.push_back(n.value(i));
  const auto outputs = static_cast<size_t>(body->output_size());
  if (outputs < form.states) return Invalid("the body gives too few outputs");
  std::vector<std::vector<Tensor>> entries(outputs - form.states);
  for (int64_t trip = 0; trip < form.trips; ++trip) {
    Values operands = state;
    for (size_t i = 0; i < form.scanned; ++i) {
      const int64_t at = form.reversed[i] != 0 ? form.trips - 1 - trip : trip;
      TRY_ASSIGN(const Tensor x,
                 n.b.Pick(n.in(form.states + i), static_cast<int>(form.axes[i]), at));
      operands.push_back(x);
    }
    TRY_ASSIGN(const Values given, n.Run(*body, operands));
    std::copy_n(given.begin(), form.states, state.begin());
    TRY(Collect(given, form.states, entries));
  }
  TRY_ASSIGN(const Values stacked,
             Stacked(n, entries, n.Ints("scan_output_axes"), n.Ints("scan_output_directions")));
  state.insert(state.end(), stacked.begin(), stacked.end());
  return state;
}

constexpr Operator kOperators[] = {
    {"", "If", If, 1},
    {"", "Loop", Loop, 0, true},
    {"", "Scan", Scan, 1},
};

}  // namespace

std::span<const Operator> ControlOperators() { return kOperators; }

}  // namespace millpower::import::onnx
