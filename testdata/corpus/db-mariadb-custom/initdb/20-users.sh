#!/bin/bash
mariadb -e 'select 1'
