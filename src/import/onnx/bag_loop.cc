#include "import/onnx/bag_loop.h"

#include <algorithm>

#include "import/onnx/importer.h"

namespace millpower::import::onnx {
namespace {

const AttributeProto* FindAttribute(const NodeProto& node, const std::string& name) {
  for (const AttributeProto& attribute : node.attribute())
    if (attribute.name() == name) return &attribute;
  return nullptr;
}

int64_t IntOf(const NodeProto& node, const std::string& name, int64_t otherwise) {
  const AttributeProto* attribute = FindAttribute(node, name);
  return attribute == nullptr ? otherwise : attribute->i();
}

// Names inside a loop's body, those of the branches in it included, and outside of it.
class Matcher {
 public:
  Matcher(Node& n, const GraphProto& body) : n_(n) {
    Collect(body, 0);
    for (const ValueInfoProto& input : body.input()) inputs_.insert(input.name());
  }

  // Each name stands for one value only, as ONNX demands.
  bool IsUnique() const { return is_unique_; }

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
  // A number of things: known, or the length of a tensor from outside.
  std::optional<Size> Count(const std::string& name) const {
    if (const NodeProto* node = Inside(name)) {
      const bool is_length = node->op_type() == "Shape" && node->input_size() == 1 &&
                             IntOf(*node, "start", 0) == 0 && IntOf(*node, "end", 0) == 1;
      const Tensor of = is_length ? Outside(node->input(0)) : Tensor{};
      return of.present() && n_.b.rank(of) > 0 ? std::optional(n_.b.dim(of, 0)) : std::nullopt;
    }
    const Tensor count = Outside(name);
    const auto known = count.present() ? n_.b.KnownSizes(count) : std::nullopt;
    return known && known->size() == 1 ? std::optional((*known)[0]) : std::nullopt;
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

  void Collect(const GraphProto& graph, int depth) {
    is_unique_ = is_unique_ && depth < 8;
    if (!is_unique_) return;
    for (const NodeProto& node : graph.node()) {
      for (const std::string& output : node.output())
        is_unique_ = is_unique_ && (output.empty() || inside_.emplace(output, &node).second);
      for (const AttributeProto& attribute : node.attribute())
        if (attribute.has_g()) Collect(attribute.g(), depth + 1);
    }
  }

  // What is looked at has not been checked: names may go round in circles, or fan out.
  bool Step() const { return steps_left_-- > 0; }

  mutable int steps_left_ = 512;
  bool is_unique_ = true;
  Node& n_;
  std::map<std::string, const NodeProto*> inside_;
  std::set<std::string> inputs_;
};

// What the loop is, once it is recognised.
struct BagLoop {
  std::string table, index, weights;  // names outside; weights may be empty
  Matcher::Element begin, end;
  Bag mode = Bag::kSum;
  Size count;  // of bags
  // If not empty, the name of what the last bag is taken to end at, whatever `end` says.
  std::string last_end = {};
  int rows_at = 0;  // which of the loop's outputs the bags are
};

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

// Unsqueeze(list, 1).
bool IsColumn(const Matcher& m, const NodeProto* node) {
  if (node == nullptr || node->op_type() != "Unsqueeze" || node->input_size() < 1) return false;
  const AttributeProto* axes = FindAttribute(*node, "axes");
  return axes != nullptr ? axes->ints_size() == 1 && axes->ints(0) == 1
                         : node->input_size() == 2 && m.IsKnown(node->input(1), 1);
}

// The TorchScript exporter's: one scan output, Reduce(Gather(table, Slice(index, begin, end))), or
// the rows times Unsqueeze(Slice(weights, begin, end), 1).
std::optional<BagLoop> MatchScan(const Matcher& m, const GraphProto& body) {
  if (body.input_size() != 2 || body.output_size() != 2) return std::nullopt;
  const NodeProto* reduce = m.Inside(body.output(1).name());
  BagLoop loop;
  if (reduce == nullptr) return std::nullopt;
  const auto mode = PoolingOf(m, *reduce, false);
  if (!mode) return std::nullopt;
  loop.mode = *mode;
  const NodeProto* rows = m.Inside(reduce->input(0));
  const NodeProto* weights = nullptr;
  if (rows != nullptr && rows->op_type() == "Mul" && rows->input_size() == 2) {
    const NodeProto* column = m.Inside(rows->input(1));
    if (!IsColumn(m, column)) return std::nullopt;
    weights = SliceOf(m, m.Inside(column->input(0)));
    rows = m.Inside(rows->input(0));
    if (weights == nullptr) return std::nullopt;
  }
  if (!SetTable(rows, loop) || !m.IsOutside(loop.table)) return std::nullopt;
  const NodeProto* slice = SliceOf(m, m.Inside(loop.index));
  if (slice == nullptr || !m.IsOutside(slice->input(0)) ||
      !SetRange(m, *slice, body.input(0).name(), loop))
    return std::nullopt;
  loop.index = slice->input(0);
  if (weights != nullptr) {
    if (weights->input(1) != slice->input(1) || weights->input(2) != slice->input(2))
      return std::nullopt;
    loop.weights = weights->input(0);
  }
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

// The nodes that make the results of a node If's branches; null where there is none.
struct Branches {
  const NodeProto* then = nullptr;
  const NodeProto* otherwise = nullptr;
};
Branches BranchesOf(const Matcher& m, const NodeProto* node) {
  if (node == nullptr || node->op_type() != "If" || node->input_size() != 1) return {};
  const auto result = [&](const std::string& name) -> const NodeProto* {
    const AttributeProto* branch = FindAttribute(*node, name);
    if (branch == nullptr || branch->g().output_size() != 1) return nullptr;
    return m.Inside(branch->g().output(0).name());
  };
  return {result("then_branch"), result("else_branch")};
}

// The newer exporter's loop: what it carries beside the sequence.
struct Counter {
  std::string name;   // of the iteration, in the body
  std::string count;  // what it stays below
};

// Whether the loop's condition is that the counter, which is one more each time, is below a count.
std::optional<Counter> CountedBy(const Matcher& m, const GraphProto& body, int counter_at) {
  Counter counter{.name = body.input(1 + counter_at).name(), .count = {}};
  const NodeProto* less = m.Inside(body.output(0).name());
  if (less == nullptr || less->op_type() != "Less" || less->input_size() != 2 ||
      m.Iteration(less->input(0), counter.name) != 1 ||
      m.Iteration(body.output(counter_at).name(), counter.name) != 1)
    return std::nullopt;
  counter.count = less->input(1);
  return counter;
}

// Less(0, count): the condition that the loop begins with.
bool BeginsBelow(const Matcher& m, const std::string& condition, const std::string& count) {
  const NodeProto* less = m.Producer(condition);
  return less != nullptr && less->op_type() == "Less" && less->input_size() == 2 &&
         m.IsKnown(less->input(0), 0) && less->input(1) == count;
}

// Equal(counter, count - 1).
bool IsLast(const Matcher& m, const NodeProto& branch, const Counter& counter) {
  const NodeProto* equal = m.Inside(branch.input(0));
  if (equal == nullptr || equal->op_type() != "Equal" || equal->input_size() != 2) return false;
  const NodeProto* last = m.Inside(equal->input(1));
  return m.Iteration(equal->input(0), counter.name) == 0 && last != nullptr &&
         last->op_type() == "Sub" && last->input_size() == 2 && last->input(0) == counter.count &&
         m.IsKnown(last->input(1), 1);
}

// If(last, sum / (items - begin), ReduceMean(rows)) is a mean, where the last bag ends with the
// items; the division stands in another branch, as the divisor may be 0.
bool SetMeanOfLast(const Matcher& m, const NodeProto* branch, const Counter& counter,
                   std::string& rows, BagLoop& loop) {
  const Branches by_place = BranchesOf(m, branch);
  if (by_place.then == nullptr || by_place.otherwise == nullptr || !IsLast(m, *branch, counter) ||
      PoolingOf(m, *by_place.otherwise, true) != Bag::kMean)
    return false;
  const Branches by_size = BranchesOf(m, by_place.then);
  const NodeProto *quotient = by_size.then, *same = by_size.otherwise;
  if (quotient == nullptr || quotient->op_type() != "Div" || quotient->input_size() != 2 ||
      same == nullptr || same->op_type() != "Identity" || same->input_size() != 1 ||
      same->input(0) != quotient->input(0))
    return false;
  const NodeProto *sum = m.Inside(same->input(0)), *cast = m.Inside(quotient->input(1));
  if (sum == nullptr || PoolingOf(m, *sum, true) != Bag::kSum || cast == nullptr ||
      cast->op_type() != "Cast" || cast->input_size() != 1)
    return false;
  const NodeProto *greater = m.Inside(by_place.then->input(0)), *size = m.Inside(cast->input(0));
  if (greater == nullptr || greater->op_type() != "Greater" || greater->input_size() != 2 ||
      greater->input(0) != cast->input(0) || !m.IsKnown(greater->input(1), 0) || size == nullptr ||
      size->op_type() != "Sub" || size->input_size() != 2)
    return false;
  const auto begin = m.ElementOf(size->input(1), counter.name);
  rows = by_place.otherwise->input(0);
  if (!begin || begin->shift != 0 || sum->input(0) != rows) return false;
  loop.begin = *begin;
  loop.last_end = size->input(0);
  loop.mode = Bag::kMean;
  return true;
}

// If(last, Slice(rows, begin, items), Slice(rows, begin, end)): the second; else the node itself.
const NodeProto* SliceOfBag(const Matcher& m, const NodeProto* node, const Counter& counter,
                            BagLoop& loop) {
  const Branches branches = BranchesOf(m, node);
  if (branches.then == nullptr) return SliceOf(m, node);
  const NodeProto *last = SliceOf(m, branches.then), *slice = SliceOf(m, branches.otherwise);
  if (!IsLast(m, *node, counter) || last == nullptr || slice == nullptr ||
      last->input(0) != slice->input(0) || last->input(1) != slice->input(1))
    return nullptr;
  loop.last_end = last->input(2);
  return slice;
}

// The rows, and the weights they were multiplied by, which may be ones.
bool SetRows(Node& n, const Matcher& m, const std::string& name, BagLoop& loop) {
  const NodeProto* rows = m.Producer(name);
  if (rows != nullptr && rows->op_type() == "Mul" && rows->input_size() == 2) {
    const NodeProto* column = m.Producer(rows->input(1));
    if (!IsColumn(m, column)) return false;
    const NodeProto* weights = m.Producer(column->input(0));
    const Tensor one = weights != nullptr && weights->op_type() == "Expand"
                           ? m.Outside(weights->input(0))
                           : Tensor{};
    const auto known = one.present() ? n.b.KnownReals(one) : std::nullopt;
    if (!known || *known != std::vector<double>{1}) loop.weights = column->input(0);
    rows = m.Producer(rows->input(0));
  }
  return SetTable(rows, loop);
}

// The newer exporter's: rows are gathered before, and each iteration appends to a sequence
// If(begin == end, zeros, Reduce(Slice(rows, begin, end))).
std::optional<BagLoop> MatchSequence(Node& n, const Matcher& m, const GraphProto& body) {
  if (body.input_size() != 4 || body.output_size() != 3) return std::nullopt;
  BagLoop loop;
  const NodeProto* insert = nullptr;
  for (const int at : {1, 2}) {
    const NodeProto* node = m.Inside(body.output(at).name());
    if (node == nullptr || node->op_type() != "SequenceInsert" || node->input_size() != 2 ||
        node->input(0) != body.input(1 + at).name())
      continue;
    insert = node;
    loop.rows_at = at - 1;
  }
  if (insert == nullptr) return std::nullopt;
  const auto counter = CountedBy(m, body, 2 - loop.rows_at);
  const NodeProto* by_size = m.Inside(insert->input(1));
  const NodeProto* pooled = BranchesOf(m, by_size).otherwise;
  if (!counter || pooled == nullptr || !GivesZeros(n, FindAttribute(*by_size, "then_branch")->g()))
    return std::nullopt;
  std::string rows;
  const bool is_mean = SetMeanOfLast(m, pooled, *counter, rows, loop);
  if (!is_mean) {
    const auto mode = PoolingOf(m, *pooled, true);
    if (!mode) return std::nullopt;
    loop.mode = *mode;
    rows = pooled->input(0);
  }
  const Matcher::Element begin = loop.begin;
  const NodeProto* slice = SliceOfBag(m, m.Inside(rows), *counter, loop);
  if (slice == nullptr || !SetRange(m, *slice, counter->name, loop) ||
      (is_mean && loop.begin.list != begin.list))
    return std::nullopt;
  const NodeProto* empty = m.Inside(by_size->input(0));
  if (empty == nullptr || empty->op_type() != "Equal" || empty->input_size() != 2 ||
      empty->input(0) != slice->input(1) || empty->input(1) != slice->input(2))
    return std::nullopt;
  const auto count = m.Count(counter->count);
  if (!count || !BeginsBelow(m, n.input_name(1), counter->count) ||
      !SetRows(n, m, slice->input(0), loop))
    return std::nullopt;
  loop.count = *count;
  return loop;
}

// Whether a list of offsets ends with the number of items: Concat(offsets, items).
bool EndsWith(const Matcher& m, const std::string& list, const Size& items) {
  const NodeProto* concat = m.Producer(list);
  return concat != nullptr && concat->op_type() == "Concat" && concat->input_size() > 0 &&
         m.Count(concat->input(concat->input_size() - 1)) == items;
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
  if (!m.IsUnique()) return std::nullopt;
  std::optional<BagLoop> loop;
  const bool is_scan = body->input_size() == 2;
  if (is_scan) {
    loop = MatchScan(m, *body);
    const auto trips = TripsOf(n);
    if (!loop || !trips || !m.IsKnown(body->output(0).name(), 1)) return std::nullopt;
    loop->count = *trips;
  } else {
    loop = MatchSequence(n, m, *body);
    if (!loop) return std::nullopt;
    const int rows_at = 2 + loop->rows_at, counter_at = 3 - loop->rows_at;
    const bool begins_at_0 =
        n.has(counter_at) && n.b.KnownIntegers(n.in(counter_at)) == std::vector<int64_t>{0};
    if (!begins_at_0 || n.has(0) || n.value(rows_at).kind != Value::Kind::kSequence ||
        !n.value(rows_at).list.empty())
      return std::nullopt;
  }
  const Tensor index = m.Outside(loop->index), offsets = m.Outside(loop->begin.list);
  if (!index.present() || !offsets.present() || n.b.rank(index) != 1 || n.b.rank(offsets) != 1 ||
      n.b.dim(offsets, 0) != loop->count.Plus(1))
    return std::nullopt;
  const Size items = n.b.dim(index, 0);
  if (!loop->last_end.empty() &&
      (m.Count(loop->last_end) != items || !EndsWith(m, loop->begin.list, items)))
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
  Values values{Value::Rows(bags), n.b.SizeScalar(loop->count)};
  if (loop->rows_at == 1) std::swap(values[0], values[1]);
  return std::optional(std::move(values));
}

}  // namespace millpower::import::onnx
