# One image for every role: `innkeeper edge`, `innkeeper worker /rooms/chat.py`, ...

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY shared shared
COPY edge edge
COPY workers workers
COPY clients clients
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/innkeeper \
    && /opt/innkeeper/bin/pip install --no-cache-dir -c constraints.txt "$(echo /wheels/innkeeper-*.whl)[speed,jwt,metrics]"

FROM python:3.13-slim
# The venv is complete, compiled files included, so the file system may be read-only.
ENV PATH=/opt/innkeeper/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin innkeeper
COPY --from=build /opt/innkeeper /opt/innkeeper
USER 10001
WORKDIR /rooms
# The exec form: signals reach the role itself, not a shell.
ENTRYPOINT ["innkeeper"]
CMD ["--help"]
