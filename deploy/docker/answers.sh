#!/bin/bash
# Tells by its exit code whether this container answers a GET with 200: answers.sh PORT PATH. A shell does it in 3 ms of
# CPU, where another Python takes 160, every ten seconds and for each worker.
set -o errexit -o nounset

exec 3<> "/dev/tcp/127.0.0.1/$1"
printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3
read -r -t 4 status <&3
[[ $status == *" 200 "* ]]
