"""New distributions: the files that `init` writes, from plain Jinja2 templates in `assets/`."""
