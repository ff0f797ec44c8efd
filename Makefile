.PHONY: build test torture torture-power lint fuzz bench bench-large bench-scale gobench demo ci clean

build: # the three commands, into bin/
	mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

test: # all tests; go installs what they need
	scripts/test

torture: torture-power # files of 1 and 20 GiB: kills at random points, peak memory; a million files; minutes at rest; half an hour, 44 GiB of disk in TMPDIR
	TREECAST_TORTURE=1 TREECAST_PATIENCE=30m scripts/test -count=1 -v -timeout=2h -run '^Test(Torture(Kills|Memory|ManyPaths)|RestWritesNothing)$$' .

# Takes root. In a mount namespace of its own, so that nobody else's keeps a dead disk
# alive, and that all of it is gone at any end.
torture-power: # kill -9 and power cuts of all processes under load for TREECAST_TIME (30m), and at every call of an apply
	TREECAST_TORTURE=1 unshare -m scripts/test -count=1 -v -timeout=12h -run '^TestTorturePower$$' .
	TREECAST_TORTURE=1 unshare -m scripts/test -count=1 -timeout=4h -run '^Test(PowerCut|Fault)' ./internal/apply

ci: # everything that a change must pass
	.ci/run

lint:
	.ci/run gofmt vet staticcheck golangci-lint

fuzz: # each decoder for FUZZTIME
	.ci/run fuzz

BENCH_OUT ?= bin/bench
bench: # treecast beside the loop, lsyncd, Syncthing and copies; BENCH_OUT gets the table, every number and a chart; see docs/PERFORMANCE.md
	go run ./bench --install --out $(BENCH_OUT) $(BENCH_FLAGS)

bench-large: # one file of 256 MiB to three nodes: treecast, rsync, copies; see bench/large
	go run ./bench/large

bench-scale: # many nodes, many files: time, CPU and memory of treecast, for each path; SCALE_FLAGS, see docs/PERFORMANCE.md
	go run ./bench/scale $(SCALE_FLAGS)

gobench: # the hot paths, for benchstat
	go test -run '^$$' -bench . -count $(or $(COUNT),1) ./internal/...

demo: # edit files in demo/a and see them arrive in demo/b, c and d
	mkdir -p demo/a demo/b demo/c demo/d
	test -e demo/a/index.html || echo '<!doctype html><title>treecast</title><p>hello' >demo/a/index.html
	go run ./cmd/embedded-broker demo --source ./demo/a --node ./demo/b --node ./demo/c --node ./demo/d

clean: # the demo's trees stay
	rm -rf bin
