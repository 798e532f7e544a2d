// Lets through requests that carry a key, and tells the upstream whose it is.

import * as request from "tollgate:policy/request@0.1.0";
import * as response from "tollgate:policy/response@0.1.0";

// The consumer of each key: what `configure` has read, for the calls that follow.
let consumers = new Map();

// QuickJS has no TextEncoder: text of ASCII as bytes.
const bytes = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));

export const lifecycle = {
  // Takes the table `config` as JSON. What is thrown refuses the plugin, with these words.
  configure(config) {
    const { keys } = JSON.parse(config);
    if (typeof keys !== "object" || keys === null || Array.isArray(keys)) {
      throw 'write `config = { keys = { consumer = "key" } }`';
    }
    consumers = new Map();
    for (const [consumer, key] of Object.entries(keys)) {
      if (typeof key !== "string") {
        throw `the key of \`${consumer}\` is not a string`;
      }
      consumers.set(key, consumer);
    }
  },
};

export const requestHook = {
  onRequest() {
    const consumer = consumers.get(request.header("x-api-key") ?? "");
    if (consumer === undefined) {
      return {
        tag: "reply",
        val: {
          status: 401,
          headers: [["www-authenticate", "ApiKey"]],
          body: bytes("a key is needed\n"),
        },
      };
    }
    request.setHeader("x-consumer", consumer);
    return { tag: "next" };
  },
};

export const responseHook = {
  onResponse() {
    response.setHeader("x-policy", "{{name}}");
    return { tag: "next" };
  },
};
