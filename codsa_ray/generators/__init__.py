"""One file, one method that learns to draw rows of a region; knows no cluster and no sibling."""
