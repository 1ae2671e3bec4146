#include "import/hf/folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "import/hf/config.h"
#include "import/hf/test_folder.h"

namespace millpower::import {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class HfFolderTest : public ::testing::Test {
 protected:
  HfFolderTest() {
    folder.Write("config.json", DumpJson(SmallConfig()));
    tensors = TensorsOf(BuildQwen3Graph(ParseQwen3Config(DumpJson(SmallConfig())).value()).value());
    WriteWeights();
    folder.Write("tokenizer.json", "{}");
    folder.Write("tokenizer_config.json", R"({"chat_template": "{{ messages }}"})");
  }

  void WriteWeights() { folder.Write("model.safetensors", SafetensorsFile(tensors)); }
  Model Opened() {
    auto opened = OpenHfFolder(folder.path());
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? *std::move(opened) : Model();
  }
  std::string Failure() {
    const auto opened = OpenHfFolder(folder.path());
    return opened ? "" : opened.error().message;
  }

  TestFolder folder;
  std::map<std::string, std::vector<int64_t>> tensors;
};

TEST_F(HfFolderTest, OpensWithAllItHas) {
  folder.Write("generation_config.json", R"({"eos_token_id": [7, 8], "repetition_penalty": 1.1})");
  tensors["lm_head.weight"] = {96, 32};  // a copy of the tied embedding, not needed
  WriteWeights();
  const Model opened = Opened();
  EXPECT_EQ(opened.config.layers, 2);
  EXPECT_THAT(opened.generation.eos_token_ids, ElementsAre(7, 8));
  EXPECT_EQ(opened.tokenizer_json, "{}");
  EXPECT_EQ(opened.chat_template, "{{ messages }}");
  EXPECT_THAT(opened.notes, ElementsAre("repetition_penalty 1.1 is not applied"));
  EXPECT_TRUE(opened.BuildGraph({.max_rows = 16}));
}

TEST_F(HfFolderTest, DoesWithoutWhatMayBeAbsent) {
  folder.Remove("tokenizer.json");
  folder.Remove("tokenizer_config.json");
  const Model opened = Opened();
  EXPECT_THAT(opened.generation.eos_token_ids, ElementsAre(7));  // config.json's
  EXPECT_EQ(opened.tokenizer_json, "");
  EXPECT_THAT(opened.notes,
              ElementsAre(HasSubstr("no tokenizer.json"), HasSubstr("no chat template")));
}

TEST_F(HfFolderTest, FindsTheChatTemplateWhereverItIs) {
  folder.Write("tokenizer_config.json",
               R"({"chat_template": [{"name": "tool_use", "template": "t"},
                                     {"name": "default", "template": "d"}]})");
  EXPECT_EQ(Opened().chat_template, "d");
  folder.Write("chat_template.jinja", "file");
  EXPECT_EQ(Opened().chat_template, "file");
  folder.Remove("chat_template.jinja");
  folder.Write("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THAT(Failure(), HasSubstr("tokenizer_config.json: chat_template is neither"));
}

TEST_F(HfFolderTest, SaysWhatIsWrong) {
  EXPECT_THAT(OpenHfFolder(folder.path() / "gone").error().message, HasSubstr("does not exist"));
  EXPECT_THAT(OpenHfFolder(folder.path() / "config.json").error().message,
              HasSubstr("is not a folder"));
  tensors.erase("model.norm.weight");
  tensors["model.layers.0.self_attn.q_norm.weight"] = {8};
  WriteWeights();
  EXPECT_THAT(Failure(), HasSubstr("2 tensors are not as the config has them: "
                                   "'model.layers.0.self_attn.q_norm.weight' is [8], not [16], "
                                   "no tensor 'model.norm.weight' in"));
  tensors.clear();
  WriteWeights();
  EXPECT_THAT(Failure(), HasSubstr("24 tensors are not as the config has them"));
  folder.Remove("model.safetensors");
  folder.Write("pytorch_model.bin", "");
  EXPECT_THAT(Failure(), HasSubstr("pickle"));
  folder.Write("generation_config.json", "{");
  EXPECT_THAT(Failure(), HasSubstr("generation_config.json: malformed JSON"));
  folder.Write("config.json", R"({"architectures": ["LlamaForCausalLM"]})");
  EXPECT_THAT(Failure(), HasSubstr("config.json: architecture LlamaForCausalLM is not supported"));
  folder.Remove("config.json");
  EXPECT_THAT(Failure(), HasSubstr("no config.json in " + folder.path().string()));
}

// Small models written by transformers itself.
TEST(HfFolderGoldens, Open) {
  const std::filesystem::path goldens =
      std::filesystem::path(MILLPOWER_SOURCE_DIR) / "tests/golden";
  std::error_code error;
  int count = 0;
  for (std::filesystem::directory_iterator it(goldens, error), end; !error && it != end; ++it) {
    if (!std::filesystem::exists(it->path() / "config.json")) continue;
    const auto opened = OpenHfFolder(it->path());
    EXPECT_TRUE(opened) << opened.error().message;
    ++count;
  }
  if (count == 0) GTEST_SKIP() << "no models in " << goldens;
}

}  // namespace
}  // namespace millpower::import
