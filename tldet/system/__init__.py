"""What the package needs of the machine: files, locks, memory, devices and signals."""
