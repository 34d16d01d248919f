"""What Flask-Stateful costs, beside what its peers cost: ``python -m benchmarks``. README.md explains the method."""
