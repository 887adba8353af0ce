"""Parts of vlm-harness that live in a package of their own, found by their entry points."""
