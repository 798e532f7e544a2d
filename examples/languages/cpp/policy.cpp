// Who is calling, by their API key?

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "policy.h"

namespace {

using Consumers = std::unordered_map<std::string, std::string>;

// The consumer of each key: what `configure` has read, for the calls that follow.
Consumers consumers;

// What comes in belongs to us, and is copied.
std::string taken(policy_string_t text) {
  std::string copy(reinterpret_cast<const char *>(text.ptr), text.len);
  policy_string_free(&text);
  return copy;
}

// Lent to the host for a call.
policy_string_t lent(std::string_view text) {
  return {reinterpret_cast<uint8_t *>(const_cast<char *>(text.data())), text.size()};
}

// What goes out is freed by the bindings, so it is a copy.
policy_string_t given(std::string_view text) {
  policy_string_t copy;
  policy_string_dup_n(&copy, text.data(), text.size());
  return copy;
}

std::optional<std::string> request_header(std::string_view name) {
  policy_string_t lent_name = lent(name), value;
  // Without a header, `value` is whatever it was, and must not be freed.
  if (!tollgate_policy_request_header(&lent_name, &value)) return {};
  return taken(value);
}

bool set_request_header(std::string_view name, std::string_view value) {
  policy_string_t lent_name = lent(name), lent_value = lent(value);
  tollgate_policy_request_header_error_t error;
  return tollgate_policy_request_set_header(&lent_name, &lent_value, &error);
}

bool remove_request_header(std::string_view name) {
  policy_string_t lent_name = lent(name);
  tollgate_policy_request_header_error_t error;
  return tollgate_policy_request_remove_header(&lent_name, &error);
}

// A problem document (RFC 9457) as an answer.
void problem(uint16_t status, std::string_view title, std::string_view detail,
             exports_tollgate_policy_request_hook_verdict_t &verdict) {
  const std::vector<std::pair<std::string_view, std::string_view>> headers = {
      {"content-type", "application/problem+json"},
      {"cache-control", "no-store"},
      {"www-authenticate", "ApiKey"},
  };
  std::string body = R"({"type":"about:blank","title":")";
  body.append(title).append(R"(","status":)").append(std::to_string(status));
  body.append(R"(,"detail":")").append(detail).append(R"("})");

  verdict.tag = EXPORTS_TOLLGATE_POLICY_REQUEST_HOOK_VERDICT_REPLY;
  auto &reply = verdict.val.reply;
  reply.status = status;
  reply.headers.len = headers.size();
  reply.headers.ptr = static_cast<tollgate_policy_types_header_t *>(
      std::malloc(headers.size() * sizeof(tollgate_policy_types_header_t)));
  std::transform(headers.begin(), headers.end(), reply.headers.ptr, [](const auto &header) {
    return tollgate_policy_types_header_t{given(header.first), given(header.second)};
  });
  const policy_string_t bytes = given(body);
  reply.body = {bytes.ptr, bytes.len};
}

// Reads JSON that has nothing but objects and strings, which is all that there can be.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  // Passes over white space and then this character, if it is the next.
  bool take(char character) {
    skip_space();
    if (!rest_.starts_with(character)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  bool is_at_end() {
    skip_space();
    return rest_.empty();
  }

  std::optional<std::string> take_string() {
    if (!take('"')) return {};
    std::string text;
    while (!rest_.empty() && static_cast<uint8_t>(rest_.front()) >= ' ') {
      const char character = next();
      if (character == '"') return text;
      if (character != '\\') {
        text.push_back(character);
      } else if (!take_escape(text)) {
        break;
      }
    }
    return {};
  }

 private:
  void skip_space() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size())); }

  char next() {
    const char character = rest_.front();
    rest_.remove_prefix(1);
    return character;
  }

  bool take_escape(std::string &text) {
    static constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    if (rest_.empty()) return false;
    const char name = next();
    if (const auto place = names.find(name); place != names.npos) {
      text.push_back(meanings[place]);
      return true;
    }
    auto character = name == 'u' ? take_hexadecimal() : std::nullopt;
    if (character >= 0xdc00 && character < 0xe000) return false;
    if (character >= 0xd800 && character < 0xdc00) {
      if (!rest_.starts_with("\\u")) return false;
      rest_.remove_prefix(2);
      const auto low = take_hexadecimal();
      if (!low || *low < 0xdc00 || *low >= 0xe000) return false;
      character = 0x10000 + ((*character - 0xd800) << 10) + (*low - 0xdc00);
    }
    if (character) push_utf8(text, *character);
    return character.has_value();
  }

  std::optional<uint32_t> take_hexadecimal() {
    static constexpr std::string_view digits = "0123456789abcdef";
    uint32_t number = 0;
    for (int place = 0; place < 4; place++) {
      const auto digit = rest_.empty() ? digits.npos : digits.find(static_cast<char>(next() | 0x20));
      if (digit == digits.npos) return {};
      number = number << 4 | static_cast<uint32_t>(digit);
    }
    return number;
  }

  static void push_utf8(std::string &text, uint32_t character) {
    if (character < 0x80) {
      text.push_back(static_cast<char>(character));
      return;
    }
    const int more = character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
    text.push_back(static_cast<char>((0xf80 >> more) | (character >> (6 * more))));
    for (int shift = 6 * (more - 1); shift >= 0; shift -= 6)
      text.push_back(static_cast<char>(0x80 | (character >> shift & 0x3f)));
  }

  std::string_view rest_;
};

// Reads `{"keys": {"consumer": "key"}}`; otherwise what is wrong with it.
std::variant<Consumers, std::string> read(std::string_view config) {
  const auto not_json = "`config` is not valid JSON";
  Reader reader(config);
  Consumers consumers;
  if (!reader.take('{')) return "`config` is not a table";
  if (reader.take('}')) return "`keys` is missing";
  do {
    const auto name = reader.take_string();
    if (!name || !reader.take(':')) return not_json;
    if (*name != "keys") return "there is no key `" + *name + "` in `config`";
    if (!reader.take('{') || reader.take('}')) return "`keys` is not a table of consumers with their keys";
    do {
      auto consumer = reader.take_string();
      if (!consumer || !reader.take(':')) return not_json;
      const auto key = reader.take_string();
      if (!key || key->empty()) return "`keys." + *consumer + "` is not a key";
      consumers.insert_or_assign(*key, *consumer);
    } while (reader.take(','));
    if (!reader.take('}')) return not_json;
  } while (reader.take(','));
  if (!reader.take('}') || !reader.is_at_end()) return not_json;
  return consumers;
}

}  // namespace

bool exports_tollgate_policy_lifecycle_configure(policy_string_t *config, policy_string_t *error) {
  auto result = read(taken(*config));
  if (const auto *wrong = std::get_if<std::string>(&result)) {
    *error = given(*wrong);
    return false;
  }
  consumers = std::get<Consumers>(std::move(result));
  return true;
}

void exports_tollgate_policy_request_hook_on_request(exports_tollgate_policy_request_hook_verdict_t *verdict) {
  const auto key = request_header("x-api-key");
  if (!key) {
    return problem(401, "Unauthorized", "an API key is needed in x-api-key", *verdict);
  }
  const auto found = consumers.find(*key);
  if (found == consumers.end()) {
    return problem(401, "Unauthorized", "the API key in x-api-key is not accepted", *verdict);
  }
  if (!set_request_header("x-consumer", found->second) || !remove_request_header("x-api-key")) {
    // Otherwise what the client says of itself would count.
    return problem(500, "Internal Server Error", "the consumer cannot be named", *verdict);
  }
  verdict->tag = EXPORTS_TOLLGATE_POLICY_REQUEST_HOOK_VERDICT_NEXT;
}

void exports_tollgate_policy_response_hook_on_response(exports_tollgate_policy_response_hook_verdict_t *verdict) {
  policy_string_t name = lent("x-policy"), value = lent("api-key");
  tollgate_policy_response_header_error_t error;
  // A response without it is still a response.
  tollgate_policy_response_set_header(&name, &value, &error);
  verdict->tag = EXPORTS_TOLLGATE_POLICY_RESPONSE_HOOK_VERDICT_NEXT;
}
