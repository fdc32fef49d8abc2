# Two images from one file, which differ in the build of torch alone:
#
#   docker build --target cpu  -t errata:cpu  .      any machine
#   docker build --target cuda -t errata:cuda .      an NVIDIA GPU, with the container toolkit
#
# What changes least comes first, so that a change of code installs no dependency again.
FROM python:3.12-slim AS base

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /build
COPY requirements ./requirements
RUN pip install --require-hashes -r requirements/runtime.lock \
 && pip install --require-hashes -r requirements/postgres.lock \
 && pip install --no-deps --require-hashes -r requirements/questions.txt \
 && pip install --no-deps --require-hashes -r requirements/eyes.txt
RUN useradd --create-home --uid 10001 errata && install -d -o errata /data

# Not from the source folder: what runs is what the wheel holds.
WORKDIR /data
ENV ERRATA_DATA_DIR=/data \
    ERRATA_HOST=0.0.0.0 \
    HF_HOME=/data/hub
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 CMD \
  ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ.get(\"ERRATA_PORT\") or 8000}/health/ready', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["errata"]
CMD ["serve"]

FROM base AS wheel
WORKDIR /build
COPY pyproject.toml README.md LICENSE errata_start.py ./
COPY migrations ./migrations
COPY editing_core ./editing_core
COPY app ./app
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM base AS cuda
RUN pip install -r /build/requirements/torch.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
ENV ERRATA_DEVICE=cuda
USER errata

FROM base AS cpu
RUN pip install -r /build/requirements/torch.txt --index-url https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
ENV ERRATA_DEVICE=cpu
USER errata
