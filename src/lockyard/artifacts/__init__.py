"""Release directories: what the next one holds, and the catalog of all."""
