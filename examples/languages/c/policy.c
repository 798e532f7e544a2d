// Who is calling, by their API key?

#include <stdlib.h>
#include <string.h>

#include "policy.h"

typedef struct {
  policy_string_t name, key;
} consumer_t;

// What `configure` has read, for the calls that follow.
static consumer_t *consumers;
static size_t consumer_count;

static const char *read_consumers(const policy_string_t *config, policy_string_t *where);
static bool is(const policy_string_t *text, const policy_string_t *other);
static bool pass_on(const policy_string_t *consumer);
static void problem(uint16_t status, const char *body, exports_tollgate_policy_request_hook_verdict_t *verdict);

// Strings that come in are ours to free; those that go out are freed by the bindings, so they are copies.
bool exports_tollgate_policy_lifecycle_configure(policy_string_t *config, policy_string_t *error) {
  policy_string_t where = {0};
  const char *wrong = read_consumers(config, &where);
  policy_string_free(config);
  if (wrong) {
    error->len = where.len + strlen(wrong);
    error->ptr = malloc(error->len);
    memcpy(error->ptr, where.ptr, where.len);
    memcpy(error->ptr + where.len, wrong, error->len - where.len);
  }
  policy_string_free(&where);
  return !wrong;
}

void exports_tollgate_policy_request_hook_on_request(exports_tollgate_policy_request_hook_verdict_t *verdict) {
  policy_string_t name, key;
  policy_string_set(&name, "x-api-key");
  if (!tollgate_policy_request_header(&name, &key)) {
    problem(401,
            "{\"type\":\"about:blank\",\"title\":\"Unauthorized\",\"status\":401,"
            "\"detail\":\"an API key is needed in x-api-key\"}",
            verdict);
    return;
  }
  const consumer_t *found = NULL;
  for (size_t place = 0; place < consumer_count && !found; place++)
    if (is(&consumers[place].key, &key)) found = &consumers[place];
  policy_string_free(&key);

  if (!found) {
    problem(401,
            "{\"type\":\"about:blank\",\"title\":\"Unauthorized\",\"status\":401,"
            "\"detail\":\"the API key in x-api-key is not accepted\"}",
            verdict);
  } else if (!pass_on(&found->name)) {
    // Otherwise what the client says of itself would count.
    problem(500,
            "{\"type\":\"about:blank\",\"title\":\"Internal Server Error\",\"status\":500,"
            "\"detail\":\"the consumer cannot be named\"}",
            verdict);
  } else {
    verdict->tag = EXPORTS_TOLLGATE_POLICY_REQUEST_HOOK_VERDICT_NEXT;
  }
}

void exports_tollgate_policy_response_hook_on_response(exports_tollgate_policy_response_hook_verdict_t *verdict) {
  policy_string_t name, value;
  tollgate_policy_response_header_error_t error;
  policy_string_set(&name, "x-policy");
  policy_string_set(&value, "api-key");
  // A response without it is still a response.
  tollgate_policy_response_set_header(&name, &value, &error);
  verdict->tag = EXPORTS_TOLLGATE_POLICY_RESPONSE_HOOK_VERDICT_NEXT;
}

static bool pass_on(const policy_string_t *consumer) {
  policy_string_t name, value = *consumer;
  tollgate_policy_request_header_error_t error;
  policy_string_set(&name, "x-consumer");
  if (!tollgate_policy_request_set_header(&name, &value, &error)) return false;
  policy_string_set(&name, "x-api-key");
  return tollgate_policy_request_remove_header(&name, &error);
}

// A problem document (RFC 9457) as an answer.
static void problem(uint16_t status, const char *body, exports_tollgate_policy_request_hook_verdict_t *verdict) {
  static const char *const headers[][2] = {
      {"content-type", "application/problem+json"},
      {"cache-control", "no-store"},
      {"www-authenticate", "ApiKey"},
  };
  const size_t count = sizeof headers / sizeof *headers;
  exports_tollgate_policy_request_hook_reply_t *reply = &verdict->val.reply;
  verdict->tag = EXPORTS_TOLLGATE_POLICY_REQUEST_HOOK_VERDICT_REPLY;
  reply->status = status;
  reply->headers.len = count;
  reply->headers.ptr = malloc(count * sizeof *reply->headers.ptr);
  for (size_t place = 0; place < count; place++) {
    policy_string_dup(&reply->headers.ptr[place].f0, headers[place][0]);
    policy_string_dup(&reply->headers.ptr[place].f1, headers[place][1]);
  }
  reply->body.len = strlen(body);
  reply->body.ptr = malloc(reply->body.len);
  memcpy(reply->body.ptr, body, reply->body.len);
}

static bool is(const policy_string_t *text, const policy_string_t *other) {
  return text->len == other->len && memcmp(text->ptr, other->ptr, text->len) == 0;
}

// ---- reading {"keys": {"consumer": "key"}}: objects of strings are all the JSON that there can be ----

typedef struct {
  const uint8_t *at, *end;
} reader_t;

static bool take(reader_t *reader, char character);
static bool take_string(reader_t *reader, policy_string_t *text);

// NULL, or what is wrong; it is said of `where`, which is to be freed.
static const char *read_consumers(const policy_string_t *config, policy_string_t *where) {
  reader_t reader = {config->ptr, config->ptr + config->len};
  policy_string_t keys;
  policy_string_set(&keys, "keys");

  if (!take(&reader, '{')) return "`config` is not a table";
  if (take(&reader, '}')) return "`keys` is missing";
  if (!take_string(&reader, where) || !take(&reader, ':')) return ": `config` is not valid JSON";
  if (!is(where, &keys)) return " is no key of `config`";
  if (!take(&reader, '{')) return " is not a table of consumers with their keys";
  do {
    consumer_t consumer;
    if (!take_string(&reader, &consumer.name)) return " is a table of consumers with their keys, and not of this";
    consumers = realloc(consumers, (consumer_count + 1) * sizeof *consumers);
    if (!take(&reader, ':') || !take_string(&reader, &consumer.key) || consumer.key.len == 0) {
      where->ptr = realloc(where->ptr, 5 + consumer.name.len);
      memcpy(where->ptr, "keys.", 5);
      memcpy(where->ptr + 5, consumer.name.ptr, consumer.name.len);
      where->len = 5 + consumer.name.len;
      return " is not a key";
    }
    consumers[consumer_count++] = consumer;
  } while (take(&reader, ','));
  if (!take(&reader, '}')) return ": `config` is not valid JSON";
  if (take(&reader, ',')) {
    policy_string_free(where);
    bool is_named = take_string(&reader, where);
    return is_named ? " is no key of `config`" : "`config` is not valid JSON";
  }
  // There is no NUL in JSON: looking for one passes over white space at the end.
  if (!take(&reader, '}') || take(&reader, 0) || reader.at != reader.end) return ": `config` is not valid JSON";
  return NULL;
}

// Passes over white space and then this character, if it is the next.
static bool take(reader_t *reader, char character) {
  while (reader->at < reader->end && memchr(" \t\r\n", *reader->at, 4)) reader->at++;
  if (reader->at == reader->end || *reader->at != character) return false;
  reader->at++;
  return true;
}

// Four digits, or -1.
static int32_t take_hexadecimal(reader_t *reader) {
  int32_t number = 0;
  for (int place = 0; place < 4; place++) {
    const char *digits = "0123456789abcdef", *digit;
    if (reader->at == reader->end || !*reader->at || !(digit = strchr(digits, *reader->at | 0x20))) return -1;
    number = number << 4 | (int32_t)(digit - digits);
    reader->at++;
  }
  return number;
}

static size_t write_utf8(uint8_t *to, int32_t character) {
  if (character < 0x80) {
    to[0] = character;
    return 1;
  }
  size_t length = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
  for (size_t place = length - 1; place > 0; place--, character >>= 6) to[place] = 0x80 | (character & 0x3f);
  to[0] = (0xf00 >> length) | character;
  return length;
}

static bool take_string(reader_t *reader, policy_string_t *text) {
  if (!take(reader, '"')) return false;
  // No escape is shorter than what it stands for.
  text->ptr = malloc(reader->end - reader->at + 1);
  text->len = 0;
  while (reader->at < reader->end && *reader->at >= ' ') {
    uint8_t byte = *reader->at++;
    if (byte == '"') {
      text->ptr = realloc(text->ptr, text->len + 1);
      return true;
    }
    if (byte != '\\') {
      text->ptr[text->len++] = byte;
      continue;
    }
    if (reader->at == reader->end) break;
    byte = *reader->at++;
    const char *names = "\"\\/bfnrt", *name = byte ? strchr(names, byte) : NULL;
    if (name) {
      text->ptr[text->len++] = "\"\\/\b\f\n\r\t"[name - names];
      continue;
    }
    int32_t character = byte == 'u' ? take_hexadecimal(reader) : -1;
    if (character >= 0xd800 && character < 0xdc00) {
      int32_t low = -1;
      if (reader->end - reader->at > 2 && reader->at[0] == '\\' && reader->at[1] == 'u') {
        reader->at += 2;
        low = take_hexadecimal(reader);
      }
      character = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((character - 0xd800) << 10) + (low - 0xdc00) : -1;
    } else if (character >= 0xdc00 && character < 0xe000) {
      character = -1;
    }
    if (character < 0) break;
    text->len += write_utf8(text->ptr + text->len, character);
  }
  policy_string_free(text);
  return false;
}
