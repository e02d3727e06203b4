#!/bin/bash
# Several machines without a scheduler: run this on each of them, with the same run directory on a shared disk.
#   NODES=2 NODE=0 FIRST=10.0.0.1 docs/launch/torchrun.sh lightning_configs/lfdm_mug.yaml [options of `vgen fit`]
# On one machine, the variables may be left out.
set -eu

recipe=${1:?name a recipe}
shift
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}

exec torchrun \
  --nnodes="${NODES:-1}" --node-rank="${NODE:-0}" --nproc-per-node="$gpus" \
  --master-addr="${FIRST:-127.0.0.1}" --master-port="${PORT:-29500}" \
  --max-restarts="${RESTARTS:-0}" \
  -m vgen fit --config "$recipe" --resume \
  --all_stages.trainer.accelerator=gpu \
  --all_stages.trainer.devices="$gpus" \
  --all_stages.trainer.num_nodes="${NODES:-1}" \
  --all_stages.trainer.strategy=ddp \
  "$@"
