// Who is calling, by their API key?

import * as request from "tollgate:policy/request@0.1.0";
import * as response from "tollgate:policy/response@0.1.0";

// The consumer of each key: what `configure` has read, for the calls that follow.
let consumers = new Map();

export const lifecycle = {
  // What is thrown refuses the configuration, with these words.
  configure(config) {
    consumers = read(config);
  },
};

export const requestHook = {
  onRequest() {
    const key = request.header("x-api-key");
    // An absent option is null.
    if (key === null) {
      return problem(401, "Unauthorized", "an API key is needed in x-api-key");
    }
    const consumer = consumers.get(key);
    if (consumer === undefined) {
      return problem(401, "Unauthorized", "the API key in x-api-key is not accepted");
    }
    try {
      request.setHeader("x-consumer", consumer);
      request.removeHeader("x-api-key");
    } catch {
      // Otherwise what the client says of itself would count.
      return problem(500, "Internal Server Error", "the consumer cannot be named");
    }
    return { tag: "next" };
  },
};

export const responseHook = {
  onResponse() {
    try {
      response.setHeader("x-policy", "api-key");
    } catch {
      // A response without it is still a response.
    }
    return { tag: "next" };
  },
};

// Reads `{"keys": {"consumer": "key"}}`.
function read(text) {
  const config = parse(text);
  if (!isTable(config)) {
    throw "`config` is not a table";
  }
  const unknown = Object.keys(config).find((name) => name !== "keys");
  if (unknown !== undefined) {
    throw `there is no key \`${unknown}\` in \`config\``;
  }
  if (!isTable(config.keys) || Object.keys(config.keys).length === 0) {
    throw "`keys` is not a table of consumers with their keys";
  }
  const consumers = new Map();
  for (const [consumer, key] of Object.entries(config.keys)) {
    if (typeof key !== "string" || key === "") {
      throw `\`keys.${consumer}\` is not a key`;
    }
    consumers.set(key, consumer);
  }
  return consumers;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw "`config` is not valid JSON";
  }
}

function isTable(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// A problem document (RFC 9457) as an answer.
function problem(status, title, detail) {
  const headers = [
    ["content-type", "application/problem+json"],
    ["cache-control", "no-store"],
    ["www-authenticate", "ApiKey"],
  ];
  const body = bytes(JSON.stringify({ type: "about:blank", title, status, detail }));
  return { tag: "reply", val: { status, headers, body } };
}

// QuickJS has no TextEncoder: text of ASCII as bytes.
function bytes(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
