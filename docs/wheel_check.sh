#!/usr/bin/env bash
# Build the wheel, install it outside the tree, import every package from there and run the command on its own assets.
# The libraries it needs come from the environment of PYTHON.
set -euo pipefail
python=$(realpath --no-symlinks "${PYTHON:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m build --wheel --outdir "$work/dist" . >/dev/null
"$python" -m pip install --quiet --no-deps --target "$work/site" "$work"/dist/*.whl
cd "$work"
export PYTHONPATH="$work/site" HF_HUB_OFFLINE=1
"$python" - "$work/site" <<'EOF'
import sys
from importlib import import_module
from pathlib import Path

site = Path(sys.argv[1]).resolve()
for name in ("guard", "classifier", "rag", "attribution", "training"):
    home = Path(import_module(name).__file__).resolve()
    assert site in home.parents, f"{name} was imported from {home}, not from the wheel"
unwanted = [str(path) for path in site.glob("*") if path.name in ("tests", "data", "docs", "benchmarks")]
assert not unwanted, f"the wheel ships {unwanted}"
EOF
"$python" -m guard --help >/dev/null
"$python" -m guard check "What is the capital of Australia?" --json
"$python" -m guard ask "How much paracetamol can an adult take in a day?" --json >/dev/null
"$python" -m guard audit heads --testbed --limit 4 --size 1 --asr no --out "$work/audit.json" >/dev/null
echo "the wheel works outside the tree: $(basename "$work"/dist/*.whl), $(du -k "$work"/dist/*.whl | cut -f1) kB"
