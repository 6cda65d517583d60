"""The actions that generated workflows use: each by the full id of a commit, with its release in a comment.

A tag can be moved to other code, a commit can not. Each id was found in at least three independent public repositories,
paired with the same release.
"""

from types import MappingProxyType

ACTIONS = MappingProxyType(
    {
        "checkout": "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0",
        "setup_python": "actions/setup-python@e797f83bcb11b83ae66e0230d6156d7c80228e7c # v6.0.0",
        "aws": "aws-actions/configure-aws-credentials@a03048d87541d1d9fcf2ecf528a4a65ba9bd7838 # v5.0.0",
        "cosign": "sigstore/cosign-installer@d7543c93d881b35a8faa02e8e3605f69b7a1ce62 # v3.10.0",
        "upload_pages": "actions/upload-pages-artifact@7b1f4a764d45c48632c6b24a0339c27f5614fb0b # v4.0.0",
        "deploy_pages": "actions/deploy-pages@d6db90164ac5ed86f2b6aed7e0febac5b3c0c03e # v4.0.5",
    }
)
