# Build:  docker build -t meowbridge .
# Run:    docker run -d -p 8080:8080 -v meowbridge:/var/lib/meowbridge -v "$PWD/secret":/run/secrets/meowflow:ro \
#             -e MEOWBRIDGE_SECRET_FILE=/run/secrets/meowflow -e MEOWBRIDGE_MQTT_URL=mqtt://broker:1883 meowbridge

FROM debian:12-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev cmake ninja-build pkg-config \
        libmicrohttpd-dev libgnutls28-dev libmosquitto-dev libssl-dev libcjson-dev libsqlite3-dev
WORKDIR /src
COPY CMakeLists.txt CMakePresets.json ./
COPY include include
COPY bridge bridge
RUN cmake --workflow --preset release && strip build/release/meowbridge

FROM debian:12-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends libmicrohttpd12 libgnutls30 libmosquitto1 libssl3 libcjson1 libsqlite3-0 ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 65532 -g 65532 -m 0700 /var/lib/meowbridge
COPY --from=build /src/build/release/meowbridge /usr/local/bin/meowbridge
# A number, not a name, so that an orchestrator can see that it is not root.
USER 65532:65532
ENV MEOWBRIDGE_JOURNAL_PATH=/var/lib/meowbridge/meowbridge.db
VOLUME /var/lib/meowbridge
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/meowbridge"]
CMD ["serve"]
