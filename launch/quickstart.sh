#!/usr/bin/env bash
# The embedded benchmark from files to report: prepare, tune a tiny OPT, evaluate it before and after.
set -euo pipefail
cd "$(dirname "$0")/.."

run=runs/quickstart
step() { printf '\n\033[1m%s\033[0m\n' "$1"; }

step "1/4  Preparing the embedded benchmark"
python -m iml.prepare --gin_file=runs/quickstart/prepare.gin

step "2/4  Tuning a tiny OPT on it"
python -m iml.train --gin_file=runs/quickstart/train.gin --gin.RUN_DIR="$run"

step "3/4  Evaluating the untuned model, 0-shot and 5-shot"
python -m iml.evaluate --gin_file=runs/quickstart/evaluate.gin \
  --gin.MODEL="$run/checkpoints/0" --gin.OUTPUT_DIR="$run/evaluation/untuned"

step "4/4  Evaluating the tuned model, and comparing"
python -m iml.evaluate --gin_file=runs/quickstart/evaluate.gin \
  --gin.MODEL="$run" --gin.OUTPUT_DIR="$run/evaluation/tuned" \
  --gin.evaluate.compare="['$run/evaluation/untuned']"

printf '\nThe report: %s\n' "$run/evaluation/tuned/report.html"
