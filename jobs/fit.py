"""Fits every generator on every fold: the stages up to `fit`, on a running cluster.

`ray job submit --working-dir . -- python jobs/fit.py DATA --target COL ...`; jobs/augment.py with the same options goes on from there.
"""

import sys

from codsa_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["augment", *sys.argv[1:], "--until", "fit", "--address", "auto"]))
