"""How long the FLOPs of 100 COCO images take to count, for every backbone of the paper; each in a process of its own.

    python scripts/benchmark_flops.py [--threads 2]

Machine and versions are printed first.
The goal is under 60 s each on two cores. Times are of the whole count, imports of torch and transformers apart.
"""

import argparse
import os
import subprocess
import sys

from m2fbench.environment import describe_environment, version_of
from m2fbench.flops import LIBRARIES

BACKBONES = ("R50", "R101", "Swin-T", "Swin-S", "Swin-B", "Swin-L-IN21k")
CHILD = """
import sys, time
import torch, transformers
torch.set_num_threads(int(sys.argv[2]))
from m2fbench.flops import flops
started, used = time.perf_counter(), time.process_time()
(row,) = flops([f"zoo:coco/instance/{sys.argv[1]}"]).rows
assert row.images == 100, row.problem
print(f"{time.perf_counter() - started:.1f} {time.process_time() - used:.1f} {row.sizes} {row.counts['paper'].mean / 1e9:.1f}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    threads = str(parser.parse_args().threads)
    known = describe_environment()
    print(f"{known['processor']}, {known['platform']}, python {known['python']}")
    print(", ".join(f"{name} {version_of(name)}" for name in LIBRARIES))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {threads} threads; 100 images of COCO val2017")
    print(f"{'backbone':<14}{'seconds':>9}{'cpu s':>8}{'sizes':>7}{'paper, G':>10}")
    for backbone in BACKBONES:
        done = subprocess.run([sys.executable, "-c", CHILD, backbone, threads], capture_output=True, text=True, check=True)
        wall, used, sizes, count = done.stdout.split()
        print(f"{backbone:<14}{wall:>9}{used:>8}{sizes:>7}{count:>10}", flush=True)


if __name__ == "__main__":
    main()
