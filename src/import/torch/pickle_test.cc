#include "import/torch/pickle.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "import/torch/test_file.h"

namespace millpower::import::torch {
namespace {

Result<std::map<std::string, PickledTensor>> Read(const std::string& body) {
  const std::string pickle = Pickle(body);
  return ReadPickle(AsBytes(pickle));
}
ErrorCode CodeOf(const std::string& body) {
  const auto read = Read(body);
  return read ? ErrorCode::kInternal : read.error().code;
}

const std::string kTensor = PickledTensorOf("0", {2, 3}, {3, 1}, 4, 10);

TEST(Pickle, ReadsADictOfTensors) {
  const std::string parameter = "ctorch._utils\n_rebuild_parameter\n(" + kTensor +
                                "\x88"
                                "ccollections\nOrderedDict\n)RtR";
  const auto read = Read("}(" + PickledText("a") + kTensor + PickledText("b") + parameter +
                         PickledText("note") + PickledText("no tensor") + "u");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->size(), 2u);
  const PickledTensor& tensor = read->at("b");
  EXPECT_EQ(tensor.storage.key, "0");
  EXPECT_EQ(tensor.storage.dtype, DType::kF32);
  EXPECT_EQ(tensor.offset, 4);
  EXPECT_EQ(tensor.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensor.strides, (std::vector<int64_t>{3, 1}));
}

TEST(Pickle, ReadsOneTensorAndWhatTheMemoRepeats) {
  const auto one = Read(kTensor);
  ASSERT_TRUE(one);
  EXPECT_TRUE(one->contains(""));
  const auto repeated =
      Read("}(" + PickledText("a") + kTensor + "q\x05" + PickledText("b") + "h\x05u");
  ASSERT_TRUE(repeated) << repeated.error().message;
  EXPECT_EQ(repeated->size(), 2u);
}

TEST(Pickle, RefusesForeignFunctionsByName) {
  for (const std::string& call :
       {std::string("cos\nsystem\n(") + PickledText("true") + "tR",
        PickledText("os") + PickledText("system") + "\x93(" + PickledText("true") + "tR",
        std::string("cbuiltins\neval\n)R"),
        std::string("ctorch._utils\n_rebuild_sparse_tensor\n)R"),
        std::string("ctorch.storage\n_load_from_bytes\n)R")}) {
    const auto read = Read(call);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(read.error().message.find('\''), std::string::npos) << read.error().message;
  }
  EXPECT_NE(Read("cos\nsystem\n)R").error().message.find("'os.system'"), std::string::npos);
  EXPECT_EQ(CodeOf("Ptorch\n"), ErrorCode::kUnsupported);        // PERSID
  EXPECT_EQ(CodeOf("\x81"), ErrorCode::kUnsupported);            // NEWOBJ
  EXPECT_EQ(CodeOf("(ios\nsystem\n"), ErrorCode::kUnsupported);  // INST
  EXPECT_EQ(CodeOf("\x80\x09"), ErrorCode::kUnsupported);        // a protocol to come
}

TEST(Pickle, RefusesWhatIsMalformed) {
  for (const std::string& body :
       {std::string("R"), std::string("t"), std::string("h\x01"), std::string("}("),
        std::string("]a"), std::string("(u"), std::string("}") + PickledText("a") + "s",
        std::string("NN"), std::string("Q"), PickledInts({1}) + "Q", std::string("N)R"),
        std::string("q\x01"), std::string(")(e"), std::string("X\xff\xff\xff\xff"),
        std::string("ctorch\nFloatStorage\n)R"), std::string("(."),
        "}(" + PickledText("a") + kTensor + PickledText("a") + kTensor + "u", std::string("}(NNu"),
        PickledTensorOf("0", {2, 3}, {1}, 0, 1)})
    EXPECT_EQ(CodeOf(body), ErrorCode::kCorrupt) << body;
}

TEST(Pickle, DoesNotRecurse) {
  std::string nested = ")";
  nested.append(1'000'000, '\x85');
  EXPECT_EQ(CodeOf(nested), ErrorCode::kCorrupt);
  EXPECT_EQ(CodeOf(std::string(1'000'000, '(')), ErrorCode::kCorrupt);
  EXPECT_EQ(CodeOf(std::string(1'000'000, ']')), ErrorCode::kCorrupt);
}

TEST(Pickle, BoundsWhatFewBytesMakeMuchOf) {
  const std::string many = "(" + std::string(kMaxPickleObjects, 'N') + "t";
  EXPECT_EQ(CodeOf(many), ErrorCode::kUnsupported);
  const std::vector<int64_t> sizes(kMaxPickleRank + 1, 1);
  EXPECT_EQ(CodeOf(PickledTensorOf("0", sizes, sizes, 0, 1)), ErrorCode::kCorrupt);
}

TEST(Pickle, SurvivesTruncationAndNoise) {
  const std::string whole = Pickle("}(" + PickledText("a") + kTensor + "u");
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(ReadPickle(AsBytes(whole.substr(0, size)))) << size;
  Rng rng(2);
  for (int i = 0; i < 20000; ++i) {
    std::string noisy = whole;
    noisy[rng.Next() % noisy.size()] = static_cast<char>(rng.Next() & 255);
    (void)ReadPickle(AsBytes(noisy));
  }
}

TEST(TorchSave, FindsStoragesInTheFile) {
  const std::string dict = Pickle("}(" + PickledText("a") + kTensor + "u");
  std::vector<std::vector<std::byte>> inflated;
  const std::string file = ZipBuilder()
                               .Add("x/data.pkl", dict)
                               .Add("x/data/0", std::string(40, 'd'))
                               .Add("x/byteorder", "little")
                               .Build();
  const auto tensors = ReadTorchSave(AsBytes(file), inflated);
  ASSERT_TRUE(tensors) << tensors.error().message;
  EXPECT_EQ(tensors->at("a").storage.size(), 40u);
  std::vector<std::byte> copy;
  EXPECT_TRUE(RowMajor(tensors->at("a"), copy));

  const auto code_of = [&](const std::string& bytes) {
    const auto read = ReadTorchSave(AsBytes(bytes), inflated);
    return read ? ErrorCode::kInternal : read.error().code;
  };
  EXPECT_EQ(code_of(ZipBuilder().Add("x/data.pkl", dict).Build()), ErrorCode::kNotFound);
  EXPECT_EQ(code_of(ZipBuilder().Add("x/other", dict).Build()), ErrorCode::kCorrupt);
  EXPECT_EQ(code_of(ZipBuilder().Add("x/data.pkl", dict).Add("x/byteorder", "big").Build()),
            ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace millpower::import::torch
