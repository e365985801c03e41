#!/bin/bash
# A run on nodes of Slurm: `sbatch examples/cluster/slurm.sh`, in a checkout with .venv on a file system
# that all nodes share. What follows goes to the run, such as `--steps 500`. The first GPU of the first node learns; a
# worker plays on each of the others. Replace partition, nodes, GPUs, cores and time by your own.
#SBATCH --job-name=llmgym
#SBATCH --partition=gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
# shellcheck source=/dev/null
source .venv/bin/activate

gpus=${CUDA_VISIBLE_DEVICES:?'expected GPUs in this allocation'}
workers=$((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE - 1))
if ((workers < 1)); then
    echo "Expected at least two GPUs, one that learns and one that plays; got one." >&2
    exit 1
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_ip=$(getent ahostsv4 "${nodes[0]}" | awk 'NR == 1 { print $1 }')
if [[ -z $head_ip || $head_ip == 127.* ]]; then
    echo "${nodes[0]} has the address '$head_ip', which other nodes cannot reach; set head_ip in slurm.sh." >&2
    exit 1
fi
# Ray's workers have ports from 10002 to 19999. Jobs that share a node need ports and directories of their own.
address=$head_ip:$((20000 + SLURM_JOB_ID % 10000))
here=/tmp/ray-$SLURM_JOB_ID

# A token that only this job has: without it, every user of the nodes could run programs as you.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0

ray_steps=()
start_ray() { # NODE COMMAND ...: a job step in which Ray stays until it is told to end
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" --cpus-per-task="$SLURM_CPUS_PER_TASK" "${@:2}" &
    ray_steps+=($!)
}
# `ray stop` would end every Ray that you have on these nodes; this ends those of this job.
stop_ray() {
    kill "${ray_steps[@]}" 2>/dev/null || true
    for _ in {1..30}; do
        kill -0 "${ray_steps[@]}" 2>/dev/null || break
        sleep 1
    done
}
trap stop_ray EXIT

start_ray "${nodes[0]}" env "CUDA_VISIBLE_DEVICES=${gpus#*,}" \
    ray start --head --block --node-ip-address="$head_ip" --port="${address#*:}" --temp-dir="$here" \
    --include-dashboard=false --num-gpus="$((SLURM_GPUS_ON_NODE - 1))" --num-cpus="$((SLURM_CPUS_PER_TASK / 2))"
for node in "${nodes[@]:1}"; do
    start_ray "$node" ray start --block --address="$address" --temp-dir="$here" \
        --num-gpus="$SLURM_GPUS_ON_NODE" --num-cpus="$SLURM_CPUS_PER_TASK"
done

count_nodes="
import ray
ray.init('$address', logging_level='ERROR', log_to_driver=False)
print(sum(node['Alive'] for node in ray.nodes()))
"
alive=0
for _ in {1..60}; do
    alive=$(python -c "$count_nodes" 2>/dev/null) || alive=0
    [[ $alive == "$SLURM_JOB_NUM_NODES" ]] && break
    sleep 5
done
if [[ $alive != "$SLURM_JOB_NUM_NODES" ]]; then
    echo "Ray has $alive nodes; expected $SLURM_JOB_NUM_NODES." >&2
    exit 1
fi
echo "Ray has $alive nodes at $address."

# Half an hour less than --time: for the start, and for the last step. The run then saves and ends with exit code 75.
# `auto` is $RAY_ADDRESS, so the options stay the same in the next job, which has another address.
RAY_ADDRESS=$address CUDA_VISIBLE_DEVICES=${gpus%%,*} python -u -m llmgym.agents.grpo --env AIOpsTriage \
    --ray-address auto --rollout-workers "$workers" --worker-gpus 1 --worker-cpus 4 --max-staleness 1 \
    --output-dir runs/slurm --save-every 10 --max-time 11:30:00 --resume "$@" &
training=$!

# `scancel --batch --signal=TERM JOB` arrives here; the run saves while Ray still runs.
signals=0
trap 'signals=$((signals + 1)); kill -TERM "$training" 2>/dev/null || true' TERM
while
    seen=$signals code=0
    wait "$training" || code=$?
    ((signals > seen)) # a signal ends `wait` before the run ends
do :; done

stop_ray
if ((code == 75)); then
    echo "Time is up: the job goes into the queue again, and the run goes on from its checkpoint."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
