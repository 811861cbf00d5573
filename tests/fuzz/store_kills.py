"""Writers of a store that are killed at random moments: `python -m tests.fuzz.store_kills --kills 50`."""

import argparse
import tempfile
from pathlib import Path

from tests.fuzz.writers import kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = kills(given.kills, Path(folder), given.seed)
        aside = len(list(Path(folder).glob("store-*/*/.*")))
    print(f"{len(found)} kills; rows in the store after each: {sorted(found)}; files left half-written: {aside}")


if __name__ == "__main__":
    main()
