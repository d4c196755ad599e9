# The daily commands; each is one that can be typed without `just` too.

default:
    @just --list

# Serve from the embedded store
dev:
    cargo run

# The whole suite, as the README says
test:
    cargo test

# The suite on any DynamoDB: just test-dynamodb http://127.0.0.1:8000
test-dynamodb endpoint:
    TEST_DYNAMODB_ENDPOINT={{endpoint}} cargo test --test integration contract::endpoint

# Three instances racing on one table, one killed, the store restarted
race *arguments:
    cargo test --release --test chaos -- {{arguments}}

# The same with kills, freezes, a hurt network and wrong clocks, each answer judged: just attack --seconds 600 --seed 7
attack *arguments='--seconds 60':
    cargo test --test chaos -- --attack {{arguments}}

# The model in larger worlds, up to a quarter of an hour each
prove:
    PROOF_MODEL=long cargo test --release --test model no_promise

# Thousands of seeds, or some: just simulate 2000..2800
simulate seeds:
    PROOF_SEEDS={{seeds}} cargo test --release --test model keep_every_rule

# Search for inputs that break a parser: just fuzz 600 starts
fuzz *arguments:
    scripts/fuzz {{arguments}}

# Hold a running service to its OpenAPI document: just schemathesis http://127.0.0.1:8080
schemathesis url *seconds:
    scripts/schemathesis {{url}} {{seconds}}

# Go through a running service from the first start to the last stop: just e2e http://127.0.0.1:8080
e2e url *seconds:
    scripts/e2e {{url}} {{seconds}}

# All that docs/PERFORMANCE.md says, as ratios of one run: half an hour, on two cores with nothing else to do; needs redis-server
bench:
    cargo build --profile bench -p peers
    cargo bench --bench compare --bench dynamodb --bench engine --bench requests --bench tail --bench growth --bench memory --bench hostile
    cargo bench --bench micro

# What each verb costs in instructions, against the committed figures: just instructions, --bless to record, --release to look
instructions *arguments:
    scripts/instructions {{arguments}}

# Simulated players on a running service: just load --base-url http://127.0.0.1:8080 --players 1000 --duration 60
load *arguments:
    cargo run --release --example load -- {{arguments}}

# What the binary is built from, as CycloneDX
sbom:
    scripts/sbom

# Format, lints and documentation
check:
    cargo fmt --all --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Test, type-check, build and pack the player for browsers; on a running service too: just player http://127.0.0.1:8080
player *url:
    scripts/player {{url}}

# The player and the demo page in Chromium, on the binary that `cargo build` made
browser *files:
    DEMO_FROM_SERVICE=1 scripts/browser {{files}}

# Write anew what is generated
bless:
    cargo run -- openapi > docs/openapi.json
    cargo insta test --accept --test integration

# Write the tables of docs/CAPACITY.md and its chart anew, from the binary that `cargo build` made
charts:
    scripts/charts

# Check the alert rules and the queries of the dashboard
alerts:
    scripts/alerts

# Lint the Dockerfile, and run a binary in the root that the image has: just image target/release/stream-manager
image *binary:
    scripts/image {{binary}}

# Check compose.yaml and what it mounts
compose:
    scripts/compose

# What compose.yaml arranges, as processes, with players while instances go and come
trial *binary:
    scripts/trial {{binary}}

# Check the CloudFormation templates, and deploy them on a stand-in for AWS
deployment:
    scripts/deployment

# Check the workflows and scripts, and try what deploys and releases
workflows:
    scripts/workflows

# Everything, as before a change lands
ci:
    .ci/run
