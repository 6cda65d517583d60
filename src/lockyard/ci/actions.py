"""The actions that generated workflows use: each by the full id of a commit, with its release in a comment.

A tag can be moved to other code, a commit can not. Each id was found in several independent public repositories, always
paired with the same release.
"""

from types import MappingProxyType

ACTIONS = MappingProxyType(
    {
        "checkout": "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0",
        "setup_python": "actions/setup-python@e797f83bcb11b83ae66e0230d6156d7c80228e7c # v6.0.0",
        "aws": "aws-actions/configure-aws-credentials@7474bc4690e29a8392af63c5b98e7449536d5c3a # v4.3.1",
        "cosign": "sigstore/cosign-installer@faadad0cce49287aee09b3a48701e75088a2c6ad # v4.0.0",
        "upload_pages": "actions/upload-pages-artifact@7b1f4a764d45c48632c6b24a0339c27f5614fb0b # v4.0.0",
        "deploy_pages": "actions/deploy-pages@d6db90164ac5ed86f2b6aed7e0febac5b3c0c03e # v4.0.5",
    }
)
