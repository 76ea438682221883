"""Ready-made answers to what test suites need again and again; none of them knows pytest."""
