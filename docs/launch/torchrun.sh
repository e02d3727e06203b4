#!/bin/bash
# Several machines without a scheduler: run this on each of them, with the same run directory on a shared disk.
#   NODES=2 FIRST=10.0.0.1 docs/launch/torchrun.sh lightning_configs/lfdm_mug.yaml [options of `vgen fit`]
# On one machine, the variables may be left out. RESTARTS=3 lets a run that has failed go on by itself.
set -eu

recipe=${1:?name a recipe}
shift
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}

exec torchrun \
  --nnodes="${NODES:-1}" --nproc-per-node="$gpus" \
  --rdzv-backend=c10d --rdzv-endpoint="${FIRST:-127.0.0.1}:${PORT:-29500}" \
  --max-restarts="${RESTARTS:-0}" \
  -m vgen fit --config "$recipe" --resume \
  --all_stages.trainer.accelerator=gpu \
  --all_stages.trainer.devices="$gpus" \
  --all_stages.trainer.num_nodes="${NODES:-1}" \
  --all_stages.trainer.strategy=ddp \
  "$@"
