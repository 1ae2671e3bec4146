// Finds the added tokens (such as <|im_start|>) in a text. Immutable, thread-safe.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millpower::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;      // a control token, left out by skip_special
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // is looked for after normalisation, in its normalised form
};

// A search costs at most this many steps per byte of text.
inline constexpr size_t kMaxAddedTokenBytes = 1024;

class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  // Contents are of 1 to kMaxAddedTokenBytes bytes; of equal ones the lowest id counts.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }

  struct Match {
    const AddedToken* token;
    size_t begin, end;  // bytes
  };
  // The longest token at the leftmost position >= `from` where there is one; flags are not heeded.
  std::optional<Match> Find(std::string_view text, size_t from) const;

 private:
  const AddedToken* LongestAt(std::string_view text) const;

  std::vector<AddedToken> tokens_;  // sorted by content
  std::bitset<256> first_bytes_;
};

}  // namespace millpower::text
