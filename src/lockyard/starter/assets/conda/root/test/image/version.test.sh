# Runs inside the image by /bin/sh; passes with exit code 0.
test -n "$IMAGE_VERSION" || { echo "the image does not tell its version"; exit 1; }
