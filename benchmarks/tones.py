"""How long does the synthesiser of spoken digits take?

    python benchmarks/tones.py [--examples 300]

Milliseconds of one CPU core an utterance of dataset=tones: for its sound alone, and for sound and log-mel features.
The best of three runs. Writes benchmarks/results/tones.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

from tokenrl_cli.dataset.tones import Tones
from tokenrl_cli.features.logmel import LogMel
from tokenrl_cli.interfaces import Recording


def milliseconds(action: Callable[[Recording], object], recordings: list[Recording]) -> float:
    """Of CPU time, for each recording."""
    start = time.process_time()
    for recording in recordings:
        action(recording)
    return 1000 * (time.process_time() - start) / len(recordings)


def features() -> LogMel:
    """New ones at each call, which have kept no frames."""
    return LogMel(8000, 25.0, 10.0, 40, 20.0, None, 0.97, 1.0, True, 0.1, "utterance", [1.0], 512.0, 8192.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=300)
    examples = parser.parse_args().examples
    data = Tones([5.0, 20.0], 1, examples, 200, 200, 600, "truncate")
    recordings = [source for i in range(examples) if isinstance(source := data.example("train", i).source, Recording)]
    found = {
        "sound": min(milliseconds(lambda each: each.read(), recordings) for _ in range(3)),
        "sound and features": min(milliseconds(features().frames, recordings) for _ in range(3)),
    }
    seconds = sum(data.example("train", i).columns["seconds"] for i in range(examples)) / examples
    about = {"examples": examples, "seconds of sound": round(seconds, 3), "machine": platform.machine()}
    result = about | {name: round(value, 2) for name, value in found.items()}
    print(json.dumps(result, indent=1))
    (Path(__file__).parent / "results" / "tones.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
