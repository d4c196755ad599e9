# syntax=docker/dockerfile:1
# The container image of the service. docs/CONTAINER.md lists its contents and how to check it.
#
# This file works for every architecture. Build each image on a machine of its own architecture, because compiling under emulation is slow.

# The C library of this Debian release is copied into the image. The Rust version must match rust-toolchain.toml. The digest is valid for
# all architectures. .github/workflows/ci.yml must use the same image and digest.
FROM rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS chef
WORKDIR /src
# cargo-chef builds the dependencies in a separate layer. A cache mount would not help, because a registry cache stores only layers and
# a fresh CI machine has no other cache.
RUN cargo install --quiet --locked --version 0.1.77 cargo-chef

FROM chef AS recipe
COPY . .
RUN cargo chef prepare --recipe-path /recipe.json

FROM chef AS build
COPY --from=recipe /recipe.json /recipe.json
RUN cargo chef cook --profile dist --locked --no-default-features --bin stream-manager --recipe-path /recipe.json
COPY . .
# The binary exports this commit as a metric.
ARG REVISION=unknown
ENV BUILD_REVISION=${REVISION}
RUN cargo build --profile dist --locked --no-default-features --bin stream-manager
# The binary keeps its symbol names for backtraces. The debug information with line numbers goes to the stage `debug`.
RUN mkdir /debug \
    && objcopy --only-keep-debug target/dist/stream-manager /debug/stream-manager.debug \
    && objcopy --strip-debug --add-gnu-debuglink=/debug/stream-manager.debug target/dist/stream-manager
RUN scripts/build-image-root target/dist/stream-manager /image

# Debug information: docker build --target debug --output . .
FROM scratch AS debug
COPY --from=build /debug/ /

FROM scratch
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="stream-manager" \
      org.opencontainers.image.description="Limits how many video streams a user watches at once" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /image/ /
# Other containers must reach both ports, so the service binds to all interfaces. Only Prometheus needs port 9464; do not publish it.
# auth.mode is not set: each operator must choose it, and a variable of the image would override a settings file.
ENV STREAM_MANAGER__SERVER__BIND=0.0.0.0:8080 \
    STREAM_MANAGER__SERVER__MANAGEMENT_BIND=0.0.0.0:9464 \
    STREAM_MANAGER__STORE__KIND=dynamodb \
    STREAM_MANAGER__LOG__FORMAT=json
EXPOSE 8080 9464
# A numeric user lets Kubernetes verify that the container does not run as root, and needs no /etc/passwd.
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/stream-manager", "healthcheck"]
ENTRYPOINT ["/stream-manager"]
