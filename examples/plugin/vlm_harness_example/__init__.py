"""Extensions of vlm-harness in a separate package, registered through entry points."""
