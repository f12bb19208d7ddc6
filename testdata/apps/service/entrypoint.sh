#!/bin/sh
# Says who runs it and shows what it was given.
set -e
echo "user $(id -un), port $PORT"
date > /var/lib/web/started
exec cat "$@"
