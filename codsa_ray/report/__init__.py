"""The page a person reads; knows stored results and no data."""
