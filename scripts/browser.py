"""Make sure that Chromium is there for the page tests; where it is not, install it by apt or say how."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")

if not any(shutil.which(name) for name in NAMES):
    apt = shutil.which("apt-get")
    line = "apt-get update && apt-get install --yes chromium"
    if apt is None or os.geteuid() != 0:
        sys.exit(f"The page tests need Chromium. Install it, for example: sudo {line}")
    print("Setting up: installing Chromium for the page tests", flush=True)
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run([apt, "update", "-qq"], check=True, **quiet)
    subprocess.run([apt, "install", "--yes", "-qq", "--no-install-recommends", "chromium"], check=True, **quiet)
