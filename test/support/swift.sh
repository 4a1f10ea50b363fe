#!/bin/bash
# A real S3 server for tests: OpenStack Swift with s3api from Debian's packages, on loopback, all it keeps in one folder.
#   swift.sh start FOLDER   installs it where that is missing and possible; writes FOLDER/env, to be sourced
#   swift.sh stop FOLDER    ends what was started there, and nothing else, and removes the folder
set -uo pipefail

start() {
  mkdir -p "$1" && home=$(realpath "$1") || return
  installed || { echo "Swift is not installed and cannot be: apt-get install ${packages[*]}" >&2; return 1; }
  mkdir -p "$home"/{node/d1,pids,log} && cd "$home" || return
  read -r proxy account container object cache < <(free_ports 5)

  cat >rings.log </dev/null
  for ring in account:$account container:$container object:$object; do
    swift-ring-builder "${ring%:*}.builder" create 4 1 0 &&
      swift-ring-builder "${ring%:*}.builder" add "r1z1-127.0.0.1:${ring#*:}/d1" 1 &&
      swift-ring-builder "${ring%:*}.builder" rebalance
  done >rings.log 2>&1 || { cat rings.log >&2; return 1; }

  for server in account:$account container:$container object:$object; do
    cat >"${server%:*}.conf" <<END
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${server#*:}
user = $(id -un)
swift_dir = $home
devices = $home/node
mount_check = false
disable_fallocate = true
workers = 1
[pipeline:main]
pipeline = ${server%:*}-server
[app:${server%:*}-server]
use = egg:swift#${server%:*}
END
  done
  cat >proxy.conf <<END
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $proxy
user = $(id -un)
swift_dir = $home
workers = 1
[pipeline:main]
pipeline = catch_errors gatekeeper proxy-logging cache listing_formats s3api tempauth bulk slo dlo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$cache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
min_segment_size = 5242880
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
END
  launch memcached memcached -l 127.0.0.1 -p "$cache" -m 64 -u "$(id -un)"
  for server in account container object proxy; do launch $server swift-$server-server "$home/$server.conf" -v; done

  # The bucket is made through Swift's own door: no S3 client is at hand here.
  local url=http://127.0.0.1:$proxy token
  for _ in $(seq 300); do
    token=$(curl -s -i -H 'x-auth-user: test:tester' -H 'x-auth-key: testing' "$url/auth/v1.0" |
      tr -d '\r' | sed -n 's/^x-auth-token: //Ip')
    if [ -n "$token" ] &&
      curl -s -f -o /dev/null -H "x-auth-token: $token" -X PUT "$url/v1/AUTH_test/luthier-test"; then
      cat >env.new <<END && mv env.new env
export TEST_S3_ENDPOINT=$url TEST_S3_BUCKET=luthier-test TEST_S3_REGION=us-east-1
export TEST_S3_ACCESS_KEY_ID=test:tester TEST_S3_SECRET_ACCESS_KEY=testing
END
      return
    fi
    sleep 0.2
  done
  echo 'Swift did not answer in a minute.' >&2
  tail -n 5 log/* >&2
  return 1
}

packages=(swift-proxy swift-account swift-container swift-object memcached curl)
installed() {
  command -v swift-proxy-server memcached curl >/dev/null && command -v swift-object-server >/dev/null && return
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return
  # The packages would start services of their own; these are ours to start.
  apt-get -qq update >/dev/null &&
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
      apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null 2>&1
  command -v swift-proxy-server memcached >/dev/null
}

free_ports() {
  /usr/bin/python3 -c '
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in sockets))' "$1"
}

launch() { # NAME COMMAND...
  local name=$1
  shift
  setsid "$@" >"log/$name" 2>&1 </dev/null &
  echo $! >"pids/$name"
}

stop() {
  [ -d "$1/pids" ] || return 0
  local file pid
  for file in "$1"/pids/*; do
    pid=$(cat "$file")
    # Each leads a group of its own, workers included.
    kill -TERM -- "-$pid" 2>/dev/null
  done
  for _ in $(seq 50); do
    alive=0
    for file in "$1"/pids/*; do kill -0 -- "-$(cat "$file")" 2>/dev/null && alive=1; done
    [ $alive = 0 ] && break
    sleep 0.1
  done
  for file in "$1"/pids/*; do kill -KILL -- "-$(cat "$file")" 2>/dev/null; done
  rm -rf "$1"
}

case ${1:-} in
start) start "${2:?folder}" || { stop "$2"; exit 1; } ;;
stop) stop "${2:?folder}" ;;
*) sed -n '2,4p' "$0" >&2; exit 2 ;;
esac
