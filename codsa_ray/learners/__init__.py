"""One file, one model that the user cares about; knows no generator and no cluster."""
