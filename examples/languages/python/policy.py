"""Who is calling, by their API key?"""

import json
import re

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import request_hook, response_hook
from wit_world.imports import request, response
from wit_world.imports.types import Reply

# The consumer of each key: what `configure` has read, for the calls that follow.
consumers: dict[str, str] = {}


class Lifecycle(exports.Lifecycle):
    def configure(self, config: str) -> None:
        consumers.update(read(config))


class RequestHook(exports.RequestHook):
    def on_request(self) -> request_hook.Verdict:
        key = request.header("x-api-key")
        if key is None:
            return problem(401, "Unauthorized", "an API key is needed in x-api-key")
        consumer = consumers.get(key)
        if consumer is None:
            return problem(401, "Unauthorized", "the API key in x-api-key is not accepted")
        try:
            request.set_header("x-consumer", consumer)
            request.remove_header("x-api-key")
        except Err:
            # Otherwise what the client says of itself would count.
            return problem(500, "Internal Server Error", "the consumer cannot be named")
        return request_hook.Verdict_Next()


class ResponseHook(exports.ResponseHook):
    def on_response(self) -> response_hook.Verdict:
        try:
            response.set_header("x-policy", "api-key")
        except Err:
            pass  # A response without it is still a response.
        return response_hook.Verdict_Next()


def read(text: str) -> dict[str, str]:
    """Reads `{"keys": {"consumer": "key"}}`."""
    if is_deep(text):
        raise Err("`config` is nested too deeply")
    try:
        config = json.loads(text)
    except ValueError:
        raise Err("`config` is not valid JSON") from None
    if not isinstance(config, dict):
        raise Err("`config` is not a table")
    for name in config:
        if name != "keys":
            raise Err(f"there is no key `{name}` in `config`")
    keys = config.get("keys")
    if not isinstance(keys, dict) or not keys:
        raise Err("`keys` is not a table of consumers with their keys")
    for consumer, key in keys.items():
        if not isinstance(key, str) or not key:
            raise Err(f"`keys.{consumer}` is not a key")
    return {key: consumer for consumer, key in keys.items()}


def is_deep(text: str) -> bool:
    """Whether a JSON text has more levels than the stack of WebAssembly, which ends before Python's own limit."""
    depth = 0
    for token in re.finditer(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > 100:
            return True
    return False


def problem(status: int, title: str, detail: str) -> request_hook.Verdict:
    """A problem document (RFC 9457) as an answer."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    headers = [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
        ("www-authenticate", "ApiKey"),
    ]
    return request_hook.Verdict_Reply(Reply(status, headers, json.dumps(body).encode()))
