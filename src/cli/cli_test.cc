#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cli/commands.h"
#include "cli/config.h"
#include "cli/loader.h"
#include "cli/session.h"
#include "cli/size.h"
#include "cli/tensor_flags.h"

namespace millpower::cli {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

const fs::path kTiny = MILLPOWER_SOURCE_DIR "/tests/golden/tiny-tied";

// A folder that is removed again.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "cli_test.XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  fs::path Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return path_ / name;
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

TEST(Size, ReadsWhatPeopleWrite) {
  const std::pair<const char*, int64_t> cases[] = {
      {"0", 0},
      {"1048576", 1 << 20},
      {"12b", 12},
      {"1kB", 1000},
      {"2GB", 2'000'000'000},
      {"512MiB", 512 << 20},
      {"512mib", 512 << 20},
      {"3KiB", 3 << 10},
      {"4k", 4 << 10},
      {"4M", 4 << 20},
      {"1.5GiB", 3 << 29},
      {"0.5kb", 500},
      {"2g", int64_t{2} << 30},
      {"1e3", 1000},
  };
  for (const auto& [text, bytes] : cases) {
    const auto size = ParseSize(text);
    ASSERT_TRUE(size) << text;
    EXPECT_EQ(*size, bytes) << text;
  }
}

TEST(Size, RefusesWhatIsNone) {
  for (const char* text : {"", " ", "GB", "-1", "-0.5GB", "5 GB", "5GBs", "0x10", "1e30", "nan",
                           "inf", "1e10GB", "5,000", "+5"}) {
    const auto size = ParseSize(text);
    ASSERT_FALSE(size) << text;
    EXPECT_EQ(size.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(size.error().message, HasSubstr("'" + std::string(text) + "' is not a size"));
  }
}

TEST(Size, IsWrittenInUnitsThatFit) {
  EXPECT_EQ(FormatSize(0), "0 bytes");
  EXPECT_EQ(FormatSize(999), "999 bytes");
  EXPECT_EQ(FormatSize(1500), "1.5 kB");
  EXPECT_EQ(FormatSize(6'400'000), "6.4 MB");
  EXPECT_EQ(FormatSize(1'190'000'000), "1.19 GB");
  EXPECT_EQ(FormatSize(int64_t{2'500'000'000'000}), "2.5 TB");
}

// A subcommand with an option of each kind.
class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    serve_ = app_.add_subcommand("serve", "");
    serve_->add_option("--model", model_);
    serve_->add_option("--port", port_)->check(CLI::Range(0, 65535));
    serve_->add_option("--kv-memory", kv_memory_);
    serve_->add_option("--kv", kv_)->check(CLI::IsMember({"f32", "bf16"}));
    serve_->add_option("--share", share_);
    serve_->add_option("--key", keys_);
    serve_->add_flag("--quiet", quiet_);
    serve_->add_option("--config", config_);
  }
  // The error of "millpower serve FLAGS --config FILE", or nothing.
  std::string Apply(const std::string& flags, const std::string& toml) {
    folder_.Write("config.toml", toml);
    app_.parse("serve " + flags, false);
    const auto applied = ApplyConfig(*serve_, path_);
    if (applied) return "";
    EXPECT_EQ(applied.error().code, ErrorCode::kInvalidArgument);
    return applied.error().message;
  }
  std::string At(int line) const { return path_.string() + ":" + std::to_string(line) + ": "; }

  const Folder folder_;
  const fs::path path_ = folder_.path() / "config.toml";
  CLI::App app_;
  CLI::App* serve_ = nullptr;
  std::string model_ = "default", kv_memory_, kv_ = "bf16", config_;
  int port_ = 8080;
  double share_ = 0;
  std::vector<std::string> keys_;
  bool quiet_ = false;
};

TEST_F(ConfigTest, SetsWhatNoFlagDid) {
  EXPECT_EQ(Apply("--port 9", R"(# all of it
model = "models/demo"
port = 80
kv_memory = "2GiB"
kv = "f32"
share = 0.25
key = ["a", "b"]
quiet = true
)"),
            "");
  EXPECT_EQ(model_, "models/demo");
  EXPECT_EQ(port_, 9);  // the flag has the last word
  EXPECT_EQ(kv_memory_, "2GiB");
  EXPECT_EQ(kv_, "f32");
  EXPECT_EQ(share_, 0.25);
  EXPECT_EQ(keys_, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(quiet_);
}

TEST_F(ConfigTest, LeavesTheRestAsItIs) {
  EXPECT_EQ(Apply("", ""), "");
  EXPECT_EQ(Apply("", "quiet = false\nkv-memory = \"1GB\"\n"), "");
  EXPECT_EQ(model_, "default");
  EXPECT_EQ(port_, 8080);
  EXPECT_EQ(kv_memory_, "1GB");
  EXPECT_FALSE(quiet_);
}

TEST_F(ConfigTest, NamesASettingThereIsNot) {
  EXPECT_EQ(Apply("", "model = \"m\"\n\nprot = 80\n"), At(3) + "there is no setting 'prot'");
}

TEST_F(ConfigTest, NamesATable) {
  EXPECT_EQ(Apply("", "\n[server]\nport = 80\n"), At(2) + "there is no setting 'server'");
}

TEST_F(ConfigTest, CannotNameAnotherFile) {
  EXPECT_EQ(Apply("", "config = \"other.toml\"\n"), At(1) + "there is no setting 'config'");
}

TEST_F(ConfigTest, ChecksValuesAsFlagsAreChecked) {
  EXPECT_THAT(Apply("", "model = \"m\"\nport = 70000\n"),
              testing::AllOf(testing::StartsWith(At(2)), HasSubstr("70000")));
}

TEST_F(ConfigTest, RefusesAnotherType) {
  EXPECT_THAT(Apply("", "port = \"eighty\"\n"),
              testing::AllOf(testing::StartsWith(At(1)), HasSubstr("eighty")));
}

TEST_F(ConfigTest, RefusesAValueThatIsNoChoice) {
  EXPECT_THAT(Apply("", "kv = \"int3\"\n"), testing::AllOf(HasSubstr(At(1)), HasSubstr("int3")));
}

TEST_F(ConfigTest, RefusesWhatIsNotAPlainValue) {
  EXPECT_EQ(Apply("", "model = 1979-05-27\n"), At(1) + "'model' is not a plain value");
  EXPECT_EQ(Apply("", "model = [[1], 2]\n"), At(1) + "'model' is not a plain value");
}

TEST_F(ConfigTest, SaysWhereTomlBreaks) {
  EXPECT_THAT(Apply("", "model = \"m\"\nport = = 80\n"), HasSubstr(At(2)));
}

TEST_F(ConfigTest, NamesAMissingFile) {
  app_.parse("serve", false);
  const auto applied = ApplyConfig(*serve_, folder_.path() / "none.toml");
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(applied.error().message, HasSubstr("none.toml"));
}

TEST(Flags, BecomeOptions) {
  ModelFlags flags;
  auto options = ToLoadOptions(flags);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->compile.weight_type, std::nullopt);
  EXPECT_EQ(options->compile.kv_type, std::nullopt);
  EXPECT_EQ(options->chat_format, std::nullopt);
  EXPECT_GE(options->threads, 1);
  flags = {
      .weights = "bf16", .kv = "f32", .chat_format = "chatml", .kernels = "auto", .threads = 3};
  options = ToLoadOptions(flags);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->compile.weight_type, DType::kBf16);
  EXPECT_EQ(options->compile.kv_type, DType::kF32);
  EXPECT_EQ(options->chat_format, text::ChatFormat::kChatMl);
  EXPECT_EQ(options->threads, 3);
  flags.chat_format = "morse";
  EXPECT_FALSE(ToLoadOptions(flags));
  flags = {.weights = "int8", .kv = "int8", .chat_format = ""};
  options = ToLoadOptions(flags);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->compile.weight_type, DType::kQ8_0);
  EXPECT_EQ(options->compile.kv_type, DType::kI8);
  flags.weights = "int4";
  EXPECT_EQ(ToLoadOptions(flags)->compile.weight_type, DType::kQ4_0);
  flags.weights = "q4_0";  // not one of our words
  EXPECT_EQ(ToLoadOptions(flags).error().param, "weights");
  flags = {.kv = "int4", .chat_format = ""};
  EXPECT_EQ(ToLoadOptions(flags).error().param, "kv");
}

TEST(Flags, TheAdminKeyIsReadWithoutBlanks) {
  const Folder folder;
  ::unsetenv("MILLPOWER_ADMIN_KEY");
  EXPECT_EQ(ReadAdminKey("").value(), "");
  ::setenv("MILLPOWER_ADMIN_KEY", "of the environment", 1);
  EXPECT_EQ(ReadAdminKey("").value(), "of the environment");
  EXPECT_EQ(ReadAdminKey(folder.Write("key", " secret of a file\n")).value(), "secret of a file");
  ::unsetenv("MILLPOWER_ADMIN_KEY");
  EXPECT_EQ(ReadAdminKey(folder.Write("blank", "\n \n")).error().param, "admin-key-file");
  EXPECT_EQ(ReadAdminKey(folder.path() / "none").error().code, ErrorCode::kNotFound);
}

LoadOptions Quiet() {
  LoadOptions options;
  options.chat_format = text::ChatFormat::kQwen3;
  options.show_progress = false;
  return options;
}

Error LoadError(const fs::path& path, const LoadOptions& options = Quiet()) {
  const auto model = LoadModel(path, options);
  EXPECT_FALSE(model) << path;
  return model ? Error{} : model.error();
}

TEST(Load, NamesWhatIsMissing) {
  const Folder folder;
  EXPECT_EQ(LoadError(folder.path() / "none").code, ErrorCode::kNotFound);
  EXPECT_THAT(LoadError(folder.path() / "none").message, HasSubstr("none does not exist"));
  EXPECT_EQ(LoadError(folder.path()).code, ErrorCode::kNotFound);
  EXPECT_THAT(LoadError(folder.path()).message, HasSubstr("no config.json"));
}

TEST(Load, RefusesAFileThatIsNoModel) {
  const Folder folder;
  for (const char* text : {"", "hello", "MILLPOW"}) {
    const Error error = LoadError(folder.Write("file", text));
    EXPECT_EQ(error.code, ErrorCode::kUnsupported);
    EXPECT_THAT(error.message, HasSubstr("neither a compiled model nor a model folder"));
  }
  EXPECT_EQ(LoadError(folder.Write("file", "MILLPOWR")).code, ErrorCode::kCorrupt);
}

TEST(Load, NeedsATokenizerAndAChatFormat) {
  const Folder folder;
  const fs::path copy = folder.path() / "copy";
  fs::copy(kTiny, copy);
  fs::remove(copy / "tokenizer_config.json");
  LoadOptions options = Quiet();
  EXPECT_TRUE(LoadModel(copy, options));
  options.chat_format.reset();
  EXPECT_EQ(LoadError(copy, options).code, ErrorCode::kUnsupported);
  EXPECT_THAT(LoadError(copy, options).message, HasSubstr("--chat-format"));
  std::ofstream(copy / "tokenizer_config.json") << R"({"chat_template": "{{ messages }}"})";
  EXPECT_EQ(LoadError(copy, options).code, ErrorCode::kUnsupported);
  fs::remove(copy / "tokenizer.json");
  EXPECT_EQ(LoadError(copy).code, ErrorCode::kNotFound);
  EXPECT_THAT(LoadError(copy).message, HasSubstr("no tokenizer.json"));
}

Result<void> WriteCompiled(const fs::path& file, const ImportedModel& imported,
                           const LoadedModel& packed) {
  return isa::WritePackage(file, imported.compiled.program, imported.texts,
                           [&](int32_t id) -> Result<std::span<const std::byte>> {
                             return packed.weights.by_buffer[static_cast<size_t>(id)];
                           },
                           {});
}

TEST(Load, AFolderAndWhatItCompilesToAreOneModel) {
  const Folder folder;
  LoadOptions options = Quiet();
  options.compile = {.weight_type = DType::kBf16, .kv_type = DType::kF32};
  const auto direct = LoadModel(kTiny.string() + "/", options);
  ASSERT_TRUE(direct) << direct.error().message;
  EXPECT_EQ(direct->name, "tiny-tied");
  const auto imported = ImportModel(kTiny, options);
  ASSERT_TRUE(imported) << imported.error().message;
  const fs::path file = folder.path() / "small.mill";
  const auto written = WriteCompiled(file, *imported, *direct);
  ASSERT_TRUE(written) << written.error().message;
  const auto compiled = LoadModel(file, Quiet());
  ASSERT_TRUE(compiled) << compiled.error().message;
  EXPECT_EQ(*compiled->program, *direct->program);
  EXPECT_EQ(compiled->tokenizer->vocab_size(), direct->tokenizer->vocab_size());
  EXPECT_EQ(compiled->generation.eos_token_ids, direct->generation.eos_token_ids);
  for (size_t i = 0; i < direct->weights.by_buffer.size(); ++i)
    EXPECT_TRUE(std::ranges::equal(compiled->weights.by_buffer[i], direct->weights.by_buffer[i]));

  // Its types are settled: the same may be asked for, others not.
  EXPECT_TRUE(LoadModel(file, options));
  LoadOptions other = options;
  other.compile.weight_type = DType::kF32;
  EXPECT_EQ(LoadError(file, other).code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(LoadError(file, other).param, "weights");
  EXPECT_THAT(LoadError(file, other).message, HasSubstr("compiled with --weights bf16"));
  other = options;
  other.compile.kv_type = DType::kBf16;
  EXPECT_EQ(LoadError(file, other).param, "kv");
}

// Routers stay floats where blocks are asked for, which is no contradiction.
TEST(Load, AskingAgainForACompiledModelWithExperts) {
  const Folder folder;
  const fs::path moe = MILLPOWER_SOURCE_DIR "/tests/golden/tiny-moe";
  const fs::path file = folder.path() / "moe.mill";
  LoadOptions int8 = Quiet(), int4 = Quiet(), bf16 = Quiet();
  int8.compile.weight_type = DType::kQ8_0;
  int4.compile.weight_type = DType::kQ4_0;
  bf16.compile.weight_type = DType::kBf16;
  const auto imported = ImportModel(moe, int8);
  const auto packed = LoadModel(moe, int8);
  ASSERT_TRUE(imported && packed);
  ASSERT_TRUE(WriteCompiled(file, *imported, *packed));
  EXPECT_TRUE(LoadModel(file, int8));
  EXPECT_TRUE(LoadModel(file, Quiet()));
  EXPECT_THAT(LoadError(file, int4).message, HasSubstr("compiled with --weights int8"));
  EXPECT_THAT(LoadError(file, bf16).message, HasSubstr("compiled with --weights int8"));
}

TEST(Load, TellsWhatIsStoredOtherwiseUnlessAskedFor) {
  const fs::path f16 = MILLPOWER_SOURCE_DIR "/tests/golden/tiny-f16";
  const auto widened = ImportModel(f16, Quiet());
  ASSERT_TRUE(widened);
  EXPECT_THAT(widened->notes, Contains(HasSubstr("tensors of f16 are stored as f32, such as")));
  LoadOptions asked = Quiet();
  asked.compile.weight_type = DType::kF32;
  const auto as_asked = ImportModel(f16, asked);
  ASSERT_TRUE(as_asked);
  EXPECT_THAT(as_asked->notes, Not(Contains(HasSubstr("are stored"))));
}

TEST(Load, ShapesNeedNoWeights) {
  const auto published = ImportShape("qwen3-0.6b", Quiet());
  ASSERT_TRUE(published) << published.error().message;
  EXPECT_EQ(published->compiled.program.FactOr("layers", 0), 28);
  const auto config = ImportShape(kTiny / "config.json", Quiet());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->weights, nullptr);
  const auto unknown = ImportShape("qwen3-7t", Quiet());
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(unknown.error().message, HasSubstr("qwen3-0.6b, "));
}

TEST(TensorFlags, PoliciesAreOfOneModelOrOfAll) {
  using Kind = import::IdPolicy::Kind;
  TensorFlags flags;
  flags.features = {"item=clamp", "ranker/item=hash", "org/tower/user=default:3", "a/b=error"};
  const auto options = ToTensorLoadOptions(flags, {});
  ASSERT_TRUE(options) << options.error().message;
  const std::vector<std::string> names = {"ranker", "org/tower"};
  const auto ranker = PoliciesFor("ranker", names, options->import.id_policies);
  EXPECT_EQ(ranker.size(), 2u);
  EXPECT_EQ(ranker.at("item").kind, Kind::kHash);
  EXPECT_EQ(ranker.at("a/b").kind, Kind::kError);  // an input's own name
  const auto tower = PoliciesFor("org/tower", names, options->import.id_policies);
  EXPECT_EQ(tower.size(), 3u);
  EXPECT_EQ(tower.at("item").kind, Kind::kClamp);
  EXPECT_EQ(tower.at("user").row, 3);
}

TEST(Session, NamesAModelByItsPath) {
  const Folder folder;
  const std::string part = folder.Write("big-00001-of-00003.gguf", "");
  EXPECT_EQ(DefaultModelName(part), "big");
  EXPECT_EQ(DefaultModelName(folder.Write("small.mill", "")), "small");
  EXPECT_EQ(DefaultModelName(kTiny), "tiny-tied");
  EXPECT_EQ(DefaultModelName(kTiny.string() + "/"), "tiny-tied");
  EXPECT_EQ(DefaultModelName("somewhere/Qwen3-0.6B"), "Qwen3-0.6B");
}

// Both run on one device, and one goes while the other stays.
TEST(Session, SeveralShareADevice) {
  SessionOptions options;
  options.load = Quiet();
  options.kv_memory_bytes = 1 << 20;
  auto device = MakeDevice(options);
  ASSERT_TRUE(device);
  auto first = StartSession(*device, kTiny, options);
  options.in_background = true;
  std::vector<int64_t> progress;
  options.load.on_progress = [&](int64_t done, int64_t) { progress.push_back(done); };
  auto second = StartSession(*device, kTiny, options);
  ASSERT_TRUE(first && second);
  EXPECT_FALSE(progress.empty());
  EXPECT_EQ(first->kv_bytes, second->kv_bytes);
  EXPECT_GT(first->weights_bytes, 0);
  EXPECT_FALSE(StartSession(*device, "/none", options));
}

TEST(Session, KvMemoryBoundsTheContext) {
  SessionOptions options;
  options.load = Quiet();
  options.kv_memory_bytes = 1 << 20;
  auto session = StartSession(kTiny, options);
  ASSERT_TRUE(session) << session.error().message;
  EXPECT_EQ(session->engine->limits().max_model_len, 512);
  const int64_t page_bytes = device::KvPageBytes(*session->model.program);

  options.kv_memory_bytes = 3 * page_bytes - 1;  // two pages
  session = StartSession(kTiny, options);
  ASSERT_TRUE(session) << session.error().message;
  EXPECT_EQ(session->engine->limits().max_model_len, 32);

  options.max_model_len = 33;
  session = StartSession(kTiny, options);
  ASSERT_FALSE(session);
  EXPECT_EQ(session.error().code, ErrorCode::kNoCapacity);
  EXPECT_THAT(session.error().message,
              HasSubstr("33 tokens takes 3 pages of " + std::to_string(page_bytes) + " bytes"));
  options.max_model_len = 0;
  options.kv_memory_bytes = page_bytes - 1;
  session = StartSession(kTiny, options);
  ASSERT_FALSE(session);
  EXPECT_EQ(session.error().code, ErrorCode::kNoCapacity);

  options.max_model_len = 513;
  session = StartSession(kTiny, options);
  ASSERT_FALSE(session);
  EXPECT_EQ(session.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(session.error().param, "max-model-len");
  SessionOptions other;
  other.load = Quiet();
  other.kernels = "abacus";
  EXPECT_FALSE(StartSession(kTiny, other));
}

}  // namespace
}  // namespace millpower::cli
