"""A small GitHub for tests: a bare repository, pull requests and releases in a file, and a runner of workflow files."""
