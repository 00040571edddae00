#!/usr/bin/env bash
# A cluster in a Slurm allocation: a head on the first machine, a worker on each, one job.
#
#   sbatch --nodes=4 workloads/deploy/slurm.sh workloads/mnist.toml --set train.resume=auto
#
# Arguments are those of `rdist submit`. The job's output is Slurm's; its exit status too. Before
# the time limit, and on scancel, everything is ended in order. With train.resume=auto the same line
# starts a training and, submitted again, goes on from its last checkpoint.
#SBATCH --job-name=rdist
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
#SBATCH --signal=B:TERM@60
set -euo pipefail
if [ $# -eq 0 ]; then
    echo "usage: sbatch ${0##*/} FILE [OPTION...]   (the arguments of rdist submit)" >&2
    exit 2
fi

# On each machine's own disk: homes are shared, and a state folder is of one daemon.
scratch=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}
export RDIST_HOME=$scratch/rdist-$SLURM_JOB_ID
submit='' workers=''

# shellcheck disable=SC2317 # called by traps
finish() {
    trap - EXIT TERM INT
    # Ends the job and the workers, wherever they are.
    rdist head stop || true
    [ -z "$submit" ] || wait "$submit" || true
    [ -z "$workers" ] || wait "$workers" || true
    rm -rf "$RDIST_HOME"
}
trap finish EXIT
trap 'echo "ended by Slurm" >&2; exit 143' TERM INT

ready=$(rdist head start --json --listen "$(hostname -I | awk '{ print $1 }'):0")
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$ready"; }
address=$(field address)
RDIST_TOKEN=$(field token)
export RDIST_TOKEN

# Each with the CPUs, GPUs and memory that Slurm gave it; the token travels in the environment.
# shellcheck disable=SC2016 # expanded on the other machines
srun --overlap --ntasks-per-node=1 --kill-on-bad-exit=0 bash -c '
    export RDIST_HOME=$RDIST_HOME-$SLURM_NODEID
    trap "rm -rf $RDIST_HOME" EXIT
    rdist worker join "$0" --foreground --cpus "${SLURM_CPUS_PER_TASK:-1}"' "$address" &
workers=$!

unset RDIST_TOKEN
rdist submit "$@" &
submit=$!
wait "$submit"
