#include "cli/tensor_session.h"

#include <chrono>
#include <future>

#include "base/spin.h"

#include "cli/session.h"
#include "cli/table_memory.h"

namespace millpower::cli {

Result<TensorSession> TensorSession::Start(const std::filesystem::path& path,
                                           const TensorSessionOptions& options) {
  TRY_ASSIGN(LoadedTensorModel loaded, LoadTensorModel(path, options.load));
  KeepTables(options.keeper, loaded.weights);
  SessionOptions on;
  on.load.threads = options.load.threads;
  on.kernels = options.kernels;
  on.profile = options.profile;
  on.trace = options.trace;
  TensorSession session;
  TRY_ASSIGN(session.device_, MakeDevice(on));
  session.engine_ = std::make_unique<ranking::Engine>(*session.device_, *session.clock_);
  TRY_ASSIGN(session.model_, session.engine_->Load({.name = loaded.name,
                                                    .program = loaded.program,
                                                    .weights = std::move(loaded.weights),
                                                    .signature = std::move(loaded.signature),
                                                    .config = {.warm_up = options.warm_up}}));
  return session;
}

Result<ranking::Answer> TensorSession::Ask(ranking::Request request) {
  std::promise<Result<ranking::Answer>> answered;
  TRY(engine_->Submit(model_, std::move(request), [&](Result<ranking::Answer> answer) {
    answered.set_value(std::move(answer));
  }));
  std::future<Result<ranking::Answer>> answer = answered.get_future();
  YieldUntil([&] { return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready; });
  return answer.get();
}

}  // namespace millpower::cli
