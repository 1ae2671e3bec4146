// millpower worker MODEL: runs one model for the process that started it, by its standard input and
// output. What python/millpower talks to.
//
// Either side sends frames: u32 length of the header, little-endian; the header, JSON; the bytes of
// its arrays, one after the other. The first frame is the worker's:
//   {"ready": true, "inputs": [{"name", "dtype", "shape"}], "outputs": [...]}, or
//   {"error": "...", "unsupported": whether the model holds what cannot be run}
// then for each request {"inputs": [{"name", "shape", "bytes": N}]} it answers
//   {"outputs": [{"name", "dtype", "shape", "bytes": N}]} or {"error": "..."}
// until its standard input ends.
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/tensor_flags.h"
#include "cli/tensor_session.h"

namespace millpower::cli {
namespace {

constexpr uint32_t kMaxHeaderBytes = 16 << 20;
constexpr int64_t kMaxArrayBytes = int64_t{1} << 36;

struct Flags {
  std::string model;
  TensorFlags tensor;
  ModelFlags shared;
};

std::unexpected<Error> Bad(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

// False at the end of input.
Result<bool> ReadFull(void* to, size_t size) {
  auto* at = static_cast<char*>(to);
  for (size_t done = 0; done < size;) {
    const ssize_t got = ::read(STDIN_FILENO, at + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Fail(ErrorCode::kIo, std::string("reading: ") + std::strerror(errno));
    if (got == 0 && done == 0) return false;
    if (got == 0) return Fail(ErrorCode::kIo, "the input ends within a frame");
    done += static_cast<size_t>(got);
  }
  return true;
}

Result<void> WriteFull(const void* from, size_t size) {
  const auto* at = static_cast<const char*>(from);
  for (size_t done = 0; done < size;) {
    const ssize_t put = ::write(STDOUT_FILENO, at + done, size - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return Fail(ErrorCode::kIo, std::string("writing: ") + std::strerror(errno));
    done += static_cast<size_t>(put);
  }
  return {};
}

Result<void> WriteHeader(const Json& header) {
  const std::string text = DumpJson(header);
  const auto length = static_cast<uint32_t>(text.size());
  TRY(WriteFull(&length, sizeof length));
  return WriteFull(text.data(), text.size());
}

Json Describe(const std::vector<ranking::Port>& ports) {
  Json list = Json::array();
  for (const ranking::Port& port : ports) {
    Json shape = Json::array();
    for (const Size& size : port.shape) {
      if (const auto constant = size.Constant()) {
        shape.push_back(*constant);
      } else {
        shape.push_back(size.ToString());
      }
    }
    list.push_back({{"name", port.name},
                    {"dtype", port.is_string ? "string" : Name(port.dtype)},
                    {"shape", std::move(shape)}});
  }
  return list;
}

// The arrays of one request, and the memory they lie in.
struct Arrays {
  std::vector<std::vector<std::byte>> bytes;
};

Result<ranking::Request> ReadArrays(const ranking::Signature& signature, const Json& header) {
  if (!header.contains("inputs") || !header["inputs"].is_array()) return Bad("no inputs");
  ranking::Request request;
  request.inputs.resize(signature.inputs.size());
  const auto arrays = std::make_shared<Arrays>();
  std::string fault;  // all bytes are read even so, so that the next frame is found
  for (const Json& entry : header["inputs"]) {
    if (!entry.is_object() || !entry.contains("bytes") || !entry["bytes"].is_number_integer() ||
        entry["bytes"].get<int64_t>() < 0 || entry["bytes"].get<int64_t>() > kMaxArrayBytes)
      return Fail(ErrorCode::kIo, "an input does not say how many bytes it has");
    std::vector<std::byte>& bytes = arrays->bytes.emplace_back(entry["bytes"].get<size_t>());
    TRY_ASSIGN(const bool more, ReadFull(bytes.data(), bytes.size()));
    if (!more && !bytes.empty()) return Fail(ErrorCode::kIo, "the input ends within a frame");
    const std::string name = entry.value("name", "");
    const int at = signature.FindInput(name);
    if (at < 0 || !entry.contains("shape") || !entry["shape"].is_array()) {
      fault = "no input '" + name + "', or it has no shape";
      continue;
    }
    ranking::InputTensor& input = request.inputs[static_cast<size_t>(at)];
    for (const Json& size : entry["shape"])
      input.shape.push_back(size.is_number_integer() ? size.get<int64_t>() : -1);
    input.bytes = bytes;
  }
  if (!fault.empty()) return Bad(fault);
  request.owner = arrays;
  return request;
}

Result<void> Answer(TensorSession& session, Result<ranking::Request> request) {
  if (!request) return WriteHeader({{"error", request.error().message}});
  const Result<ranking::Answer> answer = session.Ask(*std::move(request));
  if (!answer) return WriteHeader({{"error", answer.error().message}});
  Json outputs = Json::array();
  for (size_t i = 0; i < answer->outputs.size(); ++i) {
    const ranking::Port& port = session.signature().outputs[i];
    outputs.push_back({{"name", port.name},
                       {"dtype", Name(port.dtype)},
                       {"shape", answer->outputs[i].shape},
                       {"bytes", answer->outputs[i].bytes.size()}});
  }
  TRY(WriteHeader({{"outputs", std::move(outputs)}}));
  for (const ranking::OutputTensor& output : answer->outputs)
    TRY(WriteFull(output.bytes.data(), output.bytes.size()));
  return {};
}

Result<void> ServeFrames(TensorSession& session) {
  for (;;) {
    uint32_t length = 0;
    TRY_ASSIGN(const bool more, ReadFull(&length, sizeof length));
    if (!more) return {};
    if (length > kMaxHeaderBytes) return Bad("a header of " + std::to_string(length) + " bytes");
    std::string text(length, '\0');
    TRY_ASSIGN(const bool complete, ReadFull(text.data(), text.size()));
    if (!complete) return Bad("the input ends within a frame");
    TRY_ASSIGN(const Json header, ParseJson(text));
    Result<ranking::Request> request = ReadArrays(session.signature(), header);
    if (!request && request.error().code == ErrorCode::kIo)
      return std::unexpected(std::move(request).error());
    TRY(Answer(session, std::move(request)));
  }
}

Result<void> Work(const Flags& flags) {
  const auto start = [&]() -> Result<TensorSession> {
    TRY_ASSIGN(const TensorLoadOptions options, ToTensorLoadOptions(flags.tensor, flags.shared));
    return TensorSession::Start(
        flags.model, {.load = options, .kernels = flags.shared.kernels, .warm_up = true});
  };
  auto session = start();
  if (!session) {
    const bool unsupported = session.error().code == ErrorCode::kUnsupported;
    TRY(WriteHeader({{"error", session.error().message}, {"unsupported", unsupported}}));
    return std::unexpected(session.error());
  }
  TRY(WriteHeader({{"ready", true},
                   {"inputs", Describe(session->signature().inputs)},
                   {"outputs", Describe(session->signature().outputs)}}));
  return ServeFrames(*session);
}

}  // namespace

Command AddWorker(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "worker", "Run a model for another program, by standard input and output (docs/python.md)");
  command
      ->add_option("model", flags->model,
                   ".onnx or .pt2 file, SavedModel folder, or a compiled file of one")
      ->required();
  AddTensorFlags(*command, flags->tensor);
  AddDeviceFlags(*command, flags->shared);
  return [flags] { return Work(*flags); };
}

}  // namespace millpower::cli
