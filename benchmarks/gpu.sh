#!/bin/sh
# On any machine with a CUDA device, under ten minutes: the kernels' tests on the GPU, every kernel benchmark,
# the pipeline's where its dependencies are installed, and a table of launch settings. One JSON in
# ${OUT:-benchmarks/results}. Needs torch, triton and pytest alone, from a bare checkout. Exit code 1: a test
# failed; the benchmarks ran all the same.
#   benchmarks/gpu.sh [--budget SECONDS] [--parts tests kernels pipeline tune] [--smoke]
# PYTHON names another interpreter than python3.
set -eu
cd "$(dirname "$0")/.."
export PYTHONPATH=".:kernels${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
