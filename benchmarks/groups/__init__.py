"""What is measured, one module a group. Each has `measure`, which yields its figures as they are known."""
