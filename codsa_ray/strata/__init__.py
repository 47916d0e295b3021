"""One file, one rule that cuts a group into strata; learned on fold-training rows only."""
