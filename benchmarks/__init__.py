"""What measures: nothing here is imported by the package."""
