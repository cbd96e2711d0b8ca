#!/bin/sh
# Makes the root file system of a container without a distribution: container-root.sh BINARY DIRECTORY
#
# The program with the shared libraries that it names, the certificates of public authorities, and a user of its own.
set -eu
binary=$1
root=$2

install -D -m 755 "$binary" "$root/usr/bin/tidegate"
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 755 "$library" "$root$library"
done
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
printf 'tidegate:x:65532:65532::/var/lib/tidegate:/usr/bin/tidegate\n' >"$root/etc/passwd"
printf 'tidegate:x:65532:\n' >"$root/etc/group"
install -d -m 755 "$root/etc/tidegate" "$root/proc"
install -d -m 1777 "$root/tmp"
install -d -m 755 -o 65532 -g 65532 "$root/run/tidegate" "$root/var/lib/tidegate"
