// Who is calling, by their API key?

import {
  accepted,
  next,
  reallocate,
  removeRequestHeader,
  Reply,
  requestHeader,
  setHeaderOfResponse,
  setRequestHeader,
  taken,
} from "./contract";
import { Reader } from "./reader";

// The consumer of each key: what `configure` has read, for the calls that follow.
const consumers = new Map<string, string>();

const missing = problem(401, "Unauthorized", "an API key is needed in x-api-key");
const wrong = problem(401, "Unauthorized", "the API key in x-api-key is not accepted");
const unable = problem(500, "Internal Server Error", "the consumer cannot be named");

function configure(config: usize, length: i32): usize {
  return accepted(read(taken(config, length)));
}

function onRequest(): usize {
  const key = requestHeader("x-api-key");
  if (key === null) return missing.verdict();
  if (!consumers.has(key)) return wrong.verdict();
  const passedOn = setRequestHeader("x-consumer", consumers.get(key)) && removeRequestHeader("x-api-key");
  // Otherwise what the client says of itself would count.
  return passedOn ? next() : unable.verdict();
}

function onResponse(): usize {
  // A response without it is still a response.
  setHeaderOfResponse("x-policy", "api-key");
  return next();
}

// Reads `{"keys": {"consumer": "key"}}`. Null, or what is wrong with it.
function read(text: string): string | null {
  const notJson = "`config` is not valid JSON";
  const reader = new Reader(text);
  if (!reader.take("{")) return "`config` is not a table";
  if (reader.take("}")) return "`keys` is missing";
  do {
    const name = reader.takeString();
    if (name === null || !reader.take(":")) return notJson;
    if (name != "keys") return "there is no key `" + name + "` in `config`";
    if (!reader.take("{") || reader.take("}")) return "`keys` is not a table of consumers with their keys";
    do {
      const consumer = reader.takeString();
      if (consumer === null || !reader.take(":")) return notJson;
      const key = reader.takeString();
      if (key === null || key.length == 0) return "`keys." + consumer + "` is not a key";
      consumers.set(key, consumer);
    } while (reader.take(","));
    if (!reader.take("}")) return notJson;
  } while (reader.take(","));
  return reader.take("}") && reader.isAtEnd() ? null : notJson;
}

// A problem document (RFC 9457) as an answer.
function problem(status: u16, title: string, detail: string): Reply {
  const headers = [
    "content-type", "application/problem+json",
    "cache-control", "no-store",
    "www-authenticate", "ApiKey",
  ];
  const body =
    '{"type":"about:blank","title":"' + title + '","status":' + status.toString() + ',"detail":"' + detail + '"}';
  return new Reply(status, headers, String.UTF8.encode(body));
}

// In place of AssemblyScript's own, which asks for a host of JavaScript.
function abort(message: usize, file: usize, line: u32, column: u32): void {
  unreachable();
}

export {
  reallocate as cabi_realloc,
  configure,
  onRequest,
  onResponse,
};
