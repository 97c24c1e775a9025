"""The verbs of the command line. Looking up their help imports none of what they work with."""
