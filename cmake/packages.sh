# shellcheck shell=bash disable=SC2034
# Sourced by ./check and ./quickstart: the Debian packages Dure needs, and how they are installed.
# Debian 12, Debian 13 and Ubuntu 24.04 have every one of them under these names.
# One is needed by a package that forgets to say so: Debian 13's libcyaml links libyaml.

build_packages=(gcc libc6-dev cmake ninja-build pkg-config
    libssl-dev libzmq3-dev libprotobuf-c-dev protobuf-c-compiler libsqlite3-dev
    libmicrohttpd-dev libjansson-dev libcyaml-dev libyaml-dev libutf8proc-dev)
test_packages=(libcmocka-dev python3 clang-format-19)
fetch_packages=(ca-certificates python3 python3-pip unzip)

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$(basename "$0"): $*"
    exit 1
}

package_present() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_missing PACKAGE...: installs with apt those that are not there. Asks first only on a
# terminal. DURE_SKIP_PACKAGES=1 trusts that the libraries are there under other names.
install_missing() {
    [ "${DURE_SKIP_PACKAGES:-}" = 1 ] && return 0
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        say "This system has no apt. Install what these Debian packages hold, then run" \
            "'DURE_SKIP_PACKAGES=1 $0' again:"
        say "  $*"
        exit 1
    fi
    local package answer missing=() as_root=()
    for package; do
        package_present "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "Dure needs these packages, which are missing here:"
    say "  ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            die "not root and no sudo: as root, run 'apt-get install ${missing[*]}', then try again"
        as_root=(sudo)
    fi
    if [ -t 0 ] && [ -t 2 ]; then
        read -r -p "Install them with apt now? [Y/n] " answer
        case $answer in
        '' | [Yy]*) ;;
        *) die "nothing was installed" ;;
        esac
    fi
    say "Installing with apt ..."
    local log
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get update -q &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
            --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "apt could not install the packages; its output is in $log"
    fi
    rm -f "$log"
}

# How many jobs ninja and ctest run at a time.
core_count() { nproc 2>/dev/null || echo 2; }

# A compiler cache helps whoever has one.
if command -v ccache >/dev/null; then export CMAKE_C_COMPILER_LAUNCHER=ccache; fi
