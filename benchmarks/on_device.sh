#!/usr/bin/env bash
# On a machine with a GPU, PyTorch and no network: do its numbers agree, how fast is it, and what becomes of the two
# experiments at the published protocol? Ends itself after nine minutes; what is finished by then is kept.
#
#   OUT=results benchmarks/on_device.sh CARRIED
#
# CARRIED is a folder of what was brought along:
#   tensorflow.npz   what TensorFlow computes on a processor: python tests/on_backend.py CARRIED
#   wheels/          the packages that the machine lacks (pip download -r requirements.lock, less torch and tensorflow)
#   weights.part*    VGG16's ImageNet weights, in parts: split -b 30M vgg16_imagenet_notop.weights.h5 weights.part
#   phantom/         the drawn pictures of the paper profile; without, they are drawn
# In OUT lie afterwards: parity/, gpu.json (for book/), units/ (for book/units), and a log of each step.
set -uo pipefail
cd "$(dirname "$0")/.."
CARRIED=$(realpath "${1:?the folder of what was brought along}")
OUT=$(realpath -m "${OUT:?the folder for what is found}")
PROFILE=${PROFILE:-paper}
SECONDS_IN_ALL=${SECONDS_IN_ALL:-540}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT/parity" "$OUT/mirror"
export KERAS_BACKEND=torch PYTHONUNBUFFERED=1 PYTHONPATH="$PWD" MITOLIB_UNITS="$OUT/units" MITOLIB_MIRROR="$OUT/mirror"

if compgen -G "$CARRIED/weights.part*" > /dev/null; then
  cat "$CARRIED"/weights.part* > "$OUT/mirror/vgg16_imagenet_notop.weights.h5"
fi
if [ -d "$CARRIED/wheels" ]; then
  $PYTHON -m venv --system-site-packages "$OUT/mirror/venv" && PYTHON="$OUT/mirror/venv/bin/python"
  $PYTHON -m pip install --quiet --no-index --no-deps "$CARRIED"/wheels/*.whl > "$OUT/install.log" 2>&1
fi
if [ -d "$CARRIED/phantom" ] && [ ! -e data/phantom/scale-1 ]; then
  mkdir -p data/phantom && cp -r "$CARRIED/phantom" data/phantom/scale-1
fi

# Each step gets the time that is left; one that fails does not keep the next from its turn.
step() {
  local name=$1 left=$((SECONDS_IN_ALL - SECONDS)); shift
  [ "$left" -gt 0 ] || { echo "$name: no time left"; return; }
  timeout --signal=INT --kill-after=10 "$left" "$@" > "$OUT/$name.log" 2>&1
  echo "$name: ended with $? after $SECONDS s of $SECONDS_IN_ALL"
}

step device "$PYTHON" -m mitolib device
step parity "$PYTHON" tests/on_backend.py "$OUT/parity" "$CARRIED/tensorflow.npz"
step bench "$PYTHON" benchmarks/bench_gpu.py "$OUT/gpu.json"
step exp2 "$PYTHON" benchmarks/experiments.py exp2 --profile "$PROFILE" --minutes "$OUT/gpu.json"
step exp1 "$PYTHON" benchmarks/experiments.py exp1 --profile "$PROFILE" --minutes "$OUT/gpu.json"
# What is left is small. Trained weights, 22 MB for each training, are computed again by a chapter that asks for them.
rm -rf "$OUT/mirror" "$OUT"/parity/{features,units,*.h5}
find "$OUT/units" -name '*.weights.npz' -delete
tail -n 4 "$OUT"/*.log
