# Build:  docker build -t meowbridge --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .
# Run:    docker run -d --read-only --cap-drop ALL -p 8080:8080 -v meowbridge:/var/lib/meowbridge -v "$PWD/secret":/run/secrets/meowflow:ro \
#             -e MEOWBRIDGE_SECRET_FILE=/run/secrets/meowflow -e MEOWBRIDGE_MQTT_URL=mqtt://broker:1883 meowbridge
# With a broker beside it: conf/compose.yaml; on Kubernetes: conf/kubernetes.yaml.

FROM debian:12-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev cmake ninja-build pkg-config \
        libmicrohttpd-dev libgnutls28-dev libmosquitto-dev libssl-dev libcjson-dev libsqlite3-dev
WORKDIR /src
COPY CMakeLists.txt CMakePresets.json ./
COPY include include
COPY bridge bridge
RUN cmake --preset release -D MEOWBRIDGE_BENCH=OFF && cmake --build --preset release && strip build/release/meowbridge

FROM debian:12-slim
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="meowbridge" \
      org.opencontainers.image.description="MeowFlow webhook to MQTT bridge" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="MIT"
RUN apt-get update \
 && apt-get install -y --no-install-recommends libmicrohttpd12 libgnutls30 libmosquitto1 libssl3 libcjson1 libsqlite3-0 ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 65532 -g 65532 -m 0700 /var/lib/meowbridge
COPY --from=build /src/build/release/meowbridge /usr/bin/meowbridge
# A number, not a name, so that an orchestrator can see that it is not root.
USER 65532:65532
ENV MEOWBRIDGE_JOURNAL_PATH=/var/lib/meowbridge/meowbridge.db
VOLUME /var/lib/meowbridge
EXPOSE 8080
STOPSIGNAL SIGTERM
# Asks /livez: threads that hang are a reason to restart, a broker that is away is none. Variables say where, as they do to serve.
HEALTHCHECK --interval=30s --timeout=6s --start-period=10s --retries=3 CMD ["/usr/bin/meowbridge", "healthcheck"]
ENTRYPOINT ["/usr/bin/meowbridge"]
CMD ["serve"]
