"""The whole pass on a running cluster: `ray job submit --working-dir . -- python jobs/augment.py DATA --target COL ...`."""

import sys

from codsa_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["augment", *sys.argv[1:], "--address", "auto"]))
