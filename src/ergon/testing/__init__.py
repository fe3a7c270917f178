"""For tests: of flows, and of execution logs. Nothing here is imported by `import ergon`."""
