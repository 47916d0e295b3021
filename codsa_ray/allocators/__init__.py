"""One file, one rule that weighs regions; pure arithmetic."""
