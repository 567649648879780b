#!/bin/sh
# Say what became of a job: running (or waiting), success or failed.
#   status.sh SECONDS JOB
# `qacct` would not do: it is slow, off on some clusters, and does not know a job deleted while it waited.
trap '' INT TERM # Ctrl-C is for Snakemake, which stumbles over a status that was not said
file=.snakemake/sge/$2
say() {
    echo "$1"
    exit
}
queue=$(qstat 2>/dev/null) || say running # the master does not answer: ask again
state=$(echo "$queue" | awk -v job="$2" '$1 == job { print $5 }')
case $state in
    '') ;;
    *E*) qdel "$2" >/dev/null; say running ;; # could not be started, and would wait for ever
    *) say running ;;
esac
if [ -s "$file.exit" ]; then
    [ "$(cat "$file.exit")" = 0 ] && say success
    say failed
fi
# It is gone without a word: killed, or its file is on its way.
[ -e "$file.gone" ] || touch "$file.gone"
[ $(($(date +%s) - $(stat -c %Y "$file.gone"))) -ge "$1" ] && say failed
say running
