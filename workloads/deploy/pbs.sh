#!/usr/bin/env bash
# A cluster in a PBS allocation: a head on the first machine, a worker on each, one job.
#
#   qsub -l select=4:ncpus=16 -v ARGUMENTS='workloads/mnist.toml --set train.resume=auto' \
#        workloads/deploy/pbs.sh
#
# ARGUMENTS are those of `rdist submit`, separated by blanks. The job's output is that of PBS; its
# exit status too. At the time limit, and on qdel, PBS sends SIGTERM, and everything is ended in
# order. With train.resume=auto the same line starts a training and, submitted again, goes on from
# its last checkpoint.
#PBS -N rdist
#PBS -l select=2:ncpus=2
#PBS -l walltime=01:00:00
#PBS -j oe
set -euo pipefail
cd "${PBS_O_WORKDIR:-.}"
read -ra arguments <<<"${ARGUMENTS:-}"
if [ ${#arguments[@]} -eq 0 ]; then
    echo "set ARGUMENTS: qsub -v ARGUMENTS='FILE [OPTION...]' ${0##*/}" >&2
    exit 2
fi

# On each machine's own disk: homes are shared, and a state folder is of one daemon.
export RDIST_HOME=${TMPDIR:-/tmp}/rdist-${PBS_JOBID%%.*}
submit='' workers=''
# pbsdsh starts commands with an almost empty environment; the token comes by a file of this user
# alone, so that no list of processes shows it.
token_file=$PWD/.rdist-token-${PBS_JOBID%%.*}

# shellcheck disable=SC2317 # called by traps
finish() {
    trap - EXIT TERM INT
    # Ends the job and the workers, wherever they are.
    rdist head stop || true
    [ -z "$submit" ] || wait "$submit" || true
    [ -z "$workers" ] || wait "$workers" || true
    rm -rf "$RDIST_HOME" "$token_file"
}
trap finish EXIT
trap 'echo "ended by PBS" >&2; exit 143' TERM INT

ready=$(rdist head start --json --listen "$(hostname -I | awk '{ print $1 }'):0")
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$ready"; }
address=$(field address)
token=$(field token)

# On every chunk of the allocation.
(umask 077 && printf '%s' "$token" >"$token_file")
# shellcheck disable=SC2016 # expanded on the other machines
pbsdsh -- "$(command -v bash)" -c '
    export RDIST_HOME=$0-$PBS_TASKNUM
    trap "rm -rf $RDIST_HOME" EXIT
    "$2" worker join "$1" --foreground --cpus "$3" --token - <"$4"' \
    "$RDIST_HOME" "$address" "$(command -v rdist)" "${NCPUS:-1}" "$token_file" &
workers=$!

rdist submit "${arguments[@]}" &
submit=$!
status=0
wait "$submit" || status=$?
exit "$status"
