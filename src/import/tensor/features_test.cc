#include "import/tensor/features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "import/tensor/builder.h"

namespace millpower::import {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Policies = std::map<std::string, IdPolicy>;

IdPolicy Parsed(std::string_view text) { return ParseIdPolicy(text).value(); }

// A model being built: `b`, then Make.
class FeaturesTest : public ::testing::Test {
 protected:
  FeaturesTest() : b("test") {
    b.AddSymbol("batch", 64);
    table = b.Weight("table", DType::kF32, {100, 8});
  }
  Tensor Ids(const char* name, DType dtype = DType::kI64, int64_t columns = 3) {
    return b.Input(name, dtype, {ir::Symbol("batch"), ir::Constant(columns)});
  }
  void Output(const Result<Tensor>& x) {
    ASSERT_TRUE(x) << x.error().message;
    ASSERT_TRUE(b.Output("y" + std::to_string(outputs_++), *x));
  }
  TensorModel Make() {
    auto built = std::move(b).Build();
    EXPECT_TRUE(built) << built.error().message;
    TensorModel model;
    model.graph = std::move(built->graph);
    for (const auto& input : built->inputs) {
      Port& port = model.inputs.emplace_back();
      port.name = input.public_name;
      port.value = input.value;
    }
    return model;
  }
  // The graph's text with the policies applied.
  static std::string Applied(TensorModel& model, const Policies& policies) {
    const auto applied = ApplyIdPolicies(policies, model);
    EXPECT_TRUE(applied) << applied.error().message;
    return ir::ToText(model.graph);
  }
  std::string Failure(const Policies& policies) {
    TensorModel model = Make();
    const auto applied = ApplyIdPolicies(policies, model);
    EXPECT_FALSE(applied);
    return applied ? "" : applied.error().message;
  }

  TensorBuilder b;
  Tensor table;
  int outputs_ = 0;
};

TEST(IdPolicies, AreWrittenAsTheyAreRead) {
  for (const char* text : {"error", "clamp", "default:0", "default:77", "hash"})
    EXPECT_EQ(ToString(Parsed(text)), text);
  for (const char* text : {"", "hash:3", "default", "default:", "default:-1", "default:1x",
                           "default:99999999999999999999"})
    EXPECT_THAT(ParseIdPolicy(text).error().message, HasSubstr("default:ROW")) << text;
}

TEST_F(FeaturesTest, SaysWhatTheFrameworkDoes) {
  Output(b.Embedding(table, Ids("pooled"), IndexPolicy::kError));
  Output(b.Embedding(table, Ids("wrapped"), IndexPolicy::kWrap));
  Output(b.Binary(MapOp::kAdd, b.Input("dense", DType::kF32, {ir::Symbol("batch")}), 1));
  TensorModel model = Make();
  Applied(model, {});
  EXPECT_EQ(model.inputs[0].id_policy, "error");
  EXPECT_THAT(model.inputs[1].id_policy, HasSubstr("count from the end"));
  EXPECT_THAT(model.inputs[2].id_policy, IsEmpty());
}

TEST_F(FeaturesTest, OperatorsThatHaveThePolicyGetIt) {
  Output(b.Embedding(table, Ids("a"), IndexPolicy::kWrap));
  Output(b.Embedding(table, Ids("b")));
  Output(b.Embedding(table, Ids("c"), IndexPolicy::kWrap));
  Output(b.Take(table, Ids("d"), 0));
  TensorModel model = Make();
  const std::string text = Applied(model, {{"a", Parsed("clamp")},
                                           {"b", Parsed("default:7")},
                                           {"c", Parsed("error")},
                                           {"d", Parsed("clamp")}});
  EXPECT_THAT(text, HasSubstr("default_row=7 ends=0 mode=0 padding_row=-1 policy=3"));
  EXPECT_THAT(text, HasSubstr("axis=0 policy=2"));
  EXPECT_THAT(text, Not(HasSubstr("policy=1")));
  EXPECT_THAT(text, Not(HasSubstr("= map(")));
  EXPECT_EQ(model.inputs[1].id_policy, "default:7");
  EXPECT_EQ(model.inputs[3].id_policy, "clamp");
}

// Through all that leaves ids what they are.
TEST_F(FeaturesTest, FollowsIdsToTheirTables) {
  const Tensor ids = Ids("ids", DType::kI32);
  const Tensor column = *b.Pick(*b.Cast(ids, DType::kI64), 1, 2);
  const Tensor turned =
      *b.SwapAxes(*b.Reshape(column, {ir::Symbol("batch"), ir::Constant(1)}), 0, 1);
  Output(b.Take(table, turned, 0));
  Output(b.Binary(MapOp::kMul, *b.Cast(ids, DType::kF32), 2));
  TensorModel model = Make();
  const std::string text = Applied(model, {{"ids", Parsed("hash")}});
  EXPECT_THAT(text, HasSubstr("mix:u64"));
  EXPECT_THAT(text, HasSubstr("const:u64(100)"));
  EXPECT_THAT(text, HasSubstr("take(table, "));
  EXPECT_EQ(model.inputs[0].id_policy, "hash");
}

TEST_F(FeaturesTest, EachTableHasItsOwnRows) {
  const Tensor ids = Ids("ids");
  Output(b.Embedding(table, *b.Pick(ids, 1, 0)));
  Output(b.Embedding(b.Weight("other", DType::kF32, {7, 4}), *b.Pick(ids, 1, 1)));
  TensorModel model = Make();
  const std::string text = Applied(model, {{"ids", Parsed("hash")}});
  EXPECT_THAT(text, HasSubstr("const:u64(100)"));
  EXPECT_THAT(text, HasSubstr("const:u64(7)"));
}

TEST_F(FeaturesTest, PaddingIsNotHashed) {
  Output(b.EmbeddingBag(table, Ids("ids"), {}, {}, {.padding_row = 5}));
  TensorModel model = Make();
  EXPECT_THAT(Applied(model, {{"ids", Parsed("hash")}}), HasSubstr("select:i64"));
}

TEST_F(FeaturesTest, DefaultsInFrontOfATake) {
  Output(b.Take(table, Ids("ids"), 0));
  TensorModel model = Make();
  const std::string text = Applied(model, {{"ids", Parsed("default:99")}});
  EXPECT_THAT(text, HasSubstr("const:i64(99)"));
  EXPECT_THAT(text, HasSubstr("axis=0 policy=0"));
}

TEST_F(FeaturesTest, RefusesWhatDoesNotFit) {
  Output(b.Embedding(table, Ids("ids")));
  EXPECT_THAT(Failure({{"what", Parsed("hash")}}), HasSubstr("'what' is none of the model's"));
}
TEST_F(FeaturesTest, RefusesADefaultThatIsNoRow) {
  Output(b.Embedding(table, Ids("ids")));
  EXPECT_THAT(Failure({{"ids", Parsed("default:100")}}), HasSubstr("table 'table' has 100"));
}
TEST_F(FeaturesTest, RefusesAnInputWithoutTable) {
  Output(b.Binary(MapOp::kAdd, Ids("ids"), 1));
  EXPECT_THAT(Failure({{"ids", Parsed("clamp")}}), HasSubstr("names no rows of a table"));
}
TEST_F(FeaturesTest, RefusesIdsThatAreComputed) {
  const Tensor taken = *b.Binary(MapOp::kMod, Ids("ids"), 50);
  Output(b.Embedding(table, *b.Pick(taken, 1, 0)));
  EXPECT_THAT(Failure({{"ids", Parsed("clamp")}}), HasSubstr("map '"));
}
TEST_F(FeaturesTest, RefusesIdsThatAreJoinedWithOthers) {
  const Tensor parts[] = {Ids("a"), Ids("b")};
  Output(b.Embedding(table, *b.Join(parts, 1)));
  EXPECT_THAT(Failure({{"a", Parsed("clamp")}}), HasSubstr("join '"));
}
TEST_F(FeaturesTest, RefusesToHashWhatWasLookedUp) {
  Output(b.Embedding(table, Ids("ids")));
  TensorModel model = Make();
  auto& lookup = model.prologue.emplace_back();
  lookup.input = "ids";
  lookup.value = model.inputs[0].value;
  EXPECT_THAT(ApplyIdPolicies({{"ids", Parsed("hash")}}, model).error().message,
              HasSubstr("looked up"));
  EXPECT_TRUE(ApplyIdPolicies({{"ids", Parsed("default:3")}}, model));
}

// Tables that get rows computed from the input keep what they do, and that is told.
TEST_F(FeaturesTest, TellsWhichTablesAreLeftOut) {
  const Tensor ids = Ids("ids");
  Output(b.Embedding(table, ids));
  Output(b.Embedding(b.Weight("rest", DType::kF32, {10, 4}), *b.Binary(MapOp::kMod, ids, 10)));
  TensorModel model = Make();
  Applied(model, {{"ids", Parsed("clamp")}});
  EXPECT_THAT(model.notes, ElementsAre(HasSubstr("'rest'")));
}

}  // namespace
}  // namespace millpower::import
