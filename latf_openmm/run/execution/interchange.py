"""Parsl's interchange in a process that ends when the one that started it does, however that ends.

Managers end themselves when the interchange is gone, so a driver that is killed leaves no worker behind. Run as a
file: it must start quickly and needs nothing of this package.
"""

import os
import runpy
import signal
import sys
import threading
import time


def main(driver: int) -> None:
    """Run the interchange for the process `driver`, which is this one's parent."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the driver, which still needs it to end the workers
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [place for place in sys.path if place != folder]  # in this folder `parsl` is something else
    main(int(sys.argv[1]))
