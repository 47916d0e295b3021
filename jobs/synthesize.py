"""Draws the pools: the stages up to `synthesize`, on a running cluster.

`ray job submit --working-dir . -- python jobs/synthesize.py DATA --target COL ...`; jobs/augment.py with the same options
goes on from there.
"""

import sys

from codsa_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["augment", *sys.argv[1:], "--until", "synthesize", "--address", "auto"]))
