#!/bin/sh
# Start torchrun again until its command ends well. The arguments are those of torchrun:
#
#   examples/torchrun_again.sh --nproc-per-node 2 -m -- ktfast run --run runs/mine
#
# ktfast goes on from the last checkpoint. torchrun's own restarts (--max-restarts) are off, because
# processes that torchrun replaced could not always reach each other again. The loop ends after
# ATTEMPTS starts (20), or after three failures in a row in the first SHORT seconds (60): such a
# failure, for example of a wrong option, returns at every start. PAUSE is the time between two
# starts, in seconds (5).
attempt=1
early=0
while :; do
  begun=$(date +%s)
  torchrun --max-restarts 0 "$@" && exit 0
  status=$?
  if [ $(($(date +%s) - begun)) -lt "${SHORT:-60}" ]; then early=$((early + 1)); else early=0; fi
  if [ "$attempt" -ge "${ATTEMPTS:-20}" ] || [ "$early" -ge 3 ]; then
    echo "torchrun failed with status $status; stopped after $attempt starts" >&2
    exit "$status"
  fi
  echo "torchrun failed with status $status; start $((attempt + 1)) follows" >&2
  sleep "${PAUSE:-5}"
  attempt=$((attempt + 1))
done
