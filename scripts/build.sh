#!/usr/bin/env bash
# Builds the wheel and the source distribution from the tracked files. The same files and the same commit give the same
# two archives, byte for byte.
#
#   bash scripts/build.sh            into dist/
#   bash scripts/build.sh FOLDER     PYTHON=python3.12 bash scripts/build.sh
set -euo pipefail
mkdir -p "${1:-$(dirname "$0")/../dist}"
out=$(cd "${1:-$(dirname "$0")/../dist}" && pwd)
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-$PWD/.venv/bin/python}
"$PYTHON" -m build --version >/dev/null 2>&1 ||
    { echo "[build] error: $PYTHON has no module build; run bash scripts/setup.sh, or set PYTHON" >&2; exit 2; }
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Owners, permissions and times that do not depend on this checkout.
plain=(--sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX "--mtime=@$SOURCE_DATE_EPOCH" --format=ustar)
umask 022
mkdir "$work/source" "$work/sdist"
git ls-files -z | tar -c "${plain[@]}" --null -T - | tar -x -C "$work/source"

"$PYTHON" -m build --no-isolation --outdir "$work/dist" "$work/source" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; echo "[build] error: see the lines above" >&2; exit 1; }
# setuptools writes the current time into the source distribution; the archive is packed again without it.
for sdist in "$work"/dist/*.tar.gz; do
    tar -xzf "$sdist" -C "$work/sdist"
    tar -c "${plain[@]}" -C "$work/sdist" "$(basename "$sdist" .tar.gz)" | gzip -n9 >"$sdist"
done
mv "$work"/dist/* "$out"
echo "[build] $out:"
(cd "$out" && sha256sum -- *.whl *.tar.gz)
