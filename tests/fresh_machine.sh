#!/usr/bin/env bash
# Runs the README's two commands in a Debian root that has Python, make and nothing of ours.
#
#   FRESH_SUITE   Debian release, default forky (Python 3.14)
#   FRESH_ROOT    where the root is built and kept, default /var/tmp/datazone-fresh-<suite>
#   FRESH_STEPS   what to run, default "test demo"
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
suite=${FRESH_SUITE:-forky}
root=${FRESH_ROOT:-/var/tmp/datazone-fresh-$suite}
steps=${FRESH_STEPS:-test demo}
demo_seconds=90

if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
  echo "test-fresh: skipped, it needs root and debootstrap"
  exit 0
fi

if [ ! -e "$root/.complete" ]; then
  rm -rf "$root"
  # Newer releases have no script of their own in older versions of debootstrap; sid's fits them.
  debootstrap --variant=minbase --include=python3,python3-venv,make,ca-certificates \
    "$suite" "$root" "${FRESH_MIRROR:-http://deb.debian.org/debian}" \
    /usr/share/debootstrap/scripts/sid
  chroot "$root" useradd --create-home newcomer
  touch "$root/.complete"
fi

ended() {
  mountpoint -q "$root/proc" && umount --lazy "$root/proc"
  mountpoint -q "$root/dev" && umount -R --lazy "$root/dev"
  return 0
}
trap ended EXIT
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/dev" || mount --rbind --make-rslave /dev "$root/dev"
cp /etc/resolv.conf "$root/etc/resolv.conf"
# This machine's certificates and package index, so that an index behind a proxy is reached.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
[ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"

home=$root/home/newcomer
rm -rf "$home/project"
mkdir "$home/project"
git -C "$project" archive HEAD | tar -x -C "$home/project"
chroot "$root" chown -R newcomer: /home/newcomer

as_newcomer() {
  chroot --userspec=newcomer:newcomer "$root" env -i HOME=/home/newcomer \
    PATH=/usr/bin:/bin LANG=C.UTF-8 ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} \
    sh -c "cd ~/project && $1"
}

as_newcomer 'python3 --version && ! command -v cc'
as_newcomer 'make setup' # outside of the demo's time
for step in $steps; do
  case $step in
    test) as_newcomer 'make test' ;;
    demo)
      # Ctrl-C after a while, as a user would.
      as_newcomer "timeout --signal=INT --kill-after=60 $demo_seconds make demo" || [ $? = 124 ]
      ;;
    *) as_newcomer "make $step" ;;
  esac
done
