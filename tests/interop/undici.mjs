// What undici sees of the proxy: node undici.mjs MODULES BASE AUTHORITY BODY VERSION. Prints it as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [, , modules, base, authority, bodyFile, version] = process.argv;
const { Agent, fetch } = createRequire(modules + "/")("undici");
const dispatcher = new Agent({ allowH2: version === "2", connect: { ca: readFileSync(authority) } });
const body = readFileSync(bodyFile);

const text = async (path, options) => (await fetch(base + path, { dispatcher, ...options })).text();
const answers = await Promise.all(Array.from({ length: 50 }, () => text("/hello")));
const echo = await text("/echo", { method: "POST", body });
const stream = await (await fetch(base + "/stream", { dispatcher })).arrayBuffer();
console.log(JSON.stringify({ hello: answers.filter((one) => one === "hello").length, echo, stream: stream.byteLength }));
await dispatcher.close();
