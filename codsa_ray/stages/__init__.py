"""The only files that know Ray: read, fit, synthesize, search, apply."""
