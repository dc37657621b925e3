"""Runs mypy and pyright side by side, since each keeps one core busy; shows their findings one by one."""

import subprocess
import sys

CHECKERS = ("mypy", "pyright")

runs = [
    subprocess.Popen([name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for name in CHECKERS
]
failed = False
for name, run in zip(CHECKERS, runs, strict=True):
    found, _ = run.communicate()
    print(f"{name}: {found}", end="", flush=True)
    failed = failed or run.returncode != 0
sys.exit(failed)
