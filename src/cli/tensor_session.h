// One model of tensors that answers, on a device of its own: for subcommands that run one.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/page_keeper.h"
#include "base/result.h"
#include "cli/tensor_loader.h"
#include "device/cpu/profile.h"
#include "device/device.h"
#include "device/trace.h"
#include "ranking/engine.h"

namespace millpower::cli {

struct TensorSessionOptions {
  TensorLoadOptions load;
  std::string kernels = "auto";  // as --kernels has them
  bool warm_up = false;
  // All may be null, and outlive the session.
  std::shared_ptr<PageKeeper> keeper = nullptr;  // of tables that are mapped
  device::cpu::Profile* profile = nullptr;       // counts where the time goes
  device::TraceFile* trace = nullptr;            // takes every instruction's time
};

class TensorSession {
 public:
  // Errors: those of LoadTensorModel, MakeDevice and ranking::Engine::Load.
  static Result<TensorSession> Start(const std::filesystem::path& path,
                                     const TensorSessionOptions& options);

  const ranking::Signature& signature() const { return model_->signature; }
  // Waits for the answer. Errors: those of ranking::Engine::Submit and Callback.
  Result<ranking::Answer> Ask(ranking::Request request);
  const Clock& clock() const { return *clock_; }

 private:
  TensorSession() = default;

  std::unique_ptr<SystemClock> clock_ = std::make_unique<SystemClock>();
  std::shared_ptr<device::Device> device_;
  std::unique_ptr<ranking::Engine> engine_;  // uses what is above; destroyed first
  ranking::ModelPtr model_;
};

}  // namespace millpower::cli
