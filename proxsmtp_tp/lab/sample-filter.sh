#!/bin/sh
# A filter for proxsmtp-tp in plain POSIX shell: FilterCommand: /path/to/sample-filter.sh
#
#   good mail                                       passes with a header more: X-Filter
#   the GTUBE test string anywhere in it            is refused: the client gets 550
#   a header "X-Filter-Action: discard"             is discarded: the client gets 250, the server nothing
#
# The message comes on standard input (FilterType: pipe) or stands in the file $EMAIL (FilterType: file), and goes
# out on standard output or stays in that file. Whatever goes wrong here is a 451: the client keeps the mail and
# tries again. Nothing of the message or its envelope is ever run, and nothing of it reaches the header unwashed.
set -u
umask 077
LC_ALL=C
export LC_ALL

trouble() {
    echo '451 4.3.0 The filter has a problem here, try again later' >&2
    exit 75
}

answer() {
    printf '%s\n' "$1" >&2
    exit 1
}

# Bytes that are harmless in a header, and not too many of them.
washed() {
    printf '%s' "$1" | tr -cd 'A-Za-z0-9@.:_+=-' | cut -c 1-200
}

work=$(mktemp -d "${TMPDIR:-/tmp}/sample-filter.XXXXXX") || trouble
trap 'rm -rf "$work"' EXIT
trap 'exit 75' HUP INT TERM

message=${EMAIL:-}
if [ -z "$message" ]; then
    message=$work/message
    cat >"$message" || trouble
fi

# GTUBE: https://spamassassin.apache.org/gtube/
grep -Fq 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X' "$message"
case $? in
0) answer '550 5.7.1 This is the GTUBE test string: refused by the filter' ;;
1) ;;
*) trouble ;;
esac

# Only the header: up to the first empty line, whose line end is CR LF or LF.
return=$(printf '\r')
sed "/^$return\{0,1\}\$/q" "$message" >"$work/header" || trouble
if grep -iq '^X-Filter-Action:[[:space:]]*discard[[:space:]]*$' "$work/header"; then
    answer '250 2.0.0 Discarded by the filter, as the message asked'
fi

{
    printf 'X-Filter: passed; client=%s; server=%s; sender=%s\r\n' \
        "$(washed "${CLIENT:-}")" "$(washed "${SERVER:-}")" "$(washed "${SENDER:-}")" && cat "$message"
} >"$work/passed" || trouble
if [ -n "${EMAIL:-}" ]; then
    cat "$work/passed" >"$EMAIL" || trouble
else
    cat "$work/passed" || trouble
fi
