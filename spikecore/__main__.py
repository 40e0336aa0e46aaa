"""`python -m spikecore` is `spike`."""

from spikecore.cli import main

if __name__ == "__main__":
    main()
