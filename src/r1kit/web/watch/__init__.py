"""The live page over run folders (extra `web`): it reads, and never writes."""
