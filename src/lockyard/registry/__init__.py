"""Publishing: the plan, the distribution client, the journal."""
