#!/usr/bin/env bash
# Makes the development certificate: dev.pem and dev.key, for localhost only, known to everybody. Never use it for anything real.
set -euo pipefail
cd "$(dirname "$0")"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -sha256 -days 3650 \
    -subj "/O=tidegate/OU=development only, the key is public/CN=localhost" \
    -addext "subjectAltName = DNS:localhost, DNS:*.localhost, IP:127.0.0.1, IP:::1" \
    -addext "basicConstraints = critical, CA:FALSE" \
    -addext "keyUsage = critical, digitalSignature" \
    -addext "extendedKeyUsage = serverAuth" \
    -keyout dev.key -out dev.pem
{
    echo "Development only: this certificate's key is public. Made by certs/make.sh."
    cat dev.pem
} >dev.pem.new
mv dev.pem.new dev.pem
