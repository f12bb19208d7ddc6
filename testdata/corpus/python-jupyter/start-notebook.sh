#!/bin/bash
exec jupyter lab "$@"
