#include "ranking/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <latch>
#include <random>
#include <thread>

#include "base/test_wait.h"
#include "ranking/fake_device.h"

namespace millpower::ranking {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kSecondNs = 1'000'000'000;

std::vector<float> ScoresOf(const Answer& answer) {
  std::vector<float> scores(answer.outputs[0].bytes.size() / sizeof(float));
  std::memcpy(scores.data(), answer.outputs[0].bytes.data(), answer.outputs[0].bytes.size());
  return scores;
}

class EngineTest : public testing::Test {
 protected:
  using Future = std::future<Result<Answer>>;

  ModelPtr Load(Loading loading) {
    auto loaded = engine_.Load(std::move(loading));
    EXPECT_TRUE(loaded) << loaded.error().message;
    return *loaded;
  }
  Future Ask(const ModelPtr& model, Request request) {
    auto promise = std::make_shared<std::promise<Result<Answer>>>();
    const auto submitted =
        engine_.Submit(model, std::move(request),
                       [promise](Result<Answer> answer) { promise->set_value(std::move(answer)); });
    if (!submitted) promise->set_value(std::unexpected(submitted.error()));
    return promise->get_future();
  }
  // The device holds a launch of one row, so that what follows waits.
  Future Occupy(const ModelPtr& model, bool with_end = false) {
    device_.Hold();
    Future first = Ask(model, MakeRequest({{1, 1}, {{}}}, with_end));
    device_.WaitUntilHeld();
    return first;
  }
  static ErrorCode CodeOf(Future& future) {
    const auto answer = future.get();
    return answer ? ErrorCode::kInternal : answer.error().code;
  }
  std::vector<int64_t> Batches() const {
    std::vector<int64_t> batches;
    for (const auto& launch : device_.launches()) batches.push_back(launch.registers.at("batch"));
    return batches;
  }

  FakeDevice device_{RunFakeRecommender};
  VirtualClock clock_;  // however slow the machine is
  Engine engine_{device_, clock_};
};

TEST_F(EngineTest, AnswersARequest) {
  const ModelPtr model = Load(FakeRecommender("m"));
  EXPECT_TRUE(model->joins);
  EXPECT_EQ(model->config.max_batch, 8);
  const auto answer = Ask(model, MakeRequest({{1, 2, 3, 4}, {{10, 20}, {}}, 2})).get();
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_THAT(ScoresOf(*answer), ElementsAre(66, 14));
  EXPECT_THAT(answer->outputs[0].shape, ElementsAre(2));
  EXPECT_EQ(answer->rows, 2);
  EXPECT_EQ(answer->device_ns, 1000);
}

TEST_F(EngineTest, JoinsWhatWaitsRaggedInputsToo) {
  for (const bool with_end : {false, true}) {
    const ModelPtr model = Load(FakeRecommender("m", with_end));
    Future first = Occupy(model, with_end);
    Future a = Ask(model, MakeRequest({{1, 2}, {{10, 20}}}, with_end));
    Future b = Ask(model, MakeRequest({{0, 0, 1, 0}, {{}, {5}}}, with_end));
    Future c = Ask(model, MakeRequest({{3, 3}, {{7, 8, 9}}}, with_end));
    device_.Release();
    ASSERT_TRUE(first.get());
    const auto of_a = a.get(), of_b = b.get(), of_c = c.get();
    EXPECT_THAT(ScoresOf(*of_a), ElementsAre(33));
    EXPECT_THAT(ScoresOf(*of_b), ElementsAre(0, 6));
    EXPECT_THAT(ScoresOf(*of_c), ElementsAre(30));
    int64_t firsts[2];
    std::memcpy(firsts, of_b->outputs[1].bytes.data(), sizeof firsts);
    EXPECT_THAT(firsts, ElementsAre(-1, 5));
    EXPECT_EQ(of_a->device_ns, 250);
    EXPECT_EQ(of_b->device_ns, 500);
    EXPECT_EQ(Batches().back(), 4);
    const ModelStats stats = engine_.Stats(model);
    EXPECT_EQ(stats.launches, 2);
    EXPECT_EQ(stats.rows, 5);
    EXPECT_EQ(stats.success.count, 4);
    EXPECT_EQ(stats.by_batch.at(4).count, 1);
    EXPECT_EQ(stats.waiting, 0);
    EXPECT_EQ(stats.waiting_bytes, 0);
  }
}

TEST_F(EngineTest, JoinsOnlyEqualConstants) {
  const ModelPtr model = Load(FakeRecommender("m"));
  Future first = Occupy(model);
  Future a = Ask(model, MakeRequest({{1, 1}, {{}}, 2}));
  Future b = Ask(model, MakeRequest({{1, 1}, {{}}, 3}));
  Future c = Ask(model, MakeRequest({{1, 1}, {{}}, 2}));
  device_.Release();
  EXPECT_THAT(ScoresOf(*a.get()), ElementsAre(4));
  EXPECT_THAT(ScoresOf(*b.get()), ElementsAre(6));
  EXPECT_THAT(ScoresOf(*c.get()), ElementsAre(4));
  EXPECT_THAT(Batches(), ElementsAre(1, 2, 1));
}

TEST_F(EngineTest, StaysWithinTheBoundsOfALaunch) {
  const ModelPtr model = Load(FakeRecommender("m"));
  Future first = Occupy(model);
  std::vector<Future> futures;
  for (int i = 0; i < 5; ++i)
    futures.push_back(Ask(model, MakeRequest({{1, 1, 1, 1, 1, 1}, {{}, {1}, {2}}})));
  // Of the 64 items of a launch each of these has 40.
  for (int i = 0; i < 2; ++i)
    futures.push_back(Ask(model, MakeRequest({{0, 0}, {std::vector<int64_t>(40, 1)}})));
  device_.Release();
  for (Future& future : futures) EXPECT_TRUE(future.get());
  for (const auto& launch : device_.launches()) {
    EXPECT_LE(launch.registers.at("batch"), 8);
    EXPECT_LE(launch.registers.at("items"), 64);
  }
  EXPECT_THAT(Batches(), ElementsAre(1, 7, 7, 3));  // 3+3+1 twice: one with 40 items, not two
}

TEST_F(EngineTest, WaitsForCompanyNoLongerThanAllowed) {
  Loading loading = FakeRecommender("m");
  loading.config.max_queue_delay_us = 20'000;
  ModelPtr model;
  Future a, b, c;
  const auto ask = [&] { return Ask(model, MakeRequest({{1, 1}, {{}}})); };
  // The model's thread, which waits, brings these moments about: it alone, as it may begin to wait
  // at any time.
  std::latch loaded(1);
  clock_.At(0, [&] {
    loaded.wait();
    a = ask();
  });
  clock_.At(19'999'999, [&] { b = ask(); });
  clock_.At(20'000'001, [&] { c = ask(); });
  model = Load(std::move(loading));
  loaded.count_down();
  ASSERT_TRUE(Eventually([&] { return Batches().size() == 2; }));
  EXPECT_THAT(Batches(), ElementsAre(2, 1));
  EXPECT_TRUE(a.get());
  EXPECT_TRUE(b.get());
  EXPECT_TRUE(c.get());
  // A full launch waits for nobody: no time passes.
  std::vector<float> dense(16, 1);
  EXPECT_TRUE(Ask(model, MakeRequest({dense, std::vector<std::vector<int64_t>>(8)})).get());
}

TEST_F(EngineTest, ADeadlineShortensTheWait) {
  Loading loading = FakeRecommender("m");
  loading.config.max_queue_delay_us = 20'000'000;
  const ModelPtr model = Load(std::move(loading));
  Request request = MakeRequest({{1, 1}, {{}}});
  request.deadline_ns = clock_.NowNs() + 20'000'000;
  Future future = Ask(model, std::move(request));
  clock_.Advance(10'000'000);
  EXPECT_TRUE(future.get());
}

TEST_F(EngineTest, RefusesWhatCannotBeginInTime) {
  const ModelPtr model = Load(FakeRecommender("m"));
  Request late = MakeRequest({{1, 1}, {{}}});
  late.deadline_ns = clock_.NowNs() - 1;
  Future too_late = Ask(model, std::move(late));
  EXPECT_EQ(CodeOf(too_late), ErrorCode::kDeadline);
  Future first = Occupy(model);
  Request request = MakeRequest({{1, 1}, {{}}});
  request.deadline_ns = clock_.NowNs() + 1'000'000;
  Future expired = Ask(model, std::move(request));
  clock_.Advance(1'000'000);
  device_.Release();
  EXPECT_EQ(CodeOf(expired), ErrorCode::kDeadline);
  EXPECT_EQ(Batches().size(), 1u);
  EXPECT_EQ(engine_.Stats(model).expired, 1);
}

TEST_F(EngineTest, DoesNotBeginWhatIsCancelled) {
  const ModelPtr model = Load(FakeRecommender("m"));
  Future first = Occupy(model);
  const auto flag = std::make_shared<std::atomic<bool>>(false);
  Request request = MakeRequest({{1, 1}, {{}}});
  request.cancelled = flag;
  Future cancelled = Ask(model, std::move(request));
  *flag = true;
  device_.Release();
  EXPECT_EQ(CodeOf(cancelled), ErrorCode::kCancelled);
  EXPECT_EQ(engine_.Stats(model).cancelled, 1);
}

TEST_F(EngineTest, OnlyTheCulpritOfAFaultFails) {
  const ModelPtr model = Load(FakeRecommender("m"));
  Future first = Occupy(model);
  std::vector<Future> futures;
  for (int64_t i = 0; i < 7; ++i)
    futures.push_back(Ask(model, MakeRequest({{0, 0}, {{i == 4 ? 1234 : i}}})));
  device_.Release();
  for (size_t i = 0; i < futures.size(); ++i) {
    const auto answer = futures[i].get();
    ASSERT_EQ(answer.has_value(), i != 4) << i;
    if (answer) {
      EXPECT_THAT(ScoresOf(*answer), ElementsAre(float(i)));
    } else {
      EXPECT_EQ(answer.error().code, ErrorCode::kInvalidArgument);
      EXPECT_THAT(answer.error().message, HasSubstr("1234"));
    }
  }
  const ModelStats stats = engine_.Stats(model);
  EXPECT_EQ(stats.fail.count, 1);
  EXPECT_EQ(stats.success.count, 7);
}

TEST_F(EngineTest, OffsetsThatMeanSomethingElseInCompanyRunAlone) {
  const ModelPtr model = Load(FakeRecommender("m"));
  Future first = Occupy(model);
  // The first item belongs to no bag.
  const std::vector<int64_t> items = {9, 5}, offsets = {1};
  Request odd = MakeRequest({{0, 0}, {{9, 5}}});
  odd.inputs[2].bytes = std::as_bytes(std::span(offsets));
  Future a = Ask(model, MakeRequest({{0, 0}, {{3}}}));
  Future b = Ask(model, std::move(odd));
  Future c = Ask(model, MakeRequest({{0, 0}, {{4}}}));
  device_.Release();
  EXPECT_THAT(ScoresOf(*a.get()), ElementsAre(3));
  EXPECT_THAT(ScoresOf(*b.get()), ElementsAre(5));
  EXPECT_THAT(ScoresOf(*c.get()), ElementsAre(4));
  EXPECT_THAT(Batches(), ElementsAre(1, 2, 1));
}

TEST_F(EngineTest, RefusesTensorsThatDoNotFit) {
  const ModelPtr model = Load(FakeRecommender("m"));
  const auto refused = [&](const std::function<void(Request&)>& change) {
    Request request = MakeRequest({{1, 2, 3, 4}, {{1}, {2}}});
    change(request);
    const auto answer = Ask(model, std::move(request)).get();
    return answer ? Error{ErrorCode::kInternal, "answered", ""} : answer.error();
  };
  EXPECT_EQ(refused([](Request& r) { r.inputs.pop_back(); }).code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused([](Request& r) { r.inputs[0].shape = {4}; }).param, "dense");
  EXPECT_EQ(refused([](Request& r) { r.inputs[0].shape = {-2, 2}; }).param, "dense");
  EXPECT_EQ(refused([](Request& r) { r.inputs[0].shape = {2, 3}; }).param, "dense");
  EXPECT_EQ(refused([](Request& r) { r.inputs[0].shape = {INT64_MAX, 2}; }).param, "dense");
  EXPECT_EQ(refused([](Request& r) { r.inputs[0].bytes = r.inputs[0].bytes.first(15); }).param,
            "dense");
  EXPECT_EQ(refused([](Request& r) { r.inputs[2].shape = {3}; }).param, "offsets");
  const std::vector<float> dense(18);
  const std::vector<int64_t> offsets(9);
  EXPECT_EQ(refused([&](Request& r) {
              r.inputs[0] = {.shape = {9, 2}, .bytes = std::as_bytes(std::span(dense))};
              r.inputs[2] = {.shape = {9}, .bytes = std::as_bytes(std::span(offsets))};
            }).code,
            ErrorCode::kOutOfRange);
  EXPECT_EQ(refused([&](Request& r) {
              r.inputs[0] = {.shape = {0, 2}};
              r.inputs[2] = {.shape = {0}};
            }).param,
            "batch");
  EXPECT_EQ(engine_.Stats(model).refused, 9);
  EXPECT_TRUE(device_.launches().empty());
}

TEST_F(EngineTest, BoundsItsQueue) {
  Loading loading = FakeRecommender("m");
  loading.config.max_queue = 4;
  const ModelPtr model = Load(std::move(loading));
  Future first = Occupy(model);
  const auto ask_as = [&](const std::string& caller) {
    Request request = MakeRequest({{1, 1}, {{}}});
    request.caller = caller;
    return Ask(model, std::move(request));
  };
  std::vector<Future> taken;
  taken.push_back(ask_as("a"));
  taken.push_back(ask_as("a"));
  Future greedy = ask_as("a");
  EXPECT_EQ(CodeOf(greedy), ErrorCode::kNoCapacity);  // half of it is theirs
  taken.push_back(ask_as("b"));
  taken.push_back(ask_as("c"));
  Future full = ask_as("d");
  EXPECT_EQ(CodeOf(full), ErrorCode::kNoCapacity);
  device_.Release();
  for (Future& future : taken) EXPECT_TRUE(future.get());
  EXPECT_EQ(device_.launches().back().claims, 3u);
}

TEST_F(EngineTest, HigherClassesGoFirst) {
  const ModelPtr model = Load(FakeRecommender("m"));
  Future first = Occupy(model);
  std::vector<int> order;
  std::vector<std::promise<void>> done(2);
  const auto ask_in = [&](int launch_class, float scale) {
    Request request = MakeRequest({{1, 1}, {{}}, scale});  // of another scale: not joined
    request.launch_class = launch_class;
    EXPECT_TRUE(engine_.Submit(model, std::move(request), [&, launch_class](Result<Answer>) {
      order.push_back(launch_class);
      done[order.size() - 1].set_value();
    }));
  };
  ask_in(2, 2);
  ask_in(0, 3);
  device_.Release();
  for (auto& each : done) each.get_future().get();
  EXPECT_THAT(order, ElementsAre(0, 2));
  EXPECT_EQ(device_.launches().back().launch_class, 2);
}

TEST_F(EngineTest, UnloadsUnderLoadWithoutLosingAnybody) {
  for (int round = 0; round < 10; ++round) {
    const ModelPtr model = Load(FakeRecommender("m"));
    std::atomic<int> accepted{0}, answered{0}, refused{0};
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] {
        for (int i = 0; i < 200; ++i) {
          const auto submitted = engine_.Submit(model, MakeRequest({{1, 1}, {{1, 2}}}),
                                                [&](Result<Answer>) { ++answered; });
          ++(submitted ? accepted : refused);
        }
      });
    std::this_thread::sleep_for(std::chrono::microseconds(200 * round));
    EXPECT_TRUE(engine_.Unload("m", 0, round % 2 == 0 ? kSecondNs : 0));
    EXPECT_EQ(device_.loaded(), 0);
    threads.clear();
    EXPECT_EQ(accepted, answered);
    EXPECT_FALSE(engine_.Find("m"));
    EXPECT_FALSE(engine_.Unload("m", 0, 0));
  }
}

TEST_F(EngineTest, KeepsVersionsApart) {
  Loading second = FakeRecommender("m");
  second.version = 2;
  const ModelPtr one = Load(FakeRecommender("m"));
  const ModelPtr two = Load(std::move(second));
  const ModelPtr other = Load(FakeRecommender("another"));
  EXPECT_EQ(*engine_.Find("m"), two);
  EXPECT_EQ(*engine_.Find("m", 1), one);
  EXPECT_THAT(engine_.Find("m", 3).error().message, HasSubstr("version 3"));
  EXPECT_EQ(engine_.Find("n").error().param, "model");
  EXPECT_THAT(engine_.All(), ElementsAre(other, one, two));
  EXPECT_TRUE(Ask(one, MakeRequest({{1, 1}, {{}}})).get());
  EXPECT_TRUE(engine_.Unload("m", 2, 0));
  EXPECT_EQ(*engine_.Find("m"), one);
  Future gone = Ask(two, MakeRequest({{1, 1}, {{}}}));
  EXPECT_EQ(CodeOf(gone), ErrorCode::kUnavailable);
  EXPECT_EQ(engine_.Stats(two).success.count, 0);
}

TEST_F(EngineTest, ReplacesAVersionWhileItAnswers) {
  const ModelPtr old = Load(FakeRecommender("m"));
  Future first = Occupy(old);
  Future waits = Ask(old, MakeRequest({{1, 1}, {{}}}));
  auto loading = std::async(std::launch::async, [&] { return engine_.Load(FakeRecommender("m")); });
  while (*engine_.Find("m") == old) std::this_thread::yield();
  device_.Release();
  EXPECT_TRUE(first.get());
  EXPECT_TRUE(waits.get());
  EXPECT_TRUE(loading.get());
  EXPECT_EQ(device_.loaded(), 1);
}

TEST_F(EngineTest, WarmsUpBeforeItIsThere) {
  Loading loading = FakeRecommender("m", true);
  loading.config = {.max_batch = 4};
  Load(std::move(loading));
  EXPECT_THAT(Batches(), ElementsAre(1, 2, 4));
  EXPECT_EQ(device_.launches()[0].launch_class, device::kLaunchClasses - 1);
}

TEST_F(EngineTest, APreparedModelIsThereOnceItIsStarted) {
  Loading loading = FakeRecommender("m", true);
  loading.config = {.max_batch = 4};
  const auto prepared = engine_.Prepare(std::move(loading));
  ASSERT_TRUE(prepared) << prepared.error().message;
  EXPECT_EQ(device_.loaded(), 1);
  EXPECT_TRUE(device_.launches().empty());
  EXPECT_FALSE(engine_.Find("m"));
  ASSERT_TRUE(engine_.Start(*prepared));
  EXPECT_THAT(Batches(), ElementsAre(1, 2, 4));
  EXPECT_TRUE(engine_.Find("m"));
}

TEST_F(EngineTest, WarmsUpNoFurtherThanLaunchesAreShort) {
  FakeDevice slow([&](const FakeLaunch& launch) {
    if (launch.Register("batch") == 2) clock_.Advance(10'000'000);
    return RunFakeRecommender(launch);
  });
  Engine engine(slow, clock_);
  Loading loading = FakeRecommender("m", true);
  loading.config = {.max_batch = 8};
  ASSERT_TRUE(engine.Load(std::move(loading)));
  ASSERT_EQ(slow.launches().size(), 2u);
  EXPECT_EQ(slow.launches().back().registers.at("batch"), 2);
}

TEST_F(EngineTest, RefusesToLoadWhatDoesNotFit) {
  Loading loading = FakeRecommender("m");
  loading.config.max_batch = 9;
  EXPECT_EQ(engine_.Load(std::move(loading)).error().param, "max_batch");
  Loading wrong = FakeRecommender("m");
  wrong.signature.inputs[0].dtype = DType::kF64;
  EXPECT_EQ(engine_.Load(std::move(wrong)).error().code, ErrorCode::kInvalidArgument);
  device_.FailLoads({ErrorCode::kNoCapacity, "27 GB could not be had", ""});
  EXPECT_EQ(engine_.Load(FakeRecommender("m")).error().code, ErrorCode::kNoCapacity);
  EXPECT_TRUE(engine_.All().empty());
}

TEST_F(EngineTest, ModelsWhoseRowsDependOnEachOtherRunAlone) {
  Loading loading = FakeRecommender("m");
  loading.signature.rows_are_independent = false;
  loading.config.max_queue_delay_us = 10'000'000;  // of no use
  const ModelPtr model = Load(std::move(loading));
  EXPECT_FALSE(model->joins);
  Future first = Occupy(model);
  Future a = Ask(model, MakeRequest({{1, 1}, {{}}}));
  Future b = Ask(model, MakeRequest({{1, 1}, {{}}}));
  device_.Release();
  EXPECT_TRUE(a.get());
  EXPECT_TRUE(b.get());
  EXPECT_THAT(Batches(), ElementsAre(1, 1, 1));
}

TEST_F(EngineTest, ChangesRowsBetweenLaunches) {
  const ModelPtr model = Load(FakeRecommender("m"));
  const std::vector<float> values = {127, 0, 0, 0, 0, -127, 0, 0};
  RowUpdate update{.table = "table", .rows = {3, 7}, .values = values};
  Future first = Occupy(model);
  auto updating = std::async(std::launch::async, [&] { return engine_.UpdateRows(model, update); });
  EXPECT_EQ(updating.wait_for(std::chrono::milliseconds(5)), std::future_status::timeout);
  device_.Release();
  EXPECT_TRUE(updating.get());
  const auto rows = device_.rows();
  EXPECT_EQ(rows.size(), 2u);
  EXPECT_EQ(static_cast<int8_t>(rows.at({"table", 7})[5]), -127);
  EXPECT_EQ(engine_.Stats(model).updates, 1);
  EXPECT_EQ(engine_.Stats(model).updated_rows, 2);
}

TEST_F(EngineTest, RefusesUpdatesByName) {
  const ModelPtr model = Load(FakeRecommender("m"));
  ASSERT_EQ(model->tables.size(), 1u);
  EXPECT_EQ(model->tables[0].name, "table");
  EXPECT_EQ(model->tables[0].rows, 10);
  EXPECT_EQ(model->tables[0].columns, 4);
  EXPECT_EQ(model->tables[0].dtype, DType::kI8);
  std::vector<float> values(8, 1);
  RowUpdate update{.table = "table", .rows = {3, 7}, .values = values};
  const auto refuses = [&](const char* param, const char* what) {
    const auto updated = engine_.UpdateRows(model, update);
    ASSERT_FALSE(updated) << what;
    EXPECT_EQ(updated.error().param, param);
    EXPECT_THAT(updated.error().message, HasSubstr(what));
  };
  update.rows = {3, 3};
  refuses("rows", "table 'table': row 3 is given twice");
  update.rows = {3, 10};
  refuses("rows", "no row 10, of 10 rows");
  update.rows = {-1, 3};
  refuses("rows", "no row -1");
  update.rows = {3};
  refuses("values", "1 rows of 4 values are told with 8 values");
  update.rows = {3, 7};
  values[6] = NAN;
  refuses("values", "table 'table': row 7, column 2: nan is not finite in i8");
  update.table = "x.dense";
  refuses("table", "there is no table 'x.dense'");
  update = {.table = "table", .rows = {}, .values = {}};
  refuses("rows", "no rows are given");
  EXPECT_TRUE(device_.rows().empty());
  EXPECT_EQ(engine_.Stats(model).updates, 0);
  EXPECT_EQ(engine_.Stats(model).refused_updates, 7);
}

// Memory that is not there fails those who needed it.
TEST(EngineMemoryTest, RunningOutFailsTheLaunchOnly) {
  std::atomic<bool> is_out = true;
  FakeDevice device([&](const FakeLaunch& launch) {
    if (is_out) throw std::bad_alloc();
    return RunFakeRecommender(launch);
  });
  SystemClock clock;
  Engine engine(device, clock);
  const ModelPtr model = engine.Load(FakeRecommender("m")).value();
  const auto ask = [&] {
    std::promise<Result<Answer>> answered;
    EXPECT_TRUE(engine.Submit(model, MakeRequest({{1, 2}, {{}}}), [&](Result<Answer> answer) {
      answered.set_value(std::move(answer));
    }));
    return answered.get_future().get();
  };
  EXPECT_EQ(ask().error().code, ErrorCode::kNoCapacity);
  EXPECT_EQ(engine.Stats(model).faulted.count, 1);
  is_out = false;
  EXPECT_THAT(ScoresOf(ask().value()), ElementsAre(3));
}

TEST_F(EngineTest, AllBagsMayBeEmpty) {
  for (const bool with_end : {false, true}) {
    const ModelPtr model = Load(FakeRecommender("m", with_end));
    const auto answer = Ask(model, MakeRequest({{1, 2, 3, 4}, {{}, {}}}, with_end)).get();
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_THAT(ScoresOf(*answer), ElementsAre(3, 7));
    int64_t firsts[2];
    std::memcpy(firsts, answer->outputs[1].bytes.data(), sizeof firsts);
    EXPECT_THAT(firsts, ElementsAre(-1, -1));
    EXPECT_EQ(device_.launches().back().registers.at("items"), 1);
  }
}

// Whatever comes together, everybody gets what they would have got alone.
TEST_F(EngineTest, CompanyChangesNoAnswer) {
  Loading loading = FakeRecommender("m", true);
  loading.config.max_queue_delay_us = 200;
  const ModelPtr model = Load(std::move(loading));
  std::vector<std::jthread> threads;
  for (unsigned seed = 1; seed <= 4; ++seed)
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 200; ++i) {
        FakeRows rows;
        std::vector<float> expected;
        for (unsigned row = 0, count = 1 + random() % 4; row < count; ++row) {
          rows.dense.insert(rows.dense.end(), {float(random() % 10), 1});
          rows.bags.emplace_back(random() % 4, int64_t(random() % 100));
          float sum = rows.dense[2 * row] + 1;
          for (const int64_t item : rows.bags.back()) sum += float(item);
          expected.push_back(sum);
        }
        const auto answer = Ask(model, MakeRequest(rows, true)).get();
        ASSERT_TRUE(answer) << answer.error().message;
        EXPECT_EQ(ScoresOf(*answer), expected) << "seed " << seed << " request " << i;
      }
    });
  threads.clear();
  EXPECT_LT(engine_.Stats(model).launches, 800);
}

}  // namespace
}  // namespace millpower::ranking
