# The checkout on Ray's own image, for Kubernetes (jobs/rayjob.yaml) or any cluster of containers:
#   docker build -t REGISTRY/codsa:cpu .
#   docker build -t REGISTRY/codsa:gpu --build-arg BASE=rayproject/ray:2.60.0-py311-gpu .
ARG BASE=rayproject/ray:2.60.0-py311
FROM ${BASE}
WORKDIR /home/ray/codsa_ray
# Packages change seldom, and are kept as a layer of their own.
COPY --chown=ray:users constraints.txt pyproject.toml README.md LICENSE ./
RUN mkdir codsa_ray && touch codsa_ray/__init__.py \
    && python -m pip install --no-cache-dir -c constraints.txt . \
    && rm -rf codsa_ray build
COPY --chown=ray:users . .
RUN python -m pip install --no-cache-dir --no-deps -c constraints.txt . && codsa --help > /dev/null
