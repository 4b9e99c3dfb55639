#!/bin/sh
# The sample filter, and then what careless filters do to line ends, where the message asks for it:
#   X-Corpus-Filter: unterminated    the output lacks its last line end
#   X-Corpus-Filter: line-feeds      the output has LF line ends
# Usage: corpus-filter.sh SAMPLE-FILTER
set -u
work=$(mktemp -d "${TMPDIR:-/tmp}/corpus-filter.XXXXXX") || exit 75
trap 'rm -rf "$work"' EXIT
sh "$1" >"$work/passed" || exit $?
if grep -aq '^X-Corpus-Filter: unterminated' "$work/passed"; then
    head -c -2 "$work/passed"
elif grep -aq '^X-Corpus-Filter: line-feeds' "$work/passed"; then
    tr -d '\r' <"$work/passed"
else
    cat "$work/passed"
fi
