#!/usr/bin/env bash
# Draws every kind of picture once, on public and generated data, small enough for two cores and half an hour.
# Pictures and tables go to results/reference/pictures; what was trained for them is kept in --results and found again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
work=${BENCH_RESULTS:-./running}
small=(--set data.users=800 --set data.items=800 --set data.events_per_user=25)

mkdir -p pictures
for property in popularity history; do
  bench table --results . --dataset ml-100k --by "$property"
done
mv tables/slices_*.md figures/slices_*.png pictures/ && rm -r tables figures
bench ablate m3bsr --dataset synthetic "${small[@]}" --seeds 1 --max-minutes 2 --results "$work"
bench stress --models cmclrec,missrec,m3srec,m3bsr --dataset synthetic "${small[@]}" --seeds 1 --max-minutes 2 --results "$work"
bench sweep gru4rec --dataset ml-100k --trials 10 --max-minutes 0.5 --results "$work"
bench heatmap gru4rec --dataset ml-100k hidden_size=32,64,128 learning_rate=0.02,0.05,0.1 --max-minutes 0.5 --results "$work"
bench heatmap m3bsr --dataset synthetic "${small[@]}" --panel contrast --max-minutes 0.5 --results "$work"
films=$work/films
bench run --models m3bsr,m3bsr:mlp --dataset ml-100k --seeds 1 --max-minutes 2 --keep-model --results "$films"
bench figure embeddings --run m3bsr-seed0 --run m3bsr:mlp-seed0 --color Comedy,Drama,Horror,Action --results "$films"
bench figure diagnostics --run m3bsr-seed0 --results "$films"

rm -f pictures/diagnostics_*.png  # their names hold the key of a cell
cp "$work"/figures/*.png "$films"/figures/*.png pictures/
cp "$work"/tables/*.md pictures/
