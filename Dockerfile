# syntax=docker/dockerfile:1
# The service's image: docs/CONTAINER.md says what is in it and how it is checked.
#
# Nothing here names an architecture: build each on a machine of its own kind, since a compiler under emulation is slow.

# Debian's release fixes the C library, which the image takes along. The toolchain is that of rust-toolchain.toml. The digest names all
# architectures; .github/workflows/ci.yml has the same.
FROM rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS chef
WORKDIR /src
# A layer for the dependencies, not a cache mount: only layers go to a registry's cache, which a fresh CI machine has.
RUN cargo install --quiet --locked --version 0.1.77 cargo-chef

FROM chef AS recipe
COPY . .
RUN cargo chef prepare --recipe-path /recipe.json

FROM chef AS build
COPY --from=recipe /recipe.json /recipe.json
RUN cargo chef cook --release --locked --no-default-features --bin stream-manager --recipe-path /recipe.json
COPY . .
RUN cargo build --release --locked --no-default-features --bin stream-manager
# Names of functions stay for backtraces; where their lines are goes to the stage `debug`.
RUN mkdir /debug \
    && objcopy --only-keep-debug target/release/stream-manager /debug/stream-manager.debug \
    && objcopy --strip-debug --add-gnu-debuglink=/debug/stream-manager.debug target/release/stream-manager
RUN scripts/image-files target/release/stream-manager /image

# docker build --target debug --output . .
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
# Reached from other containers, so not on loopback. The second port is for Prometheus alone: publish it to nobody.
ENV STREAM_MANAGER__SERVER__BIND=0.0.0.0:8080 \
    STREAM_MANAGER__SERVER__MANAGEMENT_BIND=0.0.0.0:9464 \
    STREAM_MANAGER__STORE__KIND=dynamodb \
    STREAM_MANAGER__LOG__FORMAT=json
EXPOSE 8080 9464
# By number, so that Kubernetes can see that it is not root; no name is needed.
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/stream-manager", "healthcheck"]
ENTRYPOINT ["/stream-manager"]
