"""Make docs/demo.png of a finished demo: rows of the report as one picture.

python docs/demo.py runs/demo
python docs/demo.py runs/demo --pairs 1 2 3 --out my.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from evlift.demo import demo_config
from evlift.view import save_picture
from evlift.view.panel import pair_strip, panel_basis
from evlift.view.run import pair_panels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the demo's folder")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 2, 4, 5], help="which rows of the report, from 0")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    args = parser.parse_args()
    config = demo_config(args.demo / "collection", steps=1)
    panels = pair_panels(args.demo / "structure", config, others={"token": args.demo / "token"})
    basis = panel_basis(panels)
    assert basis is not None
    strips = [pair_strip(panels[i], basis, labels=k == 0) for k, i in enumerate(args.pairs)]
    save_picture(args.out, np.concatenate(strips)[::2, ::2] if strips[0].shape[1] > 2000 else np.concatenate(strips))


if __name__ == "__main__":
    main()
