#!/usr/bin/env bash
# Trains every model to early stopping and keeps the records here; what is there already is not run again.
#
#   results/reference/make.sh MOVIELENS_WITH_POSTERS TAOBAO
#
# MOVIELENS_WITH_POSTERS: folder with ratings.csv(.gz), movies.csv(.gz) and posters/ of MovieLens latest-small.
# TAOBAO: folder with the events of the Taobao cart/fav/buy sample. Without them their tables are left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
work=${BENCH_RESULTS:-./running}  # checkpoints and tables stay out of the records
movielens=${1:-} taobao=${2:-}

keep() {  # copies finished records, nothing else
  find "$work/cells" -name record.json -exec grep -l '"status": "done"' {} + | while read -r record; do
    folder=cells/${record#"$work/cells/"}
    mkdir -p "$(dirname "$folder")"
    find "$(dirname "$record")" \( -name record.json -o -name ranks.npz -o -name pairs.npz \) \
      -exec cp -t "$(dirname "$folder")" {} +
  done
}
trap keep EXIT

sets=(ml-100k)
if [ -n "$movielens" ]; then
  sets+=(ml-posters)
  bench data stats ml-posters >/dev/null 2>&1 ||
    bench data prepare movielens --raw "$movielens" --name ml-posters --encoder efficientnet --set rule=disjoint
fi
if [ -n "$taobao" ]; then
  sets+=(taobao-fav)
  bench data stats taobao-fav >/dev/null 2>&1 ||
    bench data prepare table --raw "$taobao" --name taobao-fav \
      --set user=user_id --set item=item_id --set behaviors=cart,buy,fav
fi
for seeds in 1 3; do  # one seed of everything first
  for set in "${sets[@]}"; do
    bench run --models all --dataset "$set" --seeds "$seeds" --results "$work"
  done
done
bench run --task ctr --models popularity,gru4rec,sasrec,dnn,din,diff_msin,m3bsr --dataset ml-100k --seeds 1 --results "$work"
