# One image, two builds: TORCH_INDEX chooses the torch it holds (docker-compose.yml passes it).
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /srv/errata

# Dependencies first: they change less often than the code.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements ./requirements
RUN pip install --require-hashes -r requirements/runtime.lock \
 && pip install -r requirements/torch.txt ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} \
 && pip install --no-deps --require-hashes -r requirements/questions.txt \
 && pip install --no-deps --require-hashes -r requirements/eyes.txt

COPY pyproject.toml README.md LICENSE errata_start.py ./
COPY migrations ./migrations
COPY editing_core ./editing_core
COPY app ./app
RUN pip install --no-deps --no-build-isolation . \
 && useradd --create-home errata && install -d -o errata /data

# Not from the source folder: what runs is what the wheel contains.
WORKDIR /data
USER errata
ENV ERRATA_DATA_DIR=/data \
    HF_HOME=/data/hub
VOLUME /data

HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 CMD \
  ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ.get(\"ERRATA_PORT\") or 8000}/health/ready', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["errata"]
CMD ["serve"]
