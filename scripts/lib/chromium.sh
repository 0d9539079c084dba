# Sourced by scripts/test, after venv.sh. Finds or installs the browser of the browser tests.
# shellcheck shell=bash

# ensure_chromium: leaves a Chromium on the PATH, unless PARAGONE_CHROMIUM names one elsewhere. Where that cannot be done it says so, and the
# browser tests skip themselves; under CI that is a failure instead, as nobody would see the skip.
ensure_chromium() {
  _has_chromium && return
  if command -v apt-get >/dev/null && [[ $(id -u) == 0 ]]; then
    say "installing chromium for the browser tests"
    # The lists of a fresh container are empty, those of an old one outdated.
    if { _run apt-get update && _run env DEBIAN_FRONTEND=noninteractive apt-get install \
      --yes --no-install-recommends chromium; } >/dev/null; then
      _has_chromium && return
    fi
    say "chromium could not be installed"
  else
    say "no Chromium: install one (Debian: apt-get install chromium) to run the browser tests"
  fi
  [[ ${CI:-} != true ]] || exit 1
}

# ensure_chinese_font: leaves a font for Chinese, without which pictures of the page show boxes.
ensure_chinese_font() {
  command -v fc-list >/dev/null && [[ -n $(fc-list :lang=zh) ]] && return
  if command -v apt-get >/dev/null && [[ $(id -u) == 0 ]]; then
    say "installing a font for Chinese"
    if { _run apt-get update && _run env DEBIAN_FRONTEND=noninteractive apt-get install \
      --yes --no-install-recommends fonts-wqy-microhei; } >/dev/null; then
      return
    fi
  fi
  say "no font for Chinese: install one (Debian: apt-get install fonts-wqy-microhei)"
  return 1
}

_has_chromium() {
  [[ -n ${PARAGONE_CHROMIUM:-} ]] && return
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
    command -v google-chrome >/dev/null
}
