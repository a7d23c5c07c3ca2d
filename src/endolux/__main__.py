"""``python -m endolux`` is the ``endolux`` command."""

from endolux.cli import main

if __name__ == "__main__":
    main()
