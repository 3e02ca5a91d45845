#!/usr/bin/env bash
# What tests use of Debian's packages: installed when missing, by root only, and no service of theirs is left running.
set -euo pipefail
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive

declare -A NEEDED=(
  [dockerd]=docker.io [containerd]=containerd [docker-registry]=docker-registry [iptables]=iptables
  [busybox]=busybox-static [coap-client-notls]=libcoap3-bin [ip]=iproute2
)
SERVICES=(docker.socket docker.service containerd.service docker-registry.service)

say() { echo "make test: $*" >&2; }

missing=()
for program in "${!NEEDED[@]}"; do
  command -v "$program" >/dev/null || missing+=("${NEEDED[$program]}")
done
if [ "$(id -u)" -ne 0 ]; then
  say "tests that start a Docker engine are skipped: they need root${missing[*]:+, and: apt install ${missing[*]}}"
  exit 0
fi
[ ${#missing[@]} -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null; then
  say "tests that need these are skipped, install them your way: ${missing[*]}"
  exit 0
fi

say "apt install ${missing[*]}"
new=()
if [ -d /run/systemd/system ]; then
  for service in "${SERVICES[@]}"; do
    systemctl cat "$service" >/dev/null 2>&1 || new+=("$service")
  done
  [ ${#new[@]} -eq 0 ] || systemctl --runtime --quiet mask "${new[@]}" # the installation would start them
fi
ran=$(pidof dockerd || true)
apt-get -qq update >/dev/null || say "the list of packages is as old as it was"
apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || say "apt install failed: see above"
if [ ${#new[@]} -gt 0 ]; then
  systemctl --runtime --quiet unmask "${new[@]}"
  systemctl --quiet disable "${new[@]}" 2>/dev/null || true
elif [ -z "$ran" ] && pidof dockerd >/dev/null; then
  service docker stop >/dev/null 2>&1 || true # started by the installation just now
fi
