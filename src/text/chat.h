// Chat formats: from an OpenAI conversation to the text that the model was trained to continue.
//
// We do not run Jinja. The few templates that our models ship are written out here, byte for byte;
// a template that is none of them is an error that says so, never a guess.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/tokenizer.h"

namespace millpower::text {

enum class ChatFormat {
  kQwen3,              // Qwen3 as first released: thinks unless enable_thinking is false
  kQwen3Instruct2507,  // never thinks
  kQwen3Thinking2507,  // always thinks: the prompt ends with "<think>\n"
  kChatMl,             // messages between <|im_start|> and <|im_end|>, no tools, no thinking
};

// "qwen3", "qwen3-instruct-2507", "qwen3-thinking-2507", "chatml": the values of --chat-format.
const char* ChatFormatName(ChatFormat format);
// Errors: kInvalidArgument, with the names there are.
Result<ChatFormat> ChatFormatFromName(std::string_view name);

// Which format a chat template (the Jinja text itself) is.
//   - One of ours says so in its first line: {#- millpower: qwen3 chat format -#}.
//   - The three Qwen3 templates have all of: the ChatML markers, the sentence that introduces
//     <tools>, <tool_call> and <tool_response>. Then
//       kQwen3:             and reasoning_content, multi_step_tool, enable_thinking;
//       kQwen3Thinking2507: and reasoning_content, multi_step_tool, not enable_thinking, and its
//                           generation prompt opens <think>;
//       kQwen3Instruct2507: and none of reasoning_content, multi_step_tool, enable_thinking, think.
//   - kChatMl is one of the two spellings in use of the one-loop template, white space aside.
//   - Later templates that resemble these are told apart by what only they have: images,
//     parameters as XML, preserved thinking, macros, default system messages, exceptions.
// Errors: kUnsupported; the message names tokenizer_config.json's chat_template and --chat-format.
Result<ChatFormat> DetectChatFormat(std::string_view chat_template);

struct ChatOptions {
  bool add_generation_prompt = true;    // end with the start of the assistant's turn
  std::optional<bool> enable_thinking;  // unset: the format's default
};

// Whether output that follows the generation prompt begins inside <think>.
bool StartsInReasoning(ChatFormat format);

// The prompt, the same bytes as transformers' apply_chat_template gives. `messages` and `tools`
// (an array, or null for none) are as in the OpenAI API.
//   - Content is a string, null (as empty), or parts {"type": "text", "text"}, which are joined
//   with
//     newlines as vLLM does. Other parts are refused.
//   - The role "developer" is "system". Arguments of tool calls are JSON text or an object.
//   - Like the template, drops the reasoning of turns before the last question.
//   - A thinking flag that the format cannot honour is refused rather than ignored.
// Errors: kInvalidArgument, kUnsupported; message and `param` name the field:
// "messages[2].content".
//
// As with transformers, "<|im_end|>" written by a user is a control token once this text is
// tokenised. Who does not trust the conversation passes `untrusted`: it receives the ranges of the
// prompt that came from `messages` and `tools`, for Tokenizer::Encode to leave as text. Other than
// at such marks, the ids are the same.
Result<std::string> RenderChat(ChatFormat format, const Json& messages, const Json& tools,
                               const ChatOptions& options,
                               std::vector<TextRange>* untrusted = nullptr);

}  // namespace millpower::text
