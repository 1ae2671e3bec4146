#include "text/added_tokens.h"

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

namespace millpower::text {

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::ranges::sort(tokens_, {}, [](const AddedToken& token) {
    return std::tie(token.content, token.id);  // ids only to have one order
  });
  const auto repeated = std::ranges::unique(tokens_, {}, &AddedToken::content);
  tokens_.erase(repeated.begin(), repeated.end());
  for (const AddedToken& token : tokens_)
    first_bytes_.set(static_cast<unsigned char>(token.content[0]));
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::Find(std::string_view text,
                                                                size_t from) const {
  if (empty()) return std::nullopt;
  for (size_t i = from; i < text.size(); ++i) {
    if (!first_bytes_[static_cast<unsigned char>(text[i])]) continue;
    if (const AddedToken* token = LongestAt(text.substr(i)))
      return Match{token, i, i + token->content.size()};
  }
  return std::nullopt;
}

// Narrows the sorted tokens byte by byte to those that begin as the text does; the first of them is
// then the only one that can be complete.
const AddedToken* AddedTokenMatcher::LongestAt(std::string_view text) const {
  const AddedToken* longest = nullptr;
  auto candidates = std::ranges::subrange(tokens_.begin(), tokens_.end());
  for (size_t depth = 0; depth < text.size(); ++depth) {
    candidates = std::ranges::equal_range(candidates, static_cast<unsigned char>(text[depth]), {},
                                          [depth](const AddedToken& token) {
                                            return static_cast<unsigned char>(token.content[depth]);
                                          });
    // A token that ends here sorts before those that go on.
    if (!candidates.empty() && candidates.front().content.size() == depth + 1) {
      longest = &candidates.front();
      candidates.advance(1);
    }
    if (candidates.empty()) break;
  }
  return longest;
}

}  // namespace millpower::text
