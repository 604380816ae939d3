# docker build --target cpu --tag folio .          for processors
# docker build --target cuda --tag folio:cuda .    for NVIDIA's cards, with docker run --gpus all
#
# docker run --rm -v "$PWD:/work" folio train notes/ --minutes 10

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm AS base
# Everybody may write there, so that --user works, too.
ENV FOLIO_CACHE=/cache PIP_NO_CACHE_DIR=1
RUN useradd --uid 1000 --create-home folio && mkdir -m 777 /cache && mkdir /work && chown folio /work
COPY constraints.txt /constraints.txt
WORKDIR /work
ENTRYPOINT ["folio"]
CMD ["--help"]

FROM base AS cuda
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install -c /constraints.txt "$(ls /wheels/*.whl)[documents,serve]"
USER 1000

FROM base AS cpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install -c /constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
    "$(ls /wheels/*.whl)[documents,serve]"
USER 1000
