# Gavel: one image for every step and for the commands. It holds no secret and no setting; `docker-compose.yml` has both.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
RUN python3.11 -m venv /opt/gavel
COPY pyproject.toml requirements.lock deploy/docker/runtime_requirements.py ./
RUN python3.11 runtime_requirements.py pyproject.toml requirements.lock > runtime.lock \
    && /opt/gavel/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement runtime.lock \
    && /opt/gavel/bin/pip uninstall --yes pip setuptools
COPY deploy/docker/gavel /opt/gavel/bin/gavel
COPY schemas /opt/gavel/app/schemas
COPY examples /opt/gavel/app/examples
COPY deploy /opt/gavel/app/deploy
COPY services /opt/gavel/app/services
RUN chmod 755 /opt/gavel/bin/gavel && /opt/gavel/bin/python -m compileall -q /opt/gavel/app /opt/gavel/lib

FROM ${PYTHON_IMAGE}
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin gavel \
    && install --directory --owner=gavel /var/lib/gavel
COPY --from=packages /opt/gavel /opt/gavel
ENV PATH=/opt/gavel/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/gavel/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /opt/gavel/app
USER 1000:1000
ENTRYPOINT ["gavel"]
CMD ["--help"]
