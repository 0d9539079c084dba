# Controller, page and command line: no torch.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 GRADIO_ANALYTICS_ENABLED=False
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configs/constraints.txt configs/constraints.txt
COPY controller controller
COPY worker worker
COPY webui webui
RUN pip install --no-cache-dir -c configs/constraints.txt '.[webui]' && rm -rf /src/*

WORKDIR /
RUN useradd --create-home paragone
USER paragone
# A service's command begins with the package: controller, webui.
ENTRYPOINT ["python", "-m"]
CMD ["controller", "--help"]
