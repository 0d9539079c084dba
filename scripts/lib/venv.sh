# Sourced by the scripts. Keeps a virtual environment in step with pyproject.toml and
# configs/constraints.txt; sets ROOT (the repository) and VENV (PARAGONE_VENV, or ROOT/.venv).
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=${PARAGONE_VENV:-$ROOT/.venv}

say() { printf 'paragone: %s\n' "$*" >&2; }

# ensure_venv EXTRAS: creates VENV and installs the repository with at least these extras
# ("worker,webui"). Costs next to nothing where that has been done. What an interrupted run left
# behind is repaired by the next one, as the stamp is written last.
ensure_venv() {
  local extras=$1
  _is_installed "$extras" && return
  mkdir -p "$VENV"
  if command -v flock >/dev/null; then
    # Two scripts started together: the second waits and finds the work done.
    exec 9>"$VENV/.lock"
    flock --nonblock 9 || { say "waiting for another installation into $VENV"; flock 9; }
    _is_installed "$extras" || _install "$extras"
    exec 9>&-
  else
    _install "$extras"
  fi
}

_is_installed() {
  local stamp=$VENV/installed extra
  [[ -x $VENV/bin/python && -f $stamp/extras ]] || return 1
  cmp -s "$ROOT/pyproject.toml" "$stamp/pyproject.toml" || return 1
  cmp -s "$ROOT/configs/constraints.txt" "$stamp/constraints.txt" || return 1
  for extra in ${1//,/ }; do
    [[ ,$(<"$stamp/extras"), == *",$extra,"* ]] || return 1
  done
}

_install() {
  local stamp=$VENV/installed extras=$1 started=$SECONDS python
  # What was installed before stays wanted: `scripts/demo` takes nothing from `scripts/test`.
  [[ -f $stamp/extras ]] && extras=$(_union "$extras,$(<"$stamp/extras")")
  if ! "$VENV/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(_find_python) || exit 1
    say "creating $VENV with $("$python" --version)"
    _run "$python" -m venv --clear "$VENV" || {
      say "the environment could not be created; the message above says why"
      exit 1
    }
  fi
  say "installing paragone[$extras] (the first time: some minutes and 2 GB or more)"
  local quiet=(--quiet --quiet)
  [[ -t 2 ]] && quiet=()
  rm -rf "$stamp"
  _run "$VENV/bin/python" -m pip install "${quiet[@]+"${quiet[@]}"}" --disable-pip-version-check \
    --constraint "$ROOT/configs/constraints.txt" --editable "$ROOT[$extras]" || {
    say "the installation failed; pip's message above says why. Run this again to go on."
    exit 1
  }
  mkdir -p "$stamp"
  cp "$ROOT/pyproject.toml" "$ROOT/configs/constraints.txt" "$stamp/"
  printf '%s' "$extras" >"$stamp/extras"
  say "installed in $((SECONDS - started)) s"
}

_union() { tr ',' '\n' <<<"$1" | sort -u | paste -s -d , -; }

# The interpreter to build on: PYTHON if it is set, else the first that is new enough.
_find_python() {
  local candidate seen=
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    command -v "$candidate" >/dev/null || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      if ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        say "$candidate cannot make virtual environments; on Debian: apt-get install python3-venv"
        return 1
      fi
      printf '%s' "$candidate"
      return
    fi
    seen+=" $candidate ($("$candidate" --version 2>&1 | head -n 1))"
  done
  say "Python 3.11 or newer is needed; found:${seen:- none}. Install one, or name it: PYTHON=/path/to/python3.11 $0"
  return 1
}

# Runs a command so that a SIGTERM to this script stops it too: bash would wait for its end first.
_run() {
  local child status=0 interrupted=0
  "$@" &
  child=$!
  trap 'interrupted=143' TERM
  trap 'interrupted=130' INT
  wait "$child" || status=$?
  trap - TERM INT
  if ((interrupted)); then
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
    say "interrupted"
    exit "$interrupted"
  fi
  return "$status"
}
