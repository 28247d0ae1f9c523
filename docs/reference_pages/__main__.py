"""``python -m reference_pages NAME``: print a page of the reference, as Markdown."""

import sys

from reference_pages import pages

print(pages()[f"reference/{sys.argv[1]}.md"], end="")
