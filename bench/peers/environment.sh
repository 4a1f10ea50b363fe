#!/bin/sh
# The Python environment of the peers, outside the checkout; made by name when it is not there. Prints its folder, and
# below it tcmalloc's library where Debian's package could be unpacked.
#
#   bench/peers/environment.sh [FOLDER]
set -eu
versions='torch==2.15.0 transformers==5.24.0 peft==0.21.0 numpy safetensors'
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/luthier-bench/python-torch-2.15.0}

if [ ! -e "$folder/done" ]; then
  rm -rf "$folder"
  mkdir -p "$(dirname "$folder")"
  python3 -m venv "$folder"
  # shellcheck disable=SC2086
  "$folder/bin/pip" install -q --disable-pip-version-check $versions >&2
  touch "$folder/done"
fi
echo "$folder"

library() { find "$folder/tcmalloc" -name 'libtcmalloc_minimal.so.4*' 2>/dev/null | sort | head -1; }
if [ -z "$(library)" ] && command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
  mkdir -p "$folder/tcmalloc"
  (
    cd "$folder/tcmalloc"
    apt-get -qq download libtcmalloc-minimal4 >/dev/null 2>&1 ||
      { apt-get -qq update >/dev/null 2>&1 && apt-get -qq download libtcmalloc-minimal4 >/dev/null 2>&1; }
    dpkg -x libtcmalloc-minimal4_*.deb .
  ) || echo 'tcmalloc could not be had: the peers run without it' >&2
fi
library
