# A worker: torch, and no checkpoint; mount those below /models. On x86-64 PyPI's torch brings the
# CUDA libraries, and the host its driver (NVIDIA Container Toolkit); for CPUs alone:
#   docker build -f docker/worker.Dockerfile --build-arg PIP_INDEX_URL=... .
FROM python:3.12-slim

ARG PIP_INDEX_URL
ENV PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configs/constraints.txt configs/constraints.txt
COPY controller controller
COPY worker worker
COPY webui webui
RUN pip install --no-cache-dir -c configs/constraints.txt '.[worker]' && rm -rf /src/*

WORKDIR /
RUN useradd --create-home paragone
USER paragone
# A service's command begins with the package: worker.
ENTRYPOINT ["python", "-m"]
CMD ["worker", "--help"]
