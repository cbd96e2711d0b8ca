# make test: everything, against real servers. As root it installs the Debian packages that are missing.

# A program that the tests call, and the package it comes with.
NEEDS := initdb:postgresql pgbench:postgresql redis-server:redis-server redis-benchmark:redis-tools \
         curl:curl openssl:openssl setpriv:util-linux prlimit:util-linux

.PHONY: test lint bench packages

test: packages
	cargo test --all-targets
	cargo test --doc

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench:
	cargo bench

packages:
	@missing=$$(for need in $(NEEDS); do \
	    command -v "$${need%:*}" || ls /usr/lib/postgresql/*/bin/"$${need%:*}" || echo "$${need#*:}" >&3; \
	done 3>&1 >/dev/null 2>&1 | sort -u | tr '\n' ' '); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Not installed. As root: apt-get install $$missing" >&2; exit 1; fi; \
	apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $$missing
