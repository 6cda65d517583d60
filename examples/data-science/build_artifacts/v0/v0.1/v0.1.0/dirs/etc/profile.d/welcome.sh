# Shown by a login shell.
echo "data-science ${IMAGE_VERSION}: python, numpy and pandas are in /opt/conda"
