# The image of a data platform team: it installs its environment itself.
# Needs no network: Debian packages lie in debs/, conda packages come from the mirror in the base.
ARG BASE_REPOSITORY=localhost/team-base
ARG BASE_TAG=1
FROM ${BASE_REPOSITORY}:${BASE_TAG} AS packages

# Debian packages are unpacked in a stage of their own, so that a change of the list does not run what is below again.
COPY debs /tmp/debs
RUN mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates \
    && touch /var/lib/dpkg/status \
    && dpkg --force-depends --install /tmp/debs/*.deb \
    && dpkg-query --show > /var/lib/dpkg/installed.txt \
    && rm -rf /tmp/debs

FROM packages

ARG IMAGE_VERSION
ARG IMAGE_TYPE=cpu
LABEL org.opencontainers.image.title="team data science" \
      org.opencontainers.image.version="${IMAGE_VERSION}" \
      com.example.team="data platform" \
      com.example.type="${IMAGE_TYPE}"

# Which environment: file names come from the build, the rest has defaults.
ARG ENV_IN_FILENAME
ARG PINNED_ENV_IN_FILENAME
ARG ARG_BASED_ENV_IN_FILENAME
ARG CUDA_MAJOR_MINOR_VERSION=
ARG ENV_ROOT=/opt/conda

# Who runs it.
ARG NB_USER=analyst
ARG NB_UID=1000
ARG NB_GID=100

ENV LANG=C.UTF-8 \
    LC_ALL=C.UTF-8 \
    SHELL=/bin/bash \
    ENV_ROOT=${ENV_ROOT} \
    NB_USER=${NB_USER} \
    NB_UID=${NB_UID} \
    NB_GID=${NB_GID} \
    HOME=/home/${NB_USER} \
    IMAGE_VERSION=${IMAGE_VERSION} \
    PATH=${ENV_ROOT}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Users. The group exists in some bases.
USER root
RUN (getent group ${NB_GID} > /dev/null || groupadd --gid ${NB_GID} users) \
    && useradd --uid ${NB_UID} --gid ${NB_GID} --create-home --shell /bin/bash ${NB_USER} \
    && mkdir -p /home/${NB_USER}/work ${ENV_ROOT} \
    && chown -R ${NB_UID}:${NB_GID} /home/${NB_USER} ${ENV_ROOT} \
    && chmod 0750 /home/${NB_USER}

# The environment's inputs. The wildcard takes what is there: not every type has every file.
COPY ${ENV_IN_FILENAME} *.pinned_env.in *.arg_based_env.in /tmp/inputs/

# What must be in every image, whatever its type; the team greps in the specs before it installs hours of packages.
RUN grep -q '^channel::tool\[' /tmp/inputs/${ENV_IN_FILENAME} \
    || { echo "tool is not among the specs of ${ENV_IN_FILENAME}" >&2; exit 1; }

# Pins and specs with variables are joined to the specs, where the build has given any.
RUN cd /tmp/inputs \
    && for name in ${PINNED_ENV_IN_FILENAME} ${ARG_BASED_ENV_IN_FILENAME}; do \
         echo "# from ${name}" >> ${ENV_IN_FILENAME}; \
       done \
    && if [ -n "${CUDA_MAJOR_MINOR_VERSION}" ]; then \
         echo "# for CUDA ${CUDA_MAJOR_MINOR_VERSION}" >> ${ENV_IN_FILENAME}; \
       fi

USER ${NB_UID}:${NB_GID}
RUN install-env /tmp/inputs/${ENV_IN_FILENAME}

# Post-install: what packages do not do themselves.
RUN mkdir -p ${ENV_ROOT}/etc/team \
    && ls ${ENV_ROOT}/conda-meta > ${ENV_ROOT}/etc/team/packages.txt \
    && if [ -n "${CUDA_MAJOR_MINOR_VERSION}" ]; then \
         echo "${CUDA_MAJOR_MINOR_VERSION}" > ${ENV_ROOT}/etc/team/cuda-version; \
       fi

# Configuration of the image, and its start.
USER root
COPY dirs/ /
RUN if [ -e /usr/local/bin/start ]; then chmod 0755 /usr/local/bin/start; fi \
    && echo "image ${IMAGE_VERSION} (${IMAGE_TYPE})" > /etc/team-release \
    && find /tmp -mindepth 1 -delete \
    && rm -rf /var/log/*.log /var/cache/ldconfig/aux-cache

# Small checks that have caught something once.
RUN test "$(id -u ${NB_USER})" = "${NB_UID}" \
    && test -x ${ENV_ROOT}/bin/tool \
    && test -z "$(find ${ENV_ROOT} -xdev -perm -0002 -type f)"

WORKDIR /home/${NB_USER}/work
USER ${NB_USER}
EXPOSE 8888
STOPSIGNAL SIGINT
VOLUME ["/home/analyst/work"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["/opt/conda/bin/tool"]
