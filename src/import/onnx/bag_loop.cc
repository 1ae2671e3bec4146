#include "import/onnx/bag_loop.h"

#include <algorithm>

#include "import/onnx/importer.h"

namespace millpower::import::onnx {
namespace {

// Names inside a loop's body, and outside of it.
class Matcher {
 public:
  Matcher(Node& n, const GraphProto& body) : n_(n), body_(body) {
    for (const NodeProto& node : body.node())
      for (const std::string& output : node.output()) inside_[output] = &node;
    for (const ValueInfoProto& input : body.input()) inputs_.insert(input.name());
  }

  // The node that makes a value in the body; null for what comes from outside.
  const NodeProto* Inside(const std::string& name) const {
    const auto found = inside_.find(name);
    return found == inside_.end() ? nullptr : found->second;
  }
  bool IsOutside(const std::string& name) const {
    return Inside(name) == nullptr && !inputs_.contains(name);
  }

  // A value that is known, from a constant of the body or from outside.
  std::optional<std::vector<int64_t>> Known(const std::string& name) const {
    if (!Step()) return std::nullopt;
    if (const NodeProto* node = Inside(name)) {
      if (node->op_type() == "CastLike" || node->op_type() == "Cast" ||
          node->op_type() == "Identity")
        return node->input_size() > 0 ? Known(node->input(0)) : std::nullopt;
      if (node->op_type() != "Constant" || node->attribute_size() != 1) return std::nullopt;
      const auto constant = n_.Constant(node->attribute(0).t(), "constant");
      return constant ? n_.b.KnownIntegers(*constant) : std::nullopt;
    }
    const Tensor x = Outside(name);
    return x.present() ? n_.b.KnownIntegers(x) : std::nullopt;
  }
  bool IsKnown(const std::string& name, int64_t value) const {
    const auto known = Known(name);
    return known && known->size() == 1 && (*known)[0] == value;
  }
  // A value from outside of the body; not present when it is none, or no tensor.
  Tensor Outside(const std::string& name) const {
    if (!IsOutside(name)) return {};
    const Value value = n_.importer().Peek(name, n_.scope());
    return value.kind == Value::Kind::kTensor ? value.tensor : Tensor{};
  }
  // The node outside that makes a value, past those that only pass it on.
  const NodeProto* Producer(const std::string& name) const {
    if (!Step()) return nullptr;
    const NodeProto* node = n_.importer().ProducerOf(name, n_.scope());
    return node != nullptr && node->op_type() == "Identity" && node->input_size() == 1
               ? Producer(node->input(0))
               : node;
  }

  // k, when a value is the iteration's number plus k.
  std::optional<int64_t> Iteration(const std::string& name, const std::string& counter) const {
    if (name == counter) return 0;
    if (!Step()) return std::nullopt;
    const NodeProto* node = Inside(name);
    if (node == nullptr || node->input_size() == 0) return std::nullopt;
    const std::string& op = node->op_type();
    if (op == "Reshape" || op == "Unsqueeze" || op == "Identity" || op == "Cast")
      return Iteration(node->input(0), counter);
    if (op != "Add" || node->input_size() != 2) return std::nullopt;
    for (const int side : {0, 1}) {
      const auto base = Iteration(node->input(side), counter);
      const auto more = Known(node->input(1 - side));
      if (base && more && more->size() == 1) return *base + (*more)[0];
    }
    return std::nullopt;
  }

  // An element of a list from outside, at the iteration's number plus `shift`.
  struct Element {
    std::string list;
    int64_t shift = 0;
  };
  std::optional<Element> ElementOf(const std::string& name, const std::string& counter) const {
    if (!Step()) return std::nullopt;
    const NodeProto* node = Inside(name);
    if (node == nullptr || node->input_size() == 0) return std::nullopt;
    const std::string& op = node->op_type();
    if (op == "Unsqueeze" || op == "Squeeze" || op == "Reshape" || op == "Identity")
      return ElementOf(node->input(0), counter);
    if ((op != "Gather" && op != "Slice") || node->input_size() < 2 || !IsOutside(node->input(0)))
      return std::nullopt;
    const auto at = Iteration(node->input(1), counter);
    if (!at) return std::nullopt;
    if (op == "Slice" && (node->input_size() < 3 || Iteration(node->input(2), counter) != *at + 1))
      return std::nullopt;
    return Shifted({node->input(0), *at});
  }

 private:
  // list[i + k] of a list that is all[1:] is all[i + k + 1].
  Element Shifted(Element element) const {
    const NodeProto* node = Producer(element.list);
    const bool cuts_first = node != nullptr && node->op_type() == "Slice" &&
                            node->input_size() >= 3 && IsKnown(node->input(1), 1) &&
                            (node->input_size() < 5 || IsKnown(node->input(4), 1));
    if (!cuts_first) return element;
    const auto end = Known(node->input(2));
    if (!end || end->size() != 1 || (*end)[0] < int64_t{1} << 30) return element;
    return {node->input(0), element.shift + 1};
  }

  // What is looked at has not been checked: names may go round in circles, or fan out.
  bool Step() const { return steps_left_-- > 0; }

  mutable int steps_left_ = 512;
  Node& n_;
  const GraphProto& body_;
  std::map<std::string, const NodeProto*> inside_;
  std::set<std::string> inputs_;
};

// What the loop is, once it is recognised.
struct BagLoop {
  std::string table, index, weights;  // names outside; weights may be empty
  Matcher::Element begin, end;
  Bag mode = Bag::kSum;
};

const AttributeProto* FindAttribute(const NodeProto& node, const std::string& name) {
  for (const AttributeProto& attribute : node.attribute())
    if (attribute.name() == name) return &attribute;
  return nullptr;
}

int64_t IntOf(const NodeProto& node, const std::string& name, int64_t otherwise) {
  const AttributeProto* attribute = FindAttribute(node, name);
  return attribute == nullptr ? otherwise : attribute->i();
}

// A reduction along the first axis: its pooling.
std::optional<Bag> PoolingOf(const Matcher& m, const NodeProto& node, bool keeps) {
  if (node.input_size() < 1 || (IntOf(node, "keepdims", 1) != 0) != keeps) return std::nullopt;
  const AttributeProto* axes = FindAttribute(node, "axes");
  const bool is_first = axes != nullptr ? axes->ints_size() == 1 && axes->ints(0) == 0
                                        : node.input_size() > 1 && m.IsKnown(node.input(1), 0);
  if (!is_first) return std::nullopt;
  if (node.op_type() == "ReduceSum") return Bag::kSum;
  if (node.op_type() == "ReduceMean") return Bag::kMean;
  if (node.op_type() == "ReduceMax") return Bag::kMax;
  return std::nullopt;
}

// Slice(list, begin, end) along the first axis, in steps of one.
const NodeProto* SliceOf(const Matcher& m, const NodeProto* node) {
  if (node == nullptr || node->op_type() != "Slice" || node->input_size() < 3) return nullptr;
  if (node->input_size() > 3 && !m.IsKnown(node->input(3), 0)) return nullptr;
  if (node->input_size() > 4 && !m.IsKnown(node->input(4), 1)) return nullptr;
  return node;
}

bool SetRange(const Matcher& m, const NodeProto& slice, const std::string& counter, BagLoop& loop) {
  const auto begin = m.ElementOf(slice.input(1), counter);
  const auto end = m.ElementOf(slice.input(2), counter);
  if (!begin || !end || begin->list != end->list || begin->shift != 0 || end->shift != 1)
    return false;
  loop.begin = *begin;
  loop.end = *end;
  return true;
}

// Gather(table, indices) along rows.
bool SetTable(const NodeProto* gather, BagLoop& loop) {
  if (gather == nullptr || gather->op_type() != "Gather" || gather->input_size() != 2 ||
      IntOf(*gather, "axis", 0) != 0)
    return false;
  loop.table = gather->input(0);
  loop.index = gather->input(1);
  return true;
}

// The TorchScript exporter's: one scan output, Reduce(Gather(table, Slice(index, begin, end))).
std::optional<BagLoop> MatchScan(const Matcher& m, const GraphProto& body) {
  if (body.input_size() != 2 || body.output_size() != 2) return std::nullopt;
  const NodeProto* reduce = m.Inside(body.output(1).name());
  BagLoop loop;
  if (reduce == nullptr) return std::nullopt;
  const auto mode = PoolingOf(m, *reduce, false);
  if (!mode || !SetTable(m.Inside(reduce->input(0)), loop) || !m.IsOutside(loop.table))
    return std::nullopt;
  loop.mode = *mode;
  const NodeProto* slice = SliceOf(m, m.Inside(loop.index));
  if (slice == nullptr || !m.IsOutside(slice->input(0)) ||
      !SetRange(m, *slice, body.input(0).name(), loop))
    return std::nullopt;
  loop.index = slice->input(0);
  return loop;
}

// A graph without nodes that gives a tensor of zeros.
bool GivesZeros(Node& n, const GraphProto& graph) {
  if (graph.node_size() != 0 || graph.initializer_size() != 1 || graph.output_size() != 1 ||
      graph.output(0).name() != graph.initializer(0).name())
    return false;
  const auto constant = n.Constant(graph.initializer(0), "zeros");
  const auto known = constant ? n.b.KnownReals(*constant) : std::nullopt;
  return known && std::ranges::all_of(*known, [](double value) { return value == 0; });
}

// The newer exporter's: rows are gathered before, and each iteration appends to a sequence
// If(begin == end, zeros, Reduce(Slice(rows, begin, end))).
std::optional<BagLoop> MatchSequence(Node& n, const Matcher& m, const GraphProto& body) {
  if (body.input_size() != 4 || body.output_size() != 3) return std::nullopt;
  const NodeProto* insert = m.Inside(body.output(1).name());
  if (insert == nullptr || insert->op_type() != "SequenceInsert" || insert->input_size() != 2 ||
      insert->input(0) != body.input(2).name())
    return std::nullopt;
  const std::string& counter = body.input(3).name();
  const NodeProto* branch = m.Inside(insert->input(1));
  if (branch == nullptr || branch->op_type() != "If" ||
      m.Iteration(body.output(2).name(), counter) != 1)
    return std::nullopt;
  const AttributeProto* then = FindAttribute(*branch, "then_branch");
  const AttributeProto* otherwise = FindAttribute(*branch, "else_branch");
  if (then == nullptr || otherwise == nullptr || !GivesZeros(n, then->g())) return std::nullopt;
  const GraphProto& pooled = otherwise->g();
  if (pooled.node_size() != 2 || pooled.output_size() != 1 || pooled.node(1).output_size() != 1 ||
      pooled.node(0).output_size() != 1 || pooled.output(0).name() != pooled.node(1).output(0) ||
      pooled.node(1).input_size() < 1 || pooled.node(1).input(0) != pooled.node(0).output(0))
    return std::nullopt;
  const NodeProto* slice = SliceOf(m, &pooled.node(0));
  const auto mode = PoolingOf(m, pooled.node(1), true);
  BagLoop loop;
  if (slice == nullptr || !mode || !SetRange(m, *slice, counter, loop)) return std::nullopt;
  loop.mode = *mode;
  const NodeProto* rows = m.Producer(slice->input(0));
  if (rows != nullptr && rows->op_type() == "Mul" && rows->input_size() == 2) {
    const NodeProto* column = m.Producer(rows->input(1));
    if (column == nullptr || column->op_type() != "Unsqueeze") return std::nullopt;
    loop.weights = column->input(0);
    rows = m.Producer(rows->input(0));
  }
  return SetTable(rows, loop) ? std::optional(loop) : std::nullopt;
}

// Whether the loop's condition is that the counter is below a number, which is given back.
std::optional<Size> CountedBy(Node& n, const Matcher& m, const GraphProto& body) {
  const NodeProto* less = m.Inside(body.output(0).name());
  if (less == nullptr || less->op_type() != "Less" || less->input_size() != 2 ||
      m.Iteration(less->input(0), body.input(3).name()) != 1)
    return std::nullopt;
  const Tensor count = m.Outside(less->input(1));
  const auto known = count.present() ? n.b.KnownSizes(count) : std::nullopt;
  if (!known || known->size() != 1) return std::nullopt;
  return (*known)[0];
}

std::optional<Size> TripsOf(Node& n) {
  const auto known = n.has(0) ? n.b.KnownSizes(n.in(0)) : std::nullopt;
  if (!known || known->size() != 1) return std::nullopt;
  return (*known)[0];
}

}  // namespace

Result<std::optional<Values>> EmbeddingBagLoop(Node& n) {
  const GraphProto* body = n.GraphAttribute("body");
  if (body == nullptr) return std::nullopt;
  const Matcher m(n, *body);
  std::optional<BagLoop> loop;
  std::optional<Size> trips;
  const bool is_scan = body->input_size() == 2;
  if (is_scan) {
    loop = MatchScan(m, *body);
    trips = TripsOf(n);
    if (!loop || !m.IsKnown(body->output(0).name(), 1)) return std::nullopt;
  } else {
    loop = MatchSequence(n, m, *body);
    if (loop) trips = CountedBy(n, m, *body);
    const bool begins_at_0 = n.has(3) && n.b.KnownIntegers(n.in(3)) == std::vector<int64_t>{0};
    if (!begins_at_0 || n.has(0) || n.value(2).kind != Value::Kind::kSequence ||
        !n.value(2).list.empty())
      return std::nullopt;
  }
  if (!loop || !trips) return std::nullopt;
  const Tensor index = m.Outside(loop->index), offsets = m.Outside(loop->begin.list);
  if (!index.present() || !offsets.present() || n.b.rank(index) != 1 || n.b.rank(offsets) != 1 ||
      n.b.dim(offsets, 0) != trips->Plus(1))
    return std::nullopt;
  Tensor weights;
  if (!loop->weights.empty()) {
    weights = m.Outside(loop->weights);
    if (!weights.present()) return std::nullopt;
  }
  TRY_ASSIGN(const Tensor table, n.importer().Table(loop->table, n.scope()));
  if (!table.present()) return std::nullopt;
  TensorBuilder::BagOptions options;
  options.mode = loop->mode;
  options.ends = true;
  options.policy = IndexPolicy::kWrap;
  TRY_ASSIGN(const Tensor bags, n.b.EmbeddingBag(table, index, offsets, weights, options));
  if (is_scan) return std::optional(Values{bags});
  return std::optional(Values{Value::Rows(bags), n.b.SizeScalar(*trips)});
}

}  // namespace millpower::import::onnx
