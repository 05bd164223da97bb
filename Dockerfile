# On a CPU:            docker build --tag=fmirnet .
# On an NVIDIA GPU:    docker build --target cuda --tag=fmirnet:cuda .
# How it is used: docs/how-to/container.md
ARG PYTHON=3.11.14-slim-trixie

FROM python:${PYTHON} AS wheel
WORKDIR /source
COPY constraints.txt .
RUN pip install --no-cache-dir --constraint constraints.txt uv
COPY . .
RUN uv build --no-cache --wheel --out-dir /wheel
# The environment is copied as it is: no link into a cache, sources compiled where nobody may write later.
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 VIRTUAL_ENV=/opt/fmirnet
RUN uv venv "${VIRTUAL_ENV}"

# TORCH names torch's own index of wheels for uv: without it Linux gets those for CUDA, ten times as large.
FROM wheel AS packages-cpu
ARG EXTRAS=dicom
ARG TORCH=cpu
RUN uv pip install --torch-backend "${TORCH}" --constraint constraints.txt \
    "fmirnet_monai[${EXTRAS}] @ file://$(echo /wheel/*.whl)"

FROM wheel AS packages-cuda
ARG EXTRAS=dicom,train,video
RUN uv pip install --constraint constraints.txt "fmirnet_monai[${EXTRAS}] @ file://$(echo /wheel/*.whl)"

FROM python:${PYTHON} AS runtime
LABEL org.opencontainers.image.title="fmirnet" \
    org.opencontainers.image.description="Deformable registration of medical images with FMIRNet, in 2-D and 3-D; for research, not a medical device" \
    org.opencontainers.image.authors="The fmirnet-monai developers" \
    org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-SA-4.0"
# Any user may run it (--user), also one whom the system has no name for, as MONAI wants: home is a folder that all can write.
ENV PATH=/opt/fmirnet/bin:${PATH} HOME=/tmp LOGNAME=fmirnet PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN mkdir --mode 1777 /data
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["fmirnet"]
CMD ["--help"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-cuda /opt/fmirnet /opt/fmirnet

FROM runtime AS cpu
COPY --from=packages-cpu /opt/fmirnet /opt/fmirnet
