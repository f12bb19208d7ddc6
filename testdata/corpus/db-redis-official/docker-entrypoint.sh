#!/bin/sh
set -e
# an option or a configuration file is meant for the server
case $1 in
	-* | *.conf) set -- redis-server "$@" ;;
esac
exec gosu redis "$@"
