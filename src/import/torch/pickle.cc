#include "import/torch/pickle.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <variant>
#include <vector>

namespace millpower::import::torch {
namespace {

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, "pickle: " + std::move(message));
}
std::unexpected<Error> Refused(std::string message) {
  return Fail(ErrorCode::kUnsupported, "pickle: " + std::move(message));
}

// Objects stand in one list and name each other by number, so that neither reading nor freeing
// them recurses, and what the memo repeats is not copied.
using Id = size_t;

struct None {};
struct Mark {};
struct Tuple {
  std::vector<Id> items;
};
struct List {
  std::vector<Id> items;
};
struct Dict {
  std::vector<std::pair<Id, Id>> items;
};
enum class Global { kOrderedDict, kRebuildTensor, kRebuildParameter, kStorageType };
struct Function {
  Global global;
  std::string storage_type;  // of kStorageType
};
// An object of the pickle.
using Object = std::variant<None, Mark, bool, int64_t, double, std::string, Tuple, List, Dict,
                            Function, PickledStorage, PickledTensor>;

struct StorageType {
  std::string_view name;
  DType dtype;
};
constexpr StorageType kStorageTypes[] = {
    {"FloatStorage", DType::kF32},     {"DoubleStorage", DType::kF64}, {"HalfStorage", DType::kF16},
    {"BFloat16Storage", DType::kBf16}, {"LongStorage", DType::kI64},   {"IntStorage", DType::kI32},
    {"ShortStorage", DType::kI16},     {"CharStorage", DType::kI8},    {"ByteStorage", DType::kU8},
    {"BoolStorage", DType::kBool},
};

// Python's pickle, by its opcodes' names in pickletools.py.
enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kInt = 'I',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kEmptyList = ']',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kEmptyTuple = ')',
  kSetItems = 'u',
  kEmptyDict = '}',
  kBinFloat = 'G',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

class Machine {
 public:
  explicit Machine(std::span<const std::byte> pickle) : rest_(pickle) {}

  Result<std::map<std::string, PickledTensor>> Run() {
    for (bool stopped = false; !stopped;) {
      TRY_ASSIGN(const std::span<const std::byte> code, Take(1));
      TRY_ASSIGN(stopped, Step(static_cast<uint8_t>(code[0])));
      if (objects_.size() + memo_.size() > kMaxPickleObjects) return Refused("too many objects");
    }
    if (stack_.size() != 1) return Corrupt("does not leave one object");
    return Tensors(stack_[0]);
  }

 private:
  // ---- reading ----
  Result<std::span<const std::byte>> Take(size_t size) {
    if (size > rest_.size()) return Corrupt("is truncated");
    const auto taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }
  // Little-endian, as all of pickle's integers.
  Result<uint64_t> TakeUnsigned(size_t size) {
    TRY_ASSIGN(const std::span<const std::byte> bytes, Take(size));
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    return value;
  }
  Result<int64_t> TakeSigned(size_t size) {
    TRY_ASSIGN(uint64_t value, TakeUnsigned(size));
    const auto unused = static_cast<int>(64 - 8 * size);
    if (unused == 64) return 0;
    return static_cast<int64_t>(value << unused) >> unused;
  }
  Result<std::string> TakeText(size_t length_bytes) {
    TRY_ASSIGN(const uint64_t length, TakeUnsigned(length_bytes));
    if (length > rest_.size()) return Corrupt("is truncated");
    TRY_ASSIGN(const std::span<const std::byte> bytes, Take(static_cast<size_t>(length)));
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  Result<std::string> TakeLine() {
    const auto end = std::ranges::find(rest_, std::byte{'\n'});
    if (end == rest_.end()) return Corrupt("is truncated");
    TRY_ASSIGN(const std::span<const std::byte> line,
               Take(static_cast<size_t>(end - rest_.begin()) + 1));
    return std::string(reinterpret_cast<const char*>(line.data()), line.size() - 1);
  }

  // ---- the stack ----
  void Push(Object object) {
    objects_.push_back(std::move(object));
    stack_.push_back(objects_.size() - 1);
  }
  Result<Id> Pop() {
    if (stack_.empty() || std::holds_alternative<Mark>(objects_[stack_.back()]))
      return Corrupt("takes from an empty stack");
    const Id id = stack_.back();
    stack_.pop_back();
    return id;
  }
  Result<std::vector<Id>> PopMany(size_t count) {
    std::vector<Id> items(count);
    for (size_t i = count; i-- > 0;) {
      TRY_ASSIGN(items[i], Pop());
    }
    return items;
  }
  Result<std::vector<Id>> PopToMark() {
    std::vector<Id> items;
    while (!stack_.empty() && !std::holds_alternative<Mark>(objects_[stack_.back()])) {
      items.push_back(stack_.back());
      stack_.pop_back();
    }
    if (stack_.empty()) return Corrupt("has no mark");
    stack_.pop_back();
    std::ranges::reverse(items);
    return items;
  }
  template <typename T>
  Result<T*> Top(const char* what) {
    T* top = stack_.empty() ? nullptr : std::get_if<T>(&objects_[stack_.back()]);
    if (top == nullptr) return Corrupt(std::string("expects ") + what);
    return top;
  }
  template <typename T>
  const T* As(Id id) const {
    return std::get_if<T>(&objects_[id]);
  }

  Result<void> Remember(uint64_t key) {
    if (stack_.empty()) return Corrupt("remembers nothing");
    memo_[key] = stack_.back();
    return {};
  }
  Result<void> Recall(uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) return Corrupt("recalls what it did not remember");
    stack_.push_back(found->second);
    return {};
  }

  // ---- instructions ----
  Result<bool> Step(uint8_t code);  // true: the end
  Result<void> StepValue(uint8_t code);
  Result<void> StepContainer(uint8_t code);
  Result<void> StepMemo(uint8_t code);
  Result<void> FindGlobal(const std::string& module, const std::string& name);
  Result<void> Reduce();
  Result<void> RebuildTensor(const std::vector<Id>& arguments);
  Result<void> NameStorage();
  Result<void> SetItems(const std::vector<Id>& items);
  std::optional<std::vector<int64_t>> Integers(Id id) const;
  Result<std::map<std::string, PickledTensor>> Tensors(Id id) const;

  std::span<const std::byte> rest_;
  std::vector<Object> objects_;
  std::vector<Id> stack_;
  std::map<uint64_t, Id> memo_;
};

Result<bool> Machine::Step(uint8_t code) {
  switch (code) {
    case kStop:
      return true;
    case kProto: {
      TRY_ASSIGN(const uint64_t version, TakeUnsigned(1));
      if (version > 5) return Refused("protocol " + std::to_string(version));
      return false;
    }
    case kFrame:
      TRY(Take(8));
      return false;
    case kGlobal: {
      TRY_ASSIGN(const std::string module, TakeLine());
      TRY_ASSIGN(const std::string name, TakeLine());
      TRY(FindGlobal(module, name));
      return false;
    }
    case kStackGlobal: {
      TRY_ASSIGN(const std::vector<Id> names, PopMany(2));
      const auto* module = As<std::string>(names[0]);
      const auto* name = As<std::string>(names[1]);
      if (module == nullptr || name == nullptr) return Corrupt("names a function by no text");
      TRY(FindGlobal(*module, *name));
      return false;
    }
    case kReduce:
      TRY(Reduce());
      return false;
    case kBinPersId:
      TRY(NameStorage());
      return false;
    case kBinPut:
    case kLongBinPut:
    case kMemoize:
    case kBinGet:
    case kLongBinGet:
      TRY(StepMemo(code));
      return false;
    case kMark:
    case kTuple:
    case kTuple1:
    case kTuple2:
    case kTuple3:
    case kEmptyTuple:
    case kEmptyList:
    case kEmptyDict:
    case kAppend:
    case kAppends:
    case kSetItem:
    case kSetItems:
    case kBuild:
      TRY(StepContainer(code));
      return false;
    default:
      TRY(StepValue(code));
      return false;
  }
}

Result<void> Machine::StepValue(uint8_t code) {
  switch (code) {
    case kNone:
      Push(None{});
      return {};
    case kNewTrue:
    case kNewFalse:
      Push(code == kNewTrue);
      return {};
    case kBinInt: {
      TRY_ASSIGN(const int64_t value, TakeSigned(4));
      Push(value);
      return {};
    }
    case kBinInt1:
    case kBinInt2: {
      TRY_ASSIGN(const uint64_t value, TakeUnsigned(code == kBinInt1 ? 1 : 2));
      Push(static_cast<int64_t>(value));
      return {};
    }
    case kLong1: {
      TRY_ASSIGN(const uint64_t size, TakeUnsigned(1));
      if (size > 8) return Refused("an integer of more than 64 bits");
      TRY_ASSIGN(const int64_t value, TakeSigned(static_cast<size_t>(size)));
      Push(value);
      return {};
    }
    case kBinFloat: {
      TRY_ASSIGN(const uint64_t bits, TakeUnsigned(8));
      Push(std::bit_cast<double>(__builtin_bswap64(bits)));  // big-endian, alone of all
      return {};
    }
    case kBinUnicode:
    case kShortBinUnicode: {
      TRY_ASSIGN(std::string text, TakeText(code == kBinUnicode ? 4 : 1));
      Push(std::move(text));
      return {};
    }
    default:
      return Refused("instruction " + std::to_string(code) + " is none that tensors need");
  }
}

Result<void> Machine::StepContainer(uint8_t code) {
  switch (code) {
    case kMark:
      Push(Mark{});
      return {};
    case kEmptyTuple:
      Push(Tuple{});
      return {};
    case kEmptyList:
      Push(List{});
      return {};
    case kEmptyDict:
      Push(Dict{});
      return {};
    case kTuple: {
      TRY_ASSIGN(std::vector<Id> items, PopToMark());
      Push(Tuple{std::move(items)});
      return {};
    }
    case kTuple1:
    case kTuple2:
    case kTuple3: {
      TRY_ASSIGN(std::vector<Id> items, PopMany(static_cast<size_t>(code - kTuple1) + 1));
      Push(Tuple{std::move(items)});
      return {};
    }
    case kAppend:
    case kAppends: {
      TRY_ASSIGN(const std::vector<Id> items, code == kAppend ? PopMany(1) : PopToMark());
      TRY_ASSIGN(List* const list, Top<List>("a list"));
      list->items.insert(list->items.end(), items.begin(), items.end());
      return {};
    }
    case kBuild:  // attributes of a dict, such as a state dict's _metadata, are not needed
      TRY(Pop());
      TRY(Top<Dict>("a dict"));
      return {};
    default: {
      TRY_ASSIGN(const std::vector<Id> items, code == kSetItem ? PopMany(2) : PopToMark());
      return SetItems(items);
    }
  }
}

Result<void> Machine::StepMemo(uint8_t code) {
  if (code == kMemoize) return Remember(memo_.size());
  const bool is_long = code == kLongBinPut || code == kLongBinGet;
  TRY_ASSIGN(const uint64_t key, TakeUnsigned(is_long ? 4 : 1));
  return code == kBinPut || code == kLongBinPut ? Remember(key) : Recall(key);
}

Result<void> Machine::SetItems(const std::vector<Id>& items) {
  TRY_ASSIGN(Dict* const dict, Top<Dict>("a dict"));
  if (items.size() % 2 != 0) return Corrupt("has a key without a value");
  for (size_t i = 0; i < items.size(); i += 2) dict->items.emplace_back(items[i], items[i + 1]);
  return {};
}

Result<void> Machine::FindGlobal(const std::string& module, const std::string& name) {
  if (module == "collections" && name == "OrderedDict") {
    Push(Function{Global::kOrderedDict, {}});
  } else if (module == "torch._utils" && name == "_rebuild_tensor_v2") {
    Push(Function{Global::kRebuildTensor, {}});
  } else if (module == "torch._utils" && name == "_rebuild_parameter") {
    Push(Function{Global::kRebuildParameter, {}});
  } else if (module == "torch" && name.ends_with("Storage") && name.size() <= 64) {
    Push(Function{Global::kStorageType, name});
  } else {
    return Refused("calls '" + module.substr(0, 200) + "." + name.substr(0, 200) +
                   "', which is not read from a file");
  }
  return {};
}

// A function called with a tuple of arguments.
Result<void> Machine::Reduce() {
  TRY_ASSIGN(const std::vector<Id> call, PopMany(2));
  const auto* function = As<Function>(call[0]);
  const auto* arguments = As<Tuple>(call[1]);
  if (function == nullptr || arguments == nullptr) return Corrupt("calls what is no function");
  const std::vector<Id> items = arguments->items;
  switch (function->global) {
    case Global::kOrderedDict:
      if (!items.empty()) return Corrupt("an OrderedDict has arguments");
      Push(Dict{});
      return {};
    case Global::kRebuildTensor:
      return RebuildTensor(items);
    case Global::kRebuildParameter:  // data, requires_grad, hooks
      if (items.size() != 3 || As<PickledTensor>(items[0]) == nullptr)
        return Corrupt("a parameter is none of a tensor");
      stack_.push_back(items[0]);
      return {};
    case Global::kStorageType:
      break;
  }
  return Corrupt("calls a storage type");
}

std::optional<std::vector<int64_t>> Machine::Integers(Id id) const {
  const auto* tuple = As<Tuple>(id);
  if (tuple == nullptr) return std::nullopt;
  std::vector<int64_t> integers;
  for (const Id item : tuple->items) {
    const auto* value = As<int64_t>(item);
    if (value == nullptr) return std::nullopt;
    integers.push_back(*value);
  }
  return integers;
}

// storage, offset, size, stride, requires_grad, hooks (, metadata).
Result<void> Machine::RebuildTensor(const std::vector<Id>& arguments) {
  if (arguments.size() < 6 || arguments.size() > 7)
    return Corrupt("a tensor has " + std::to_string(arguments.size()) + " arguments");
  const auto* storage = As<PickledStorage>(arguments[0]);
  const auto* offset = As<int64_t>(arguments[1]);
  const auto shape = Integers(arguments[2]);
  const auto strides = Integers(arguments[3]);
  if (storage == nullptr || offset == nullptr || !shape || !strides)
    return Corrupt("a tensor has no storage, offset, sizes and strides");
  // Sizes that the memo repeats are copied here: no tensor may have many of them.
  if (shape->size() > kMaxPickleRank || strides->size() != shape->size())
    return Corrupt("a tensor has sizes and strides that do not fit");
  Push(PickledTensor{*storage, *offset, *shape, *strides});
  return {};
}

// ("storage", type, key, location, elements) becomes a storage.
Result<void> Machine::NameStorage() {
  TRY_ASSIGN(const Id id, Pop());
  const auto* tuple = As<Tuple>(id);
  if (tuple == nullptr || tuple->items.size() != 5) return Corrupt("a storage is malformed");
  const auto* tag = As<std::string>(tuple->items[0]);
  const auto* type = As<Function>(tuple->items[1]);
  const auto* key = As<std::string>(tuple->items[2]);
  const auto* elements = As<int64_t>(tuple->items[4]);
  if (tag == nullptr || *tag != "storage" || type == nullptr ||
      type->global != Global::kStorageType || key == nullptr || key->size() > 64 ||
      elements == nullptr || *elements < 0)
    return Corrupt("a storage is malformed");
  PickledStorage storage{type->storage_type, std::nullopt, *key, *elements};
  const auto* known = std::ranges::find(kStorageTypes, type->storage_type, &StorageType::name);
  if (known != std::end(kStorageTypes)) storage.dtype = known->dtype;
  Push(std::move(storage));
  return {};
}

Result<std::map<std::string, PickledTensor>> Machine::Tensors(Id id) const {
  std::map<std::string, PickledTensor> tensors;
  if (const auto* tensor = As<PickledTensor>(id)) {
    tensors.emplace("", *tensor);
    return tensors;
  }
  const auto* dict = As<Dict>(id);
  if (dict == nullptr) return Corrupt("is no dict of tensors");
  for (const auto& [key, value] : dict->items) {
    const auto* name = As<std::string>(key);
    const auto* tensor = As<PickledTensor>(value);
    if (name == nullptr) return Corrupt("has a key that is no text");
    if (tensor != nullptr && !tensors.emplace(*name, *tensor).second)
      return Corrupt("'" + *name + "' is there twice");
  }
  return tensors;
}

// The folder that all records of the archive are in: "archive/".
Result<std::string> RootOf(const ZipArchive& zip) {
  for (const std::string& name : zip.Names())
    if (name.ends_with("/data.pkl") && std::ranges::count(name, '/') == 1)
      return name.substr(0, name.find('/') + 1);
  return Fail(ErrorCode::kCorrupt, "not a file of torch.save: no data.pkl");
}

Result<void> ExpectLittleEndian(const ZipArchive& zip, const std::string& record) {
  if (!zip.Has(record)) return {};
  TRY_ASSIGN(const ZipArchive::Bytes bytes, zip.Read(record));
  const std::string_view order(reinterpret_cast<const char*>(bytes.view.data()), bytes.view.size());
  if (order == "little") return {};
  return Fail(ErrorCode::kUnsupported, "byte order '" + std::string(order.substr(0, 16)) + "'");
}

}  // namespace

Result<std::map<std::string, PickledTensor>> ReadPickle(std::span<const std::byte> pickle) {
  if (pickle.size() > kMaxPickleBytes) return Corrupt("is too long");
  return Machine(pickle).Run();
}

Result<std::map<std::string, StridedTensor>> ReadTorchSave(
    std::span<const std::byte> file, std::vector<std::vector<std::byte>>& inflated) {
  TRY_ASSIGN(const ZipArchive zip, ZipArchive::Open(file));
  TRY_ASSIGN(const std::string root, RootOf(zip));
  TRY(ExpectLittleEndian(zip, root + "byteorder"));
  TRY_ASSIGN(const ZipArchive::Bytes pickle, zip.Read(root + "data.pkl"));
  TRY_ASSIGN(const auto pickled, ReadPickle(pickle.view));
  std::map<std::string, std::span<const std::byte>> storages;
  std::map<std::string, StridedTensor> tensors;
  for (const auto& [name, tensor] : pickled) {
    const std::string& key = tensor.storage.key;
    if (!storages.contains(key)) {
      TRY_ASSIGN(ZipArchive::Bytes bytes, zip.Read(root + "data/" + key));
      storages[key] = bytes.view;
      if (!bytes.inflated.empty()) inflated.push_back(std::move(bytes.inflated));
    }
    tensors[name] = {tensor.storage.dtype_name,
                     tensor.storage.dtype,
                     tensor.shape,
                     tensor.strides,
                     tensor.offset,
                     storages[key]};
  }
  return tensors;
}

}  // namespace millpower::import::torch
