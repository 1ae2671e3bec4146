// Any body, header and path must be refused, or become a request that fits its model. The first
// byte chooses what is read.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "serve/inference/compression.h"
#include "serve/inference/kserve.h"
#include "serve/inference/protocol.h"
#include "serve/inference/table_rows.h"
#include "serve/inference/test_models.h"
#include "serve/inference/tfserving.h"

namespace millpower::serve {
namespace {

constexpr size_t kUnpackedMax = 1 << 20;

struct Models {
  SystemClock clock;
  ranking::FakeDevice device{RunFakeModels};
  ranking::Engine engine{device, clock};
  std::vector<ranking::ModelPtr> all;

  Models() {
    for (auto loading :
         {ranking::FakeRecommender("rec"), FakeClassifier("cls"), FakeRegressor("reg")})
      all.push_back(engine.Load(std::move(loading)).value());
  }
};

// An answer of the shapes that the engine would give.
void Reply(const ranking::ModelPtr& model, const InferenceCall& call) {
  const int64_t rows =
      std::min<int64_t>(ranking::RowsOf(*model, call.request.inputs).value_or(1), 16);
  ranking::Answer answer{.outputs = {}, .owner = nullptr, .rows = rows};
  const std::vector<std::byte> bytes(1024);
  for (const ranking::Port& port : model->signature.outputs) {
    std::vector<int64_t> shape = {rows};
    if (port.shape.size() > 1) shape.push_back(port.shape[1].Constant().value());
    size_t size = static_cast<size_t>(SizeBytes(port.dtype));
    for (const int64_t each : shape) size *= static_cast<size_t>(each);
    answer.outputs.push_back({shape, std::span(bytes).first(size)});
  }
  CHECK(!call.reply(answer).body.empty());
}

void Read(const ranking::ModelPtr& model, uint8_t what, std::string_view header, std::string body) {
  const auto store = std::make_shared<TensorStore>();
  store->body = std::move(body);
  const auto call = what % 4 == 0   ? kserve::ReadInfer(model, store, header)
                    : what % 4 == 1 ? tfserving::ReadPredict(model, store)
                    : what % 4 == 2 ? tfserving::ReadClassify(model, store)
                                    : tfserving::ReadRegress(model, store);
  CHECK(call || !call.error().message.empty());
  if (!call) return;
  CHECK(call->request.inputs.size() == model->signature.inputs.size());
  CHECK(call->timeout_us >= 0 && call->priority >= 0);
  Reply(model, *call);
}

// Either form: rows and values that fit each other and the table.
void ReadRows(std::string_view body) {
  const ranking::Table table{.name = "t", .rows = 10, .columns = 3};
  for (const char* type : {"application/json", "application/octet-stream"}) {
    const auto read = ReadTableRows(body, type, table);
    CHECK(read || !read.error().message.empty());
    CHECK(!read || read->values.size() % 3 == 0);
  }
}

}  // namespace
}  // namespace millpower::serve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millpower::serve;
  static Models* const models = new Models;
  if (size < 2) return 0;
  const std::string text(reinterpret_cast<const char*>(data + 2), size - 2);
  const std::string header = data[1] == 0 ? "" : std::to_string(data[1]);
  Read(models->all[data[0] / 4 % models->all.size()], data[0], header, text);
  ReadRows(text);
  for (const Coding coding : {Coding::kGzip, Coding::kDeflate}) {
    const auto unpacked = Decompress(text, coding, kUnpackedMax);
    CHECK(!unpacked || unpacked->size() <= kUnpackedMax);
  }
  constexpr std::string_view kVerbs[] = {"infer", "ready"};
  (void)ReadModelPath(text, kVerbs);
  (void)ReadColonPath(text);
  (void)ReadTablePath(text);
  (void)ReadCoding(text);
  (void)ChooseCoding(text);
  (void)DecodeBase64(text);
  return 0;
}
