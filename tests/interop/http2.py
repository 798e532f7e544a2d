"""HTTP/2 and gRPC through the proxy, with clients that nobody here wrote.

    tests/interop/run [PATH OF TOLLGATE]

makes what this needs and runs it. Each check says what it saw; the exit code is the number of those that failed.
"""

import concurrent.futures
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import grpc
import httpx

failed = []


def check(name, holds, seen):
    print(f"{'ok    ' if holds else 'FAILED'} {name}: {seen}")
    if not holds:
        failed.append(name)


def skipped(name, why):
    print(f"skipped {name}: {why}")


# -- a service without a schema: messages are bytes -------------------------------------------------------------


class Service(grpc.GenericRpcHandler):
    def service(self, call):
        method = call.method.rsplit("/", 1)[1]
        if method == "Unary":
            return grpc.unary_unary_rpc_method_handler(self.unary)
        if method == "Server":
            return grpc.unary_stream_rpc_method_handler(lambda request, _: (request + b"%d" % n for n in range(5)))
        if method == "Client":
            return grpc.stream_unary_rpc_method_handler(lambda requests, _: b"|".join(requests))
        if method == "Both":
            return grpc.stream_stream_rpc_method_handler(lambda requests, _: (b"<" + one + b">" for one in requests))
        return None

    @staticmethod
    def unary(request, context):
        if request == b"slow":
            time.sleep(5)
        if request == b"refuse":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100% für")
        context.set_trailing_metadata((("x-trailer", "there"),))
        return request[::-1]


def code(call):
    try:
        call()
        return None, ""
    except grpc.RpcError as error:
        return error.code(), error.details()


def calls(address):
    with grpc.insecure_channel(address) as channel:
        unary = channel.unary_unary("/test.Service/Unary")
        answer, call = unary.with_call(b"hello", timeout=10)
        trailers = dict(call.trailing_metadata())
        check("unary", answer == b"olleh" and trailers.get("x-trailer") == "there", (answer, trailers))
        large = os.urandom(3 << 20)
        check("unary, 3 MiB", unary(large, timeout=20) == large[::-1], "as sent")
        seen = list(channel.unary_stream("/test.Service/Server")(b"n", timeout=10))
        check("server streams", seen == [b"n%d" % n for n in range(5)], seen)
        seen = channel.stream_unary("/test.Service/Client")(iter([b"a", b"b", b"c"]), timeout=10)
        check("client streams", seen == b"a|b|c", seen)
        answered = []

        def one_after_the_answer_to_the_other():
            for n in range(5):
                while len(answered) < n:
                    time.sleep(0.005)
                yield b"%d" % n

        for answer in channel.stream_stream("/test.Service/Both")(one_after_the_answer_to_the_other(), timeout=10):
            answered.append(answer)
        check("both stream", answered == [b"<%d>" % n for n in range(5)], answered)
        seen = code(lambda: unary(b"refuse", timeout=10))
        check("an error of the service", seen == (grpc.StatusCode.FAILED_PRECONDITION, "not now: 100% für"), seen)
        seen = code(lambda: unary(b"slow", timeout=0.3))
        check("a deadline", seen[0] == grpc.StatusCode.DEADLINE_EXCEEDED, seen)
        seen = code(lambda: channel.unary_unary("/test.Service/None")(b"", timeout=10))
        check("a method that is not there", seen[0] == grpc.StatusCode.UNIMPLEMENTED, seen)
        seen = code(lambda: channel.unary_unary("/nobody.Service/Unary")(b"", timeout=10))
        check("an upstream that is not there", seen[0] == grpc.StatusCode.UNAVAILABLE, seen)
        seen = code(lambda: channel.unary_unary("/keyed.Service/Unary")(b"", timeout=10))
        check("a plugin that refuses", seen[0] == grpc.StatusCode.UNAUTHENTICATED, seen)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            seen = set(pool.map(lambda _: unary(b"many", timeout=20), range(400)))
        check("400 calls, 16 at once", seen == {b"ynam"}, seen)


def requests(url):
    with httpx.Client(http1=False, http2=True) as client:
        response = client.post(url + "/h1", content=b"x" * 100_000)
        check("httpx", (response.http_version, response.status_code) == ("HTTP/2", 200), response)
    for name, command in [
        ("curl", ["curl", "-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_version} %{response_code}"]),
        ("curl, upload", ["curl", "-sS", "--http2-prior-knowledge", "--data-binary", "@/bin/sh", "-o", "/dev/null", "-w", "%{http_version} %{response_code}"]),
    ]:
        if not shutil.which(command[0]):
            skipped(name, "not installed")
            continue
        seen = subprocess.run([*command, url + "/h1"], capture_output=True, text=True, timeout=60)
        check(name, seen.stdout == "2 200", seen.stdout + seen.stderr)
    if not shutil.which("h2load"):
        return skipped("h2load", "not installed")
    seen = subprocess.run(
        ["h2load", "-n", "2000", "-c", "10", "-m", "20", url + "/h1"], capture_output=True, text=True, timeout=120
    )
    line = next((line for line in seen.stdout.splitlines() if line.startswith("requests:")), seen.stdout)
    check("h2load", "2000 succeeded, 0 failed, 0 errored" in line, line)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port):
    for _ in range(400):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nobody listens on {port}")


def main(tollgate):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((Service(),))
    service = server.add_insecure_port("127.0.0.1:0")
    server.start()
    proxy, backend = free_port(), free_port()
    running = []
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/config.toml", "w") as file:
            file.write(f"""
listeners = [{{ address = "127.0.0.1:{proxy}" }}]
log = {{ access = false }}
routes = [
  {{ upstream = "service", match = {{ path = "/test.Service" }} }},
  {{ upstream = "nobody", match = {{ path = "/nobody.Service" }} }},
  {{ upstream = "service", match = {{ path = "/keyed.Service" }}, plugins = ["api-key"] }},
  {{ upstream = "backend", match = {{ path = "/h1" }} }},
]
[upstreams]
service = {{ endpoints = ["http://127.0.0.1:{service}"], protocol = "h2" }}
nobody = {{ endpoints = ["http://127.0.0.1:{free_port()}"], protocol = "h2" }}
backend = {{ endpoints = ["http://127.0.0.1:{backend}"] }}
[plugins.api-key]
config = {{ keys = {{ demo = "k1" }} }}
""")
        try:
            running.append(subprocess.Popen([tollgate, "backend", "--port", str(backend)]))
            running.append(subprocess.Popen([tollgate, "run", "--config", f"{folder}/config.toml"]))
            wait_for(backend)
            wait_for(proxy)
            calls(f"127.0.0.1:{proxy}")
            requests(f"http://127.0.0.1:{proxy}")
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(30)
            server.stop(None)
    print(f"{len(failed)} failed" if failed else "all is well")
    sys.exit(len(failed))


if __name__ == "__main__":
    main(sys.argv[1])
