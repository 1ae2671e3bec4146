// Zip archives, pickles and exported programs for tests, sound or not.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace millpower::import::torch {

inline std::span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A number in `size` bytes, little-endian.
inline std::string Little(uint64_t value, int size) {
  std::string bytes;
  for (int i = 0; i < size; ++i) bytes += static_cast<char>((value >> (8 * i)) & 255);
  return bytes;
}

// A zip archive (PKWARE's APPNOTE.TXT, without Zip64), each field of which a test may spoil.
class ZipBuilder {
 public:
  struct Record {
    std::string name, bytes;
    bool deflates = false;
    uint16_t flags = 0;
    std::optional<uint16_t> method = std::nullopt;
    std::optional<uint32_t> checksum = std::nullopt, size = std::nullopt,
                            local_offset = std::nullopt;
  };
  std::vector<Record> records;

  ZipBuilder& Add(const std::string& name, const std::string& bytes, bool deflates = false) {
    records.push_back({.name = name, .bytes = bytes, .deflates = deflates});
    return *this;
  }

  std::string Build() const {
    std::string file, directory;
    for (const Record& record : records) {
      const std::string stored = record.deflates ? Deflated(record.bytes) : record.bytes;
      const auto* data = reinterpret_cast<const Bytef*>(record.bytes.data());
      const uint32_t sum = record.checksum.value_or(
          static_cast<uint32_t>(crc32(0, data, static_cast<uInt>(record.bytes.size()))));
      const std::string fields =
          Little(record.flags, 2) + Little(record.method.value_or(record.deflates ? 8 : 0), 2) +
          Little(0, 4) + Little(sum, 4) + Little(stored.size(), 4) +
          Little(record.size.value_or(static_cast<uint32_t>(record.bytes.size())), 4) +
          Little(record.name.size(), 2) + Little(0, 2);
      directory += "PK\x01\x02" + Little(20, 2) + Little(20, 2) + fields + Little(0, 2) +
                   Little(0, 2) + Little(0, 2) + Little(0, 4) +
                   Little(record.local_offset.value_or(static_cast<uint32_t>(file.size())), 4) +
                   record.name;
      file += "PK\x03\x04" + Little(20, 2) + fields + record.name + stored;
    }
    return file + directory + "PK\x05\x06" + Little(0, 4) + Little(records.size(), 2) +
           Little(records.size(), 2) + Little(directory.size(), 4) + Little(file.size(), 4) +
           Little(0, 2);
  }

 private:
  static std::string Deflated(const std::string& bytes) {
    z_stream stream = {};
    deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    std::string out(deflateBound(&stream, bytes.size()), '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream.avail_in = static_cast<uInt>(bytes.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    deflate(&stream, Z_FINISH);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
  }
};

// ---- pieces of pickles ----

inline std::string PickledText(const std::string& text) {
  return "X" + Little(text.size(), 4) + text;
}
inline std::string PickledInt(int64_t value) {
  return "\x8a\x08" + Little(static_cast<uint64_t>(value), 8);
}
inline std::string PickledInts(const std::vector<int64_t>& values) {
  std::string tuple = "(";
  for (const int64_t value : values) tuple += PickledInt(value);
  return tuple + "t";
}
// A tensor as torch.save writes it.
inline std::string PickledTensorOf(const std::string& key, const std::vector<int64_t>& shape,
                                   const std::vector<int64_t>& strides, int64_t offset,
                                   int64_t elements, const std::string& type = "FloatStorage") {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + PickledText("storage") + "ctorch\n" + type +
         "\n" + PickledText(key) + PickledText("cpu") + PickledInt(elements) + "tQ" +
         PickledInt(offset) + PickledInts(shape) + PickledInts(strides) +
         "\x89"
         "ccollections\nOrderedDict\n)RtR";
}
inline std::string Pickle(const std::string& body) { return "\x80\x02" + body + "."; }

// ---- exported programs ----

// The JSON of a program whose graph has the input x [s0, 2] f32, the parameter w [2, 2], these
// nodes, and this output. Every value is described as f32 [s0, 2] unless `values` says otherwise.
struct ProgramBuilder {
  std::string nodes;  // comma separated
  std::string output = "y";
  std::string values;  // more of tensor_values, each with a comma in front
  std::string sym_ints, output_specs, ranges;
  int major = 8;

  static std::string Meta(const std::string& sizes, int dtype = 7) {
    return R"({"dtype":)" + std::to_string(dtype) + R"(,"sizes":[)" + sizes +
           R"(],"requires_grad":false,
      "device":{"type":"cpu","index":null},"strides":[],"storage_offset":{"as_int":0},"layout":7})";
  }
  static std::string Symbol(const std::string& expression) {
    return R"({"as_expr":{"expr_str":")" + expression + R"(","hint":null}})";
  }
  static std::string Int(int64_t value) { return R"({"as_int":)" + std::to_string(value) + "}"; }
  static std::string Rows() { return Symbol("s0") + "," + Int(2); }
  static std::string TensorArgument(const std::string& name, const std::string& value) {
    return R"({"name":")" + name + R"(","arg":{"as_tensor":{"name":")" + value + R"("}}})";
  }
  static std::string Argument(const std::string& name, const std::string& value) {
    return R"({"name":")" + name + R"(","arg":)" + value + "}";
  }
  static std::string Node(const std::string& target, const std::string& inputs,
                          const std::string& output) {
    return R"({"target":")" + target + R"(","inputs":[)" + inputs +
           R"(],"outputs":[{"as_tensor":{"name":")" + output +
           R"("}}],"metadata":{"stack_trace":"x"},"future_field":1,"name":")" + output + R"("})";
  }

  std::string Build() const {
    const std::string specs =
        output_specs.empty()
            ? R"({"user_output":{"arg":{"as_tensor":{"name":")" + output + R"("}}}})"
            : output_specs;
    return R"({"graph_module":{"graph":{"inputs":[],"outputs":[],"nodes":[)" + nodes +
           R"(],"tensor_values":{"x":)" + Meta(Rows()) + R"(,"w":)" + Meta(Int(2) + "," + Int(2)) +
           values + R"(},"sym_int_values":{)" + sym_ints +
           R"(},"sym_bool_values":{}},"signature":{"input_specs":[
             {"parameter":{"arg":{"name":"w"},"parameter_name":"linear.weight"}},
             {"user_input":{"arg":{"as_tensor":{"name":"x"}}}}],"output_specs":[)" +
           specs +
           R"(]},"module_call_graph":[]},"opset_version":{"aten":10},"range_constraints":{)" +
           ranges + R"(},"schema_version":{"major":)" + std::to_string(major) +
           R"(,"minor":99},"torch_version":"test"})";
  }
};

// A whole .pt2 file of the flat layout with this program, linear.weight being [[1, 2], [3, 4]].
inline std::string FlatFile(const std::string& program) {
  const float weights[] = {1, 2, 3, 4};
  std::string data(sizeof(weights), '\0');
  std::memcpy(data.data(), weights, sizeof(weights));
  const std::string dict = Pickle("}(" + PickledText("linear.weight") +
                                  PickledTensorOf("0", {2, 2}, {2, 1}, 0, 4) + "u");
  const std::string saved =
      ZipBuilder().Add("archive/data.pkl", dict).Add("archive/data/0", data).Build();
  return ZipBuilder()
      .Add("serialized_exported_program.json", program, true)
      .Add("serialized_state_dict.pt", saved)
      .Add("version", "8.2")
      .Build();
}

}  // namespace millpower::import::torch
