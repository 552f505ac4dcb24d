"""The headings of DomainBed's tables, and how many jobs are done under each; those of pairs are of every table but
none.
"""

import argparse
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--input_dir", type=Path, required=True)
args = parser.parse_args()
done = len(list(args.input_dir.glob("*/done")))
for method in (
    "training-domain validation set",
    "leave-one-domain-out cross-validation",
    "test-domain validation set (oracle)",
):
    print(f"\nTotal records: {done}\n\n-------- Dataset: PACS, model selection method: {method}")
    print(f"Algorithm  A  C  P  S  Avg\nERM  {done} jobs")
    print(f"\n-------- Averages, model selection method: {method}\nERM  {done} jobs on average")
