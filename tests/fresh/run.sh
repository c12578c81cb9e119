#!/usr/bin/env bash
# run.sh bookworm|trixie [TREE]: makes a bare Debian 12 or 13 in TREE (default: a new folder below
# $TMPDIR), clones the committed state of this repository into it, and runs ./quickstart and
# ./check there, each twice. Needs root, debootstrap, git and the network; takes a while and about
# 5 GB; no part of CI. Logs lie in TREE/logs; a tree made here is removed unless KEEP=1.
#
#   MIRROR=URL   where debootstrap and the tree's apt fetch from (default: debootstrap's own)
set -euo pipefail

suite=${1:-}
case $suite in
bookworm | trixie) ;;
*)
    echo "usage: $0 bookworm|trixie [TREE]" >&2
    exit 2
    ;;
esac
[ "$(id -u)" -eq 0 ] || {
    echo "$0: needs root, for debootstrap and chroot" >&2
    exit 1
}
command -v debootstrap >/dev/null || {
    echo "$0: debootstrap is missing (apt-get install debootstrap)" >&2
    exit 1
}
repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
tree=${2:-}
made=0
if [ -z "$tree" ]; then
    tree=$(mktemp -d "${TMPDIR:-/tmp}/dure-fresh-$suite.XXXXXX")
    made=1
fi
mkdir -p "$tree"

mounted=()
cleanup() {
    local i
    for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do umount "${mounted[i]}" || return; done
    mounted=()
    if [ $made = 1 ] && [ "${KEEP:-}" != 1 ]; then rm -rf --one-file-system "$tree"; fi
}
trap cleanup EXIT

[ -e "$tree/etc/debian_version" ] || debootstrap --variant=minbase "$suite" "$tree" ${MIRROR:+"$MIRROR"}
mount -t proc proc "$tree/proc" && mounted+=("$tree/proc")
cp -L /etc/resolv.conf "$tree/etc/resolv.conf"

# Behind a proxy that signs with a certificate of its own, the tree needs the certificates that this
# machine has, at a place that its own package of certificates does not write to.
pass=()
for name in http_proxy https_proxy no_proxy PIP_INDEX_URL; do
    if [ -n "${!name:-}" ]; then pass+=("$name=${!name}"); fi
done
for name in PIP_CERT SSL_CERT_FILE; do
    file=${!name:-}
    if [ -n "$file" ] && [ -e "$file" ]; then
        cp -L "$file" "$tree/root/$name.pem"
        pass+=("$name=/root/$name.pem")
    fi
done

rm -rf "$tree/root/dure" "$tree/root/.cache"
git clone --quiet "$repository" "$tree/root/dure"
mkdir -p "$tree/logs"
status=0
for step in quickstart check quickstart-again check-again; do
    echo "== $suite: $step"
    start=$(date +%s)
    if chroot "$tree" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        "${pass[@]}" sh -c "cd /root/dure && ./${step%-again}" </dev/null \
        >"$tree/logs/$step.log" 2>&1; then
        result=passed
    else
        result=FAILED status=1
    fi
    tail -n 40 "$tree/logs/$step.log"
    echo "== $suite: $step $result in $(($(date +%s) - start)) s"
done
exit $status
