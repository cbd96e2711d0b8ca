#!/usr/bin/env bash
# Makes the development certificate: dev.pem and dev.key, for localhost only, known to everybody. Never use it for anything real.
# The two names below localhost are those of config/tls.yaml: curl takes no wildcard right below a top-level domain.
set -euo pipefail
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cat >"$work/config" <<EOF
[ca]
default_ca = dev
[dev]
database = $work/index
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = server
unique_subject = no
[any]
organizationName = supplied
organizationalUnitName = supplied
commonName = supplied
[server]
subjectAltName = DNS:localhost, DNS:*.localhost, DNS:admin.localhost, DNS:shop.localhost, IP:127.0.0.1, IP:::1
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
EOF
: >"$work/index"
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc \
    -subj "/O=tidegate/OU=development only, the key is public/CN=localhost" -keyout dev.key -out "$work/request"
# `req -x509` cannot set the first day: on a host whose clock is behind, the certificate would not be valid yet.
openssl ca -batch -selfsign -config "$work/config" -keyfile dev.key -in "$work/request" -notext \
    -startdate 20240101000000Z -enddate 20440101000000Z -out "$work/certificate"
{
    echo "Development only: this certificate's key is public. Made by certs/make.sh."
    cat "$work/certificate"
} >dev.pem
# Everybody knows it; but the balancer warns of a key that everybody may read.
chmod 600 dev.key
