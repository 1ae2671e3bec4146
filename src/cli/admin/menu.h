// `millpower admin NOUN VERB`: a file for each noun, which adds its commands to the menu.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "cli/admin/client.h"

namespace millpower::cli::admin {

struct Menu {
  // What a command is told of how it was called.
  struct Call {
    const Client& client;
    bool as_json;  // print the API's answer as it is
  };
  using Action = std::function<Result<void>(const Call&)>;

  CLI::App* app = nullptr;  // "admin"
  uint16_t port = 8081;
  std::string key_file;
  bool as_json = false;
  Action chosen;  // of the command that was given

  // A noun, with commands below it.
  CLI::App* AddGroup(const char* name, const char* help);
  // With --json. What `action` refers to lives as long as it does.
  CLI::App* AddCommand(CLI::App* group, const char* name, const char* help, Action action);
  // Takes --json, and runs `action` unless a command below it was given.
  void MakeCommand(CLI::App* command, Action action);
};

void AddModels(Menu& menu);
void AddTenants(Menu& menu);
void AddProjects(Menu& menu);
void AddKeys(Menu& menu);
void AddPrices(Menu& menu);
void AddLeases(Menu& menu);
void AddUsage(Menu& menu);
void AddInvoices(Menu& menu);
void AddRows(Menu& menu);   // tables, update-rows
void AddBooks(Menu& menu);  // audit, verify, backup

// The answer itself, or what `format` makes of it.
void Print(const Menu::Call& call, const Json& answer, std::string (*format)(const Json&));

}  // namespace millpower::cli::admin
