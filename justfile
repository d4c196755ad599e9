# Everyday commands. A recipe that runs a script has the script's name, and the script's header explains its options.
# .ci/run and the workflows call the scripts directly, because they do not install just.

# List all recipes
default:
    @just --list

# Run the service with the embedded store
dev:
    cargo run

# Run the test suite
test:
    cargo test

# Check formatting, lints and documentation
check:
    cargo fmt --all --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Run every check that a change must pass
ci:
    .ci/run

# --- Longer tests ---

# Run the store contract tests on a DynamoDB endpoint: just test-dynamodb http://127.0.0.1:8000
test-dynamodb endpoint:
    TEST_DYNAMODB_ENDPOINT={{endpoint}} cargo test --test integration contract::endpoint

# Run three instances on one table, kill an instance and restart the store: just chaos --seconds 30
chaos *arguments:
    cargo test --release --test chaos -- {{arguments}}

# Add network faults, paused processes and clock skew, and check every response: just chaos-faults --seconds 600 --seed 7
chaos-faults *arguments='--seconds 60':
    cargo test --test chaos -- --faults {{arguments}}

# Run the model and the simulation: after a change of the protocol or of the admission rules
protocol:
    cargo test --test model

# Explore the larger state spaces of the model, each for at most 15 minutes
model:
    MODEL_WORLDS=long cargo test --release --test model state_space::

# Run the simulation with more seeds, given as a count or a range: just simulate 2000..2800
simulate seeds:
    SIMULATION_SEEDS={{seeds}} cargo test --release --test model simulation::

# Change every 14th place of the core code, and report the changes that no test detects: just mutants 3/14
mutants *shard:
    scripts/test-mutants {{shard}}

# Fuzz the parsers of untrusted input: just fuzz 600 starts
fuzz *arguments:
    scripts/fuzz {{arguments}}

# Count the instructions per operation and compare them with the committed figures; --bless records new figures
count-instructions *arguments:
    scripts/count-instructions {{arguments}}

# Measure every figure in docs/PERFORMANCE.md: 30 minutes on two idle cores; requires redis-server
bench:
    cargo build --profile dist -p peers
    cargo bench --profile dist --bench compare --bench dynamodb --bench engine --bench events --bench grants --bench growth --bench report --bench tail \
        --bench workers
    cargo bench --profile dist --bench micro

# --- Tests against a running service ---

# Check a service for conformance to its OpenAPI document: just schemathesis http://127.0.0.1:8080
schemathesis url *seconds:
    scripts/schemathesis {{url}} {{seconds}}

# Run the end-to-end collection: just e2e http://127.0.0.1:8080
e2e url *seconds:
    scripts/e2e {{url}} {{seconds}}

# Validate files of events: just check-events data/events/*.jsonl
check-events *files:
    scripts/check-events {{files}}

# Check that scrapers can read the metrics of a service: just check-metrics http://127.0.0.1:9464/metrics
check-metrics url:
    scripts/check-metrics {{url}}

# Lint the OpenAPI document, and test generated clients: just test-clients http://127.0.0.1:8080
test-clients url:
    scripts/test-clients {{url}}

# Run a load test with simulated players: just load --base-url http://127.0.0.1:8080 --players 1000 --duration 60
load *arguments:
    cargo run --release --example load -- {{arguments}}

# Draw the charts of a load test from its JSON result
plot-load *arguments:
    scripts/plot-load {{arguments}}

# Test and pack the JavaScript player; with a URL, also test it against that service: just test-player http://127.0.0.1:8080
test-player *url:
    scripts/test-player {{url}}

# Install Chromium 56, 61 and 65 and print their paths, for the tests of the JavaScript player
old-chromium:
    @scripts/old-chromium

# Test the JavaScript player and the demo page in Chromium, Firefox and WebKit, with the binary of `cargo build`
test-browser *files:
    DEMO_FROM_SERVICE=1 scripts/test-browser {{files}}

# Run the README's examples of the JavaScript player with the real player libraries
test-libraries:
    scripts/test-libraries

# --- Deployment files ---

# Test nginx, HAProxy and Envoy in front of the binary of `cargo build`; with a URL, check that gateway instead
test-gateways *url:
    scripts/test-gateways {{url}}

# Test the media servers and the CloudFront Function that check grants, with real players in Chromium
test-enforcement *files:
    scripts/test-enforcement {{files}}

# Check the alert rules and the dashboard queries
check-alerts:
    scripts/check-alerts

# Lint the Dockerfile and run a binary in the image's root file system: just check-image target/dist/stream-manager
check-image *binary:
    scripts/check-image {{binary}}

# Check compose.yaml and the files that it mounts
check-compose:
    scripts/check-compose

# Run the services of compose.yaml as processes, and stop instances while simulated players use them
test-failover *binary:
    scripts/test-failover {{binary}}

# Check the CloudFormation templates and deploy them on an AWS emulator
check-templates:
    scripts/check-templates

# Check the Kubernetes manifests
check-kubernetes:
    scripts/check-kubernetes

# Lint the workflows and scripts, and test the deployment and release scripts
check-workflows:
    scripts/check-workflows

# Check the dependencies against deny.toml: just deny bans licenses sources advisories
deny *checks:
    scripts/deny {{checks}}

# List the components of the binary in CycloneDX format
sbom:
    scripts/sbom

# Run a DynamoDB emulator on 127.0.0.1: just ministack 8000
ministack port:
    scripts/ministack {{port}}

# --- Generated files ---

# Regenerate docs/openapi.json, docs/events.schema.json and the test snapshots
bless:
    cargo run -- openapi > docs/openapi.json
    BLESS_EVENTS_SCHEMA=1 cargo test --lib events::schema_tests
    cargo insta test --accept --test integration

# Regenerate the tables and the chart of docs/CAPACITY.md, with the binary that `cargo build` made
update-capacity-docs:
    scripts/update-capacity-docs

# --- Release and deployment: docs/RELEASING.md ---

# Print the changelog section of a release: just release-notes v1.2.3
release-notes tag:
    scripts/release-notes {{tag}}

# Pack a release archive: just release-archive target/dist/stream-manager archives
release-archive binary folder:
    scripts/release-archive {{binary}} {{folder}}

# Build the image and push it to a registry: just publish-image build ghcr.io/OWNER/stream-manager 1.2.3
publish-image *arguments:
    scripts/publish-image {{arguments}}

# Deploy an image to AWS: just deploy REPOSITORY@sha256:DIGEST; with --rollback, return to an earlier version
deploy *arguments:
    scripts/deploy {{arguments}}
