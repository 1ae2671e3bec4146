#!/usr/bin/env bash
# Trains a small recommender in PyTorch and in Keras on made-up trade data, exports both, serves them with
# Millpower, and asks for rankings. Needs some 6 GB of disk for the two frameworks, in examples/ranking/venv;
# or say where they are: TORCH_PYTHON=... KERAS_PYTHON=... examples/ranking/run.sh, each with what
# requirements.txt has for it and tritonclient[http].
set -euo pipefail
cd "$(dirname "$0")"

make --no-print-directory -C ../.. build
if [ -z "${TORCH_PYTHON:-}${KERAS_PYTHON:-}" ] && [ ! -f venv/.ready ]; then
  python3 -m venv venv
  venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
  touch venv/.ready
fi
TORCH_PYTHON=${TORCH_PYTHON:-venv/bin/python} KERAS_PYTHON=${KERAS_PYTHON:-venv/bin/python}
mkdir -p models
[ -f models/offers-torch.pt2 ] || "$TORCH_PYTHON" train_torch.py models/offers-torch.pt2
[ -d models/offers-keras ] || "$KERAS_PYTHON" train_keras.py models/offers-keras
# The same with the rows of their embedding tables in 8 bits.
../../build/release/millpower compile models/offers-torch.pt2 -o models/offers-torch-int8.mill --tables int8
../../build/release/millpower compile models/offers-keras -o models/offers-keras-int8.mill --tables int8

PORT=${PORT:-8090}
../../build/release/millpower serve --port "$PORT" --max-batch 2048 --log-level warn \
  --model offers-torch=models/offers-torch.pt2 --model offers-keras=models/offers-keras \
  --model offers-torch-int8=models/offers-torch-int8.mill --model offers-keras-int8=models/offers-keras-int8.mill &
server=$!
trap 'kill "$server"; wait "$server" || true' EXIT
for _ in $(seq 120); do
  curl -fs "http://127.0.0.1:$PORT/v2/health/ready" >/dev/null && break
  kill -0 "$server"
  sleep 0.5
done
for model in offers-torch offers-torch-int8 offers-keras offers-keras-int8; do
  echo "== $model"
  "$TORCH_PYTHON" query.py "$model" --url "127.0.0.1:$PORT"
done
