#!/bin/sh
set -e
case $1 in -*) set -- haproxy "$@" ;; esac
exec "$@"
