"""An existing tree of releases is adopted: what its files tell, and the configuration that says the same."""
