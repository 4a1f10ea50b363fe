# The server from source, with what it needs at run time and nothing else; not root.
# test/support/replay-image.ts runs these very lines where there is no Docker.

FROM node:22-bookworm-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev
# The runtime's package carries the binaries of all platforms; those of this one stay.
RUN cd node_modules/onnxruntime-node/bin/napi-v6 && rm -rf darwin win32 && \
    find linux -mindepth 1 -maxdepth 1 ! -name "$(node -p process.arch)" -exec rm -rf {} +

FROM node:22-bookworm-slim
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080 LUTHIER_HOME=/home/node/luthier
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY package.json ./
COPY bin ./bin
COPY migrations ./migrations
COPY src ./src
USER node
# Owned by the user, and so is a volume that is mounted here for the first time.
RUN mkdir -p /home/node/luthier/models
VOLUME /home/node/luthier
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/healthz`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
STOPSIGNAL SIGTERM
CMD ["node", "--import", "tsx", "src/server.ts"]
