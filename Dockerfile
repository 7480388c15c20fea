# A server for one model folder, on the CPU; docs/serve.md shows how to build and run it.
FROM python:3.13-slim

# The address of a package index with CPU builds of torch. Without it, pip takes torch from its usual index; that build is
# for GPUs and needs several gigabytes.
ARG TORCH_INDEX=""

WORKDIR /segline
COPY pyproject.toml requirements.txt README.md LICENSE ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep -o '^torch==[^ ]*' requirements.txt)" \
    && pip install --no-cache-dir -r requirements.txt
COPY src ./src
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home segline
USER segline
WORKDIR /

EXPOSE 8000
ENTRYPOINT ["segline", "serve", "--model", "/model", "--port", "8000", "--host", "0.0.0.0", \
            "--allowed-host", "localhost"]
