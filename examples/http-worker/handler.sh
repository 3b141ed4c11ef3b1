#!/bin/sh
# A handler for worker.sh: takes the payload on its standard input and prints the result.
#   {"sleepSeconds": 5}  says how far it is while it sleeps
seconds=$(jq -r '.sleepSeconds // 0')
step=0
while [ "$step" -lt "$seconds" ]; do
  echo "$((100 * step / seconds)) slept $step of $seconds seconds" >"$JOB_DIR/progress"
  sleep 1
  step=$((step + 1))
done
printf '{"slept": %s, "by": "%s"}\n' "$seconds" "$JOB_NAME"
