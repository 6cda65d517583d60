"""Use cases: a Toolbox, a Workspace and plain values in, a frozen result out. They join pure decisions and effects."""
