"""How fast the parts are, beside what people would otherwise use, timed in turns on the machine at hand."""
