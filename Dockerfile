# syntax=docker/dockerfile:1
# kinshelf serve: docker build -t kinshelf . ; see compose.yaml for how it is run.
FROM python:3.11-slim

RUN useradd --create-home --uid 10001 kinshelf
WORKDIR /app
COPY . /src
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        -c /src/constraints.txt "/src[serve]" && rm -rf /src
RUN install -d -o 10001 -g 10001 /shelf
USER 10001
VOLUME /shelf
ENV KINSHELF_SHELF=/shelf/kin.shelf HF_HOME=/shelf/.huggingface
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8765/healthz', timeout=4)"]
ENTRYPOINT ["kinshelf"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8765", "--token-file", "/run/secrets/tokens"]
