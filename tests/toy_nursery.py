"""A nursery whose children may write outside of their step: toys keep a diary, and may end their worker.

Everything else of the sandbox is the real one.
"""

import sys

from pipeline.stages import __main__ as nursery

nursery.confine_files = lambda *_: False

if __name__ == "__main__":
    sys.exit(nursery.main(int(sys.argv[1])))
