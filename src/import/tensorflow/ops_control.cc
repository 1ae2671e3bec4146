// Constants, calls of functions, branches, and operators that change nothing.
#include <fmt/format.h>

#include "import/tensorflow/call.h"
#include "import/tensorflow/interpreter.h"

namespace millpower::import {
namespace {

constexpr int kMaxTrips = 1024;  // of a loop that is laid out

Result<Values> Constant(Call& call) {
  const auto* attribute = call.Find("value");
  if (!attribute || !attribute->has_tensor()) return Fail(ErrorCode::kCorrupt, "has no value");
  if (attribute->tensor().dtype() == kTypeString) {
    TRY_ASSIGN(StringLiteral strings, ReadStrings(attribute->tensor()));
    TRY_ASSIGN(strings.asset, call.state.AssetOf(call.node.name()));
    return Values{Value{std::move(strings)}};
  }
  TRY_ASSIGN(Literal literal, ReadLiteral(attribute->tensor()));
  TRY_ASSIGN(const Tensor constant, call.state.ConstantOf(call.node, std::move(literal)));
  return One(constant);
}

// The signature's inputs; before there are any, names of files.
Result<Values> Placeholder(Call& call) {
  if (const Value* fed = call.interpreter.Fed(call.node.name())) return Values{*fed};
  if (call.count() == 1) return Values{call.inputs[0]};  // its default
  if (call.state.phase == Phase::kServe) return Unsupported("is not one of the signature's inputs");
  StringLiteral name{.shape = {}, .values = {""}};
  TRY_ASSIGN(name.asset, call.state.AssetOf(call.node.name()));
  return Values{Value{std::move(name)}};
}

Result<Values> Same(Call& call) { return std::move(call.inputs); }

Result<Values> First(Call& call) {
  TRY_ASSIGN(const Value* first, call.At(0));
  return Values{*first};
}

Result<Values> Nothing(Call&) { return Values{}; }

Result<Values> CallOf(Call& call) {
  TRY_ASSIGN(const std::string name, call.FunctionName("f"));
  return call.interpreter.CallFunction(name, std::move(call.inputs));
}

std::optional<int64_t> KnownInteger(Call& call, const Value& value) {
  const auto* tensor = value.As<Tensor>();
  const auto known = tensor ? call.b.KnownIntegers(*tensor) : std::nullopt;
  if (!known || known->size() != 1) return std::nullopt;
  return known->front();
}

// condition, arguments
Result<Values> If(Call& call) {
  TRY_ASSIGN(const Value* condition, call.At(0));
  const auto known = KnownInteger(call, *condition);
  if (!known) return Unsupported("its condition is not known when the model is loaded");
  TRY_ASSIGN(const std::string name,
             call.FunctionName(*known != 0 ? "then_branch" : "else_branch"));
  return call.interpreter.CallFunction(name, Values(call.inputs.begin() + 1, call.inputs.end()));
}

// Which branch, arguments.
Result<Values> Case(Call& call) {
  TRY_ASSIGN(const Value* which, call.At(0));
  const auto known = KnownInteger(call, *which);
  const auto* branches = call.Find("branches");
  const int count = branches && branches->has_list() ? branches->list().func_size() : 0;
  if (!known || count == 0) return Unsupported("its branch is not known when the model is loaded");
  const bool exists = *known >= 0 && *known < count;  // otherwise the last, as the operator says
  const int branch = exists ? static_cast<int>(*known) : count - 1;
  return call.interpreter.CallFunction(branches->list().func(branch).name(),
                                       Values(call.inputs.begin() + 1, call.inputs.end()));
}

// Laid out trip by trip, as long as the condition is known each time.
Result<Values> While(Call& call) {
  TRY_ASSIGN(const std::string condition, call.FunctionName("cond"));
  TRY_ASSIGN(const std::string body, call.FunctionName("body"));
  Values variables = std::move(call.inputs);
  for (int trip = 0; trip < kMaxTrips; ++trip) {
    TRY_ASSIGN(const Values goes_on, call.interpreter.CallFunction(condition, variables));
    const auto known = goes_on.size() == 1 ? KnownInteger(call, goes_on[0]) : std::nullopt;
    if (!known) return Unsupported("how often it goes round is not known when the model is loaded");
    if (*known == 0) return variables;
    TRY_ASSIGN(variables, call.interpreter.CallFunction(body, variables));
  }
  return Unsupported(fmt::format("goes round more than {} times", kMaxTrips));
}

constexpr OpEntry kOps[] = {
    {"Const", nullptr, Constant},
    {"Placeholder", nullptr, Placeholder},
    {"PlaceholderWithDefault", nullptr, Placeholder},
    {"Identity", nullptr, First, true},
    {"IdentityN", nullptr, Same, true},
    {"StopGradient", nullptr, First},
    {"PreventGradient", nullptr, First},
    {"CheckNumerics", nullptr, First},
    {"EnsureShape", nullptr, First},
    {"Snapshot", nullptr, First},
    {"NoOp", nullptr, Nothing},
    {"Assert", nullptr, Nothing, true},
    {"Print", nullptr, First},
    {"PrintV2", nullptr, Nothing, true},
    {"DisableCopyOnRead", nullptr, Nothing},
    {"PartitionedCall", nullptr, CallOf, true},
    {"StatefulPartitionedCall", nullptr, CallOf, true},
    {"If", nullptr, If, true},
    {"StatelessIf", nullptr, If, true},
    {"Case", nullptr, Case, true},
    {"StatelessCase", nullptr, Case, true},
    {"While", nullptr, While, true},
    {"StatelessWhile", nullptr, While, true},
};

}  // namespace

std::span<const OpEntry> ControlOps() { return kOps; }

}  // namespace millpower::import
