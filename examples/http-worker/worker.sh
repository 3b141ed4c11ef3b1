#!/usr/bin/env bash
# An HTTP worker in plain shell: bash, curl, jq, and what util-linux and coreutils have (flock, setsid, timeout).
#
#   DISTRIQUEUE_URL=http://127.0.0.1:8000 DISTRIQUEUE_TOKEN="$(kubectl create token my-worker)" \
#     ./worker.sh ./handler.sh
#
# The handler is run once for each attempt: the payload comes on its standard input, its standard output is the result
# (JSON, or else text), what it writes to standard error goes with a failure. Exit status 0: succeeded. 65: failed, and
# another attempt cannot help. Anything else: failed. It finds JOB_ID, JOB_NAMESPACE, JOB_NAME, JOB_TYPE, JOB_ATTEMPT,
# JOB_GRANT (the fencing token) in its environment, and JOB_DIR, a directory of its own, where it may write the file
# `progress` (a percentage and a few words: "40 half of the pages") and the file `checkpoint` (JSON), and finds the
# checkpoint of an earlier attempt in `last-checkpoint`.
#
# What it guarantees, and every HTTP worker has to (docs/http-workers.md):
# - A handler starts only for an answer of the session that is now, while its lease runs: under one lock with
#   registering.
# - A job is listed by every heartbeat from before it counts as received until its report was answered.
# - 12 s after the last heartbeat that was answered with 200 was *sent*, all handlers are killed, by a process that does
#   nothing else.
# - When this process dies, its handlers do, too.
set -uo pipefail
shopt -s nullglob

URLS=(${DISTRIQUEUE_URL:-http://127.0.0.1:8000}) # several, separated by spaces: tried in turn
NAME=${DISTRIQUEUE_WORKER_NAME:-$(hostname | tr '[:upper:]_' '[:lower:]-')-$$}
POOL=${DISTRIQUEUE_WORKER_POOL:-default}
TYPES=${DISTRIQUEUE_WORKER_TYPES:-}           # separated by commas; none: all
NAMESPACES=${DISTRIQUEUE_WORKER_NAMESPACES:-} # likewise
CAPACITY=${DISTRIQUEUE_WORKER_CAPACITY:-1}
GRACE=${DISTRIQUEUE_WORKER_GRACE_SECONDS:-10} # what handlers get after SIGTERM
WAIT=${DISTRIQUEUE_WORKER_WAIT_SECONDS:-20}   # how long a request for jobs waits
PERMANENT=65

if [ $# -lt 1 ]; then
  echo "usage: worker.sh HANDLER [ARGUMENT ...]   (see the comment at the top)" >&2
  exit 2
fi
HANDLER=("$@")
STATE=$(mktemp -d "${TMPDIR:-/tmp}/http-worker.XXXXXX")
mkdir "$STATE/jobs"
echo 0 >"$STATE/received"
echo 0 >"$STATE/lease"
echo 0 >"$STATE/url"
: >"$STATE/session"
: >"$STATE/before"
MAIN=$$
DIE_WITH_PARENT=()
if setpriv --pdeathsig KILL true 2>/dev/null; then DIE_WITH_PARENT=(setpriv --pdeathsig KILL); fi

say() { echo "$(date -u +%H:%M:%S) $NAME $*" >&2; }

# Hundredths of a second of a clock that only grows, and goes on while the machine sleeps.
now() {
  local up
  read -r up _ </proc/uptime
  echo $((10#${up/./}))
}

lease_age() { echo $(($(now) - $(<"$STATE/lease"))); }

LEASE=1200 # hundredths; from here on handlers have to stop, and 2 s later they have to be dead

put() { printf '%s\n' "$2" >"$STATE/.$1.$BASHPID" && mv "$STATE/.$1.$BASHPID" "$STATE/$1"; }

# post PATH SECONDS FILE: sends standard input, leaves the answer in the file, prints the status (000: no answer).
post() {
  local index token status
  index=$(<"$STATE/url")
  token=${DISTRIQUEUE_TOKEN:-}
  if [ -n "${DISTRIQUEUE_TOKEN_FILE:-}" ]; then token=$(<"$DISTRIQUEUE_TOKEN_FILE"); fi
  # The header comes from a file descriptor: what is on a command line, everybody on the machine can read.
  status=$(curl --silent --output "$3" --write-out '%{http_code}' --connect-timeout 1 --max-time "$2" \
    ${DISTRIQUEUE_CA_FILE:+--cacert "$DISTRIQUEUE_CA_FILE"} \
    --header 'Content-Type: application/json' --header @<(printf 'Authorization: Bearer %s' "${token:-none}") \
    --data-binary @- "${URLS[index % ${#URLS[@]}]}/api/workers/$1")
  case $status in
    000 | 502 | 503 | 504) put url $(((index + 1) % ${#URLS[@]})) ;;
  esac
  echo "$status"
}

# The grants that are held, running or not reported, into HELD. Starts no process: it is called often.
hold() {
  HELD=("$STATE"/jobs/*)
  HELD=("${HELD[@]##*/}")
}

# --- the session ---------------------------------------------------------------------------------------------------

list_of() { jq -Rc 'split(",") | map(select(. != ""))' <<<"$1"; }

# Whether all that was killed is gone with its directory; what has ended and is not reported goes along.
all_dead() {
  hold
  for grant in "${HELD[@]}"; do
    if [ ! -f "$STATE/jobs/$grant/ended" ]; then return 1; fi
  done
}

# Registers, again if need be, with the jobs that are held. Holds the lock, so that nothing starts meanwhile.
register() {
  (
    flock 9
    local since status body answer=$STATE/register.answer files dir
    if [ "$(lease_age)" -ge $LEASE ]; then
      kill_handlers
      for _ in 1 2 3 4 5 6 7 8 9 10; do
        if all_dead; then break; fi
        sleep 0.2
      done
      if ! all_dead; then exit 1; fi
    fi
    # From here on the old session is never used again, whatever becomes of the request: it may have been heard, and
    # then another session has the jobs, and who goes on with the old one is taken for dead.
    if [ -n "$(<"$STATE/session")" ]; then
      put before "$(<"$STATE/session")"
      put session ''
    fi
    files=("$STATE"/jobs/*/job.json)
    body=$(if [ ${#files[@]} -gt 0 ]; then jq -c '{receipt}' "${files[@]}"; fi |
      jq -sc --arg name "$NAME" --arg pool "$POOL" --argjson types "$(list_of "$TYPES")" \
        --argjson namespaces "$(list_of "$NAMESPACES")" --argjson capacity "$CAPACITY" \
        --arg before "$(<"$STATE/before")" --arg host "$(hostname)" \
        '{name: $name, pool: $pool, types: $types, namespaces: $namespaces, capacity: $capacity, hostname: $host,
          version: "shell", jobs: .} + if $before == "" then {} else {supersedes: $before} end')
    since=$(now)
    status=$(post register 8 "$answer" <<<"$body")
    if [ "$status" != 200 ] && [ "$status" != 201 ]; then
      say "not registered ($status): $(jq -r '.detail? // empty' "$answer" 2>/dev/null)"
      # Seals that nobody knows any more: what was held is lost, and a session without it is better than none.
      if [ "$status" = 422 ]; then
        kill_handlers
        for dir in "$STATE"/jobs/*; do
          if [ -f "$dir/ended" ]; then rm -rf "$dir"; fi
        done
        put before ''
      fi
      exit 1
    fi
    put received 0
    put lease "$since"
    put session "$(jq -r .session "$answer")"
    say "registered as $(jq -r .incarnation "$answer"), holding ${#files[@]} jobs"
  ) 9>"$STATE/lock"
}

# `received` is read before the jobs: whatever it counts, the list has, or it is over.
state() {
  local received dir jobs='' separator=''
  received=$(<"$STATE/received")
  hold
  for grant in "${HELD[@]}"; do
    dir=$STATE/jobs/$grant
    if [ -f "$dir/progress" ] || [ -f "$dir/checkpoint" ]; then
      jobs+=$separator$(words_of "$grant")
    else
      jobs+="$separator{\"grant\":\"$grant\"}"
    fi
    separator=,
  done
  printf '{"received":%s,"jobs":[%s]}' "$received" "$jobs"
}

# What a handler says of itself.
words_of() {
  local dir=$STATE/jobs/$1 percent='' words='' checkpoint=null
  if [ -f "$dir/progress" ]; then read -r percent words <"$dir/progress" || true; fi
  case $percent in '' | *[!0-9]*) percent=null ;; esac
  if [ -f "$dir/checkpoint" ]; then checkpoint=$(jq -c . "$dir/checkpoint" 2>/dev/null) || checkpoint=null; fi
  jq -nc --arg grant "$1" --argjson percent "$percent" --arg words "$words" --argjson checkpoint "${checkpoint:-null}" \
    '{grant: $grant, checkpoint: $checkpoint}
     + if $percent == null then {} else {progress: {percent: ([$percent, 100] | min), message: $words[:256]}} end'
}

beat() {
  local since status session answer=$STATE/beat.answer
  session=$(<"$STATE/session")
  if [ -z "$session" ]; then
    register
    return
  fi
  since=$(now)
  status=$(state | post "$session/heartbeat" 3 "$answer")
  case $status in
    200)
      put lease "$since"
      if [[ $(<"$answer") != *'"stop":[]'* ]]; then
        jq -r '.stop[] | "\(.grant) \(.reason)"' "$answer" | while read -r grant reason; do
          stop_handler "$grant" "$reason"
        done
      fi
      ;;
    404 | 410)
      say "the session is over ($status)"
      register
      ;;
    *)
      say "no heartbeat ($status)"
      return 1
      ;;
  esac
}

# A signal to the whole group asks the worker to leave; until then handlers run on, and what keeps them goes on, too.
keep_beating() {
  trap '' TERM INT
  while kill -0 $MAIN 2>/dev/null && [ ! -f "$STATE/ended" ]; do
    if beat; then sleep 3; else sleep 0.5; fi
  done
}

# --- handlers ------------------------------------------------------------------------------------------------------

# Kills the group of a handler, which is its own; one that is dead already does not mind.
strike() { if [ -f "$STATE/jobs/$2/pid" ]; then kill "-$1" -- "-$(<"$STATE/jobs/$2/pid")" 2>/dev/null; fi; }

stop_handler() {
  local dir=$STATE/jobs/$1
  if [ ! -d "$dir" ] || [ -f "$dir/ended" ] || [ -f "$dir/stop" ]; then return; fi
  say "stops $1: $2"
  echo "$2" >"$dir/stop"
  strike TERM "$1"
  (sleep 2 && strike KILL "$1") &
}

# What runs is killed and forgotten: somebody else gets it, or has it already.
kill_handlers() {
  hold
  for grant in "${HELD[@]}"; do
    local dir=$STATE/jobs/$grant
    if [ -f "$dir/ended" ]; then continue; fi
    echo LeaseLost >"$dir/stop"
    strike KILL "$grant"
  done
}

guard() {
  trap '' TERM INT
  while [ ! -f "$STATE/ended" ]; do
    if ! kill -0 $MAIN 2>/dev/null; then
      kill_handlers
      rm -rf "$STATE"
      exit
    fi
    if [ "$(lease_age)" -ge $LEASE ]; then kill_handlers; fi
    sleep 0.5
  done
}

# Runs one attempt and reports it; in the background.
run_job() {
  trap '' TERM INT
  local grant=$1 dir=$STATE/jobs/$1 seconds code body reason=''
  eval "$(jq -r '@sh "seconds=\(.timeoutSeconds // 0); export JOB_ID=\(.id) JOB_NAMESPACE=\(.namespace)" +
    @sh " JOB_NAME=\(.name) JOB_TYPE=\(.type) JOB_ATTEMPT=\(.attempt) JOB_GRANT=\(.grant)"' "$dir/job.json")"
  export JOB_DIR=$dir
  jq -c '.payload, (.checkpoint | select(. != null))' "$dir/job.json" | {
    IFS= read -r line
    printf '%s\n' "$line" >"$dir/payload"
    IFS= read -r line && printf '%s\n' "$line" >"$dir/last-checkpoint"
  }
  # Closed: the lock, which a handler must not inherit. Nor must it inherit that signals are ignored.
  setsid "${DIE_WITH_PARENT[@]}" env --default-signal=TERM,INT timeout --kill-after=2 "$seconds" "${DIE_WITH_PARENT[@]}" "${HANDLER[@]}" \
    <"$dir/payload" >"$dir/out" 2>"$dir/err" 9>&- &
  echo $! >"$dir/pid"
  # It may have been told to stop before there was anything to strike.
  if [ -f "$dir/stop" ]; then strike KILL "$grant"; fi
  wait $!
  code=$?
  : >"$dir/ended"
  if [ -f "$dir/stop" ]; then reason=$(<"$dir/stop"); fi
  case $reason in
    LeaseLost | Over | Deleted)
      rm -rf "$dir"
      return
      ;;
  esac
  if [ "$code" = 0 ]; then
    body=$(jq -sc --arg grant "$grant" 'if length <= 1 then {grant: $grant, outcome: "succeeded", result: .[0]}
      else error end' "$dir/out" 2>/dev/null) ||
      body=$(jq -Rsc --arg grant "$grant" '{grant: $grant, outcome: "succeeded", result: .}' "$dir/out")
  elif [ -n "$reason" ]; then
    body=$(jq -nc --arg grant "$grant" --arg reason "$reason" \
      '{grant: $grant, outcome: "interrupted", reason: $reason, error: "it was stopped"}')
  else
    if [ "$code" = 124 ]; then reason=Timeout; else reason=ExitStatus; fi
    body=$(tail -c 4000 "$dir/err" | jq -Rsc --arg grant "$grant" --arg reason "$reason" --arg code "$code" \
      --argjson permanent "$([ "$code" = $PERMANENT ] && echo true || echo false)" \
      '{grant: $grant, outcome: "failed", reason: $reason, error: "exit status \($code)", permanent: $permanent,
        logTail: .[-4000:]}')
  fi
  report "$grant" "$body"
  rm -rf "$dir"
}

# Reports until it is answered: the job is listed meanwhile, and goes along when the worker registers again. When the
# directory is gone, so is the job.
report() {
  local body=$2 session status answer=$STATE/report.$1.answer
  while [ -d "$STATE/jobs/$1" ]; do
    session=$(<"$STATE/session")
    if [ -z "$session" ]; then
      sleep 0.5
      continue
    fi
    status=$(post "$session/jobs/report" 8 "$answer" <<<"$body")
    case $status in
      200) return ;;
      409)
        say "the report of $1 is not wanted any more"
        return
        ;;
      413 | 422)
        say "the report of $1 is refused: $(jq -r '.detail? // empty' "$answer" 2>/dev/null)"
        body=$(jq -nc --arg grant "$1" '{grant: $grant, outcome: "failed", reason: "ResultRefused", permanent: true,
          error: "the result is larger than is taken, or no JSON"}')
        ;;
      *) sleep 1 ;;
    esac
  done
}

# --- jobs ----------------------------------------------------------------------------------------------------------

REQUEST=0

# ask MAX SECONDS: one request for jobs, and the start of what it brings.
ask() {
  local session received status answer
  session=$(<"$STATE/session")
  if [ -z "$session" ]; then
    sleep 0.2
    return
  fi
  REQUEST=$((REQUEST + 1))
  # Of its own: what comes late to an older request must not be taken for the answer to this one.
  answer=$STATE/next.$REQUEST
  : >"$answer.status"
  # In the background, because a signal is only heard between commands and by `wait`.
  (
    status=$(jq -nc --argjson request $REQUEST --argjson received "$(<"$STATE/received")" --argjson max "$1" \
      '{request: $request, received: $received, max: $max}' | post "$session/jobs/next?wait=$2" $(($2 + 8)) "$answer")
    echo "$status" >"$answer.status"
  ) &
  ASKING=$!
  wait $ASKING
  if [ -n "$STOPPING" ] && [ "$1" != 0 ]; then
    return
  fi
  status=$(<"$answer.status")
  case $status in
    200) start_jobs "$session" "$answer" ;;
    404 | 410) sleep 0.2 ;; # the heartbeat finds out, too, and registers again
    *) sleep 1 ;;
  esac
  rm -f "$answer" "$answer.status"
}

start_jobs() {
  local session=$1 job grant number received
  : >"$STATE/jobs.new"
  (
    flock 9
    # What a session brought that is over, or without a lease, must not start: others have it.
    if [ "$(<"$STATE/session")" != "$session" ] || [ "$(lease_age)" -ge $LEASE ]; then exit; fi
    jq -r '.jobs[] | "\(.grant) \(.number) \(tojson)"' "$2" | while IFS=' ' read -r grant number job; do
      received=$(<"$STATE/received")
      if [ "$number" -le "$received" ]; then continue; fi
      mkdir "$STATE/jobs/.$grant"
      printf '%s\n' "$job" >"$STATE/jobs/.$grant/job.json"
      mv "$STATE/jobs/.$grant" "$STATE/jobs/$grant"
      put received "$number"
      echo "$grant"
    done
  ) 9>"$STATE/lock" >"$STATE/jobs.new"
  while read -r grant; do
    run_job "$grant" &
  done <"$STATE/jobs.new"
}

# --- life ----------------------------------------------------------------------------------------------------------

STOPPING=''
ASKING=''
trap 'STOPPING=1' TERM INT

until [ -n "$STOPPING" ] || register; do sleep 1; done
guard &
keep_beating &
while [ -z "$STOPPING" ]; do
  hold
  FREE=$((CAPACITY - ${#HELD[@]}))
  if [ "$FREE" -gt 0 ]; then ask "$FREE" "$WAIT"; else sleep 0.2; fi
done

say "leaves"
if [ -n "$ASKING" ]; then kill "$ASKING" 2>/dev/null; fi
ask 0 1 # what was not received goes to others
END=$(($(now) + GRACE * 100))
while hold && [ ${#HELD[@]} -gt 0 ] && [ "$(now)" -lt $END ]; do sleep 0.1; done
for grant in "${HELD[@]}"; do stop_handler "$grant" WorkerStopped; done
END=$(($(now) + 500))
while hold && [ ${#HELD[@]} -gt 0 ] && [ "$(now)" -lt $END ]; do sleep 0.1; done
: >"$STATE/ended"
kill_handlers
if [ -n "$(<"$STATE/session")" ]; then
  post "$(<"$STATE/session")/leave" 16 "$STATE/leave.answer" <<<'{}' >/dev/null
fi
rm -rf "$STATE"
