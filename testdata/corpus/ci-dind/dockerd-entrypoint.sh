#!/bin/sh
exec dockerd "$@"
