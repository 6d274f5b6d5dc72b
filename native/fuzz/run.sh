#!/bin/sh
# Fuzzes the agent under AddressSanitizer and UndefinedBehaviorSanitizer: run.sh [seconds] [seed]
# The agent really does what it is told, so it runs in namespaces of its own below a directory that is thrown away.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
seconds=${1:-20}
seed=${2:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/proc" "$work/root/dev" "$work/root/t/a/b"
# No device: the fuzzed agent changes the mode of whatever it finds. An empty file serves as one that is read.
: > "$work/root/dev/null"
ln -s loop "$work/root/t/loop"
ln -s a/b "$work/root/t/link"
mkfifo "$work/root/t/fifo"
${CC:-cc} -std=gnu11 -O1 -g -Wall -Wextra -DFUZZ -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-o "$work/fuzz" "$here/agent.c" "$here"/../agent/*.c
${CC:-cc} -std=gnu11 -O1 -static -o "$work/root/p" "$here/program.c"
user=
[ "$(id -u)" = 0 ] || user=-Ur
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
unshare $user --mount --pid --net --ipc --fork --kill-child sh -eu -c '
	mount -t proc -o ro proc "$1/root/proc"
	ip link set lo up 2> /dev/null || true
	"$1/fuzz" "$1/root" "$2" "$3"
' fuzz "$work" "$seconds" "$seed"
