"""The names of the texts in a release directory; apart from what writes them, because publishing only needs the names."""

RELEASE_NOTES = "RELEASE.md"
VERSION_NOTE = "RELEASE-NOTE.md"


def is_text(name: str) -> bool:
    """Whether a file of a release directory is one of these texts."""
    return name in {RELEASE_NOTES, VERSION_NOTE} or (name.startswith("CHANGELOG-") and name.endswith(".md"))


def changelog_name(image_type: str) -> str:
    """Return the name of a type's change log."""
    return f"CHANGELOG-{image_type}.md"
